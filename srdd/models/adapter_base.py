"""Which base an adapter belongs to: as it is given, or as the adapter's own config names it.

Not here: reading the adapter (files/adapter.py) and the base (source.py, files/checkpoint.py).

Worked number: the model ./my-lora, whose config names Qwen/Qwen3-0.6B, is that model with my-lora on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from srdd.core.adapters import FORMS, AdapterForm
from srdd.core.packaged_models import packaged
from srdd.errors import NoEffectError, SettingError, SourceError, setting
from srdd.models.files.adapter import Adapter, is_adapter, open_adapter


@dataclass(frozen=True)
class Named:
    """A model by name, and the adapter on it."""

    model: str
    revision: str | None
    adapter: Adapter | None = None
    given: bool = True  # False: the base's name is from the adapter's config


def named(model: str, adapter: str | None, adapter_as: str | None, revision: str | None) -> Named:
    """What is to be opened. Raises SourceError, SettingError, NoEffectError."""
    if adapter_as is not None and adapter_as not in FORMS:
        raise SettingError("adapter_as", repr(adapter_as), f"expected {' or '.join(FORMS)}")
    folder = Path(model).expanduser()
    itself = packaged(model) is None and folder.is_dir() and is_adapter(folder)
    if adapter is not None:
        if itself:
            raise SettingError("adapter", adapter, f"{model} is an adapter too; one at a time, on its base")
        found = open_adapter(adapter)
        return Named(model, revision, found)
    if not itself:
        if adapter_as is not None:
            raise NoEffectError("adapter_as", "without an adapter")
        return Named(model, revision)
    found = open_adapter(model)
    how = f"give the base: {setting('model', 'BASE')} {setting('adapter', model)}"
    if found.base is None:
        raise SourceError(f"{found.label} is an adapter, and its config names no base; {how}")
    base = Path(found.base).expanduser()
    hub_id = not found.base.startswith((".", "/", "~")) and found.base.count("/") <= 1
    if packaged(found.base) is None and not base.exists() and not hub_id:
        raise SourceError(f"{found.label} is an adapter of {found.base}, which is no folder here; {how}")
    if revision is not None and base.exists():
        raise NoEffectError("revision", "on a local model")
    return Named(found.base, revision or (None if base.exists() else found.revision), found, given=False)


@contextmanager
def opening_base(what: Named, typed: str) -> Iterator[None]:
    """Opening a base that an adapter's config names; if it fails, the line says how to give another."""
    try:
        yield
    except SourceError as problem:
        if what.given or what.adapter is None:
            raise
        why = str(problem).rstrip(".")
        raise SourceError(
            f"{what.adapter.label} is an adapter of {what.model}, which does not open: {why}; if it is elsewhere, "
            f"give it: {setting('model', 'BASE')} {setting('adapter', typed)}"
        ) from problem


def other_base(what: Named) -> tuple[str, ...]:
    """A note where the adapter's config names another base than the one that was given."""
    said = what.adapter.base if what.adapter is not None else None
    if said is None or not what.given or Path(said).name == Path(what.model).expanduser().resolve().name:
        return ()
    return (f"the adapter's config names {Path(said).name} as its base",)


def form_of(adapter_as: str | None) -> AdapterForm:
    """The form asked for; apart by default, as servers and QLoRA keep adapters."""
    return "merged" if adapter_as == "merged" else "apart"
