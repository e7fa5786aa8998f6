"""What `measure_impact` is asked to measure, checked before anything runs.

Not here: running it (run.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from srdd.core.formats import BlockFormat, parse
from srdd.core.modes import Mode
from srdd.documents.costs import How
from srdd.errors import NoEffectError, SettingError, setting
from srdd.runs.calibration import check_batch_size

Sensitive = Literal["norm", "linear"]
T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What is asked of a model."""

    formats: list[BlockFormat | None]  # None: the control, which changes nothing
    modes: list[Mode]
    how: list[How]
    sensitive: list[Sensitive]
    tokens_per_sequence: int
    label_samples: int
    batch_size: int
    exclude: list[str]
    noise: bool
    backend: str
    seed: int

    @property
    def real_formats(self) -> list[BlockFormat]:
        return [fmt for fmt in self.formats if fmt is not None]

    def check(self) -> None:
        """Refuses what no model is needed to refuse. Raises SettingError, NoEffectError."""
        if self.label_samples < 1:
            raise SettingError("label_samples", self.label_samples, "expected at least 1")
        check_batch_size(self.batch_size)
        if self.tokens_per_sequence < 0:
            raise SettingError("tokens_per_sequence", self.tokens_per_sequence, "expected 0 (all) or more")
        if self.label_samples > 1 and "predicted" not in self.how:
            raise NoEffectError("label_samples", f"without {setting('how', 'predicted')}")


def formats_of(formats: str | BlockFormat | Sequence[str | BlockFormat | None]) -> list[BlockFormat | None]:
    """From a list, or a text such as "mxfp4,identity". Raises SettingError, FormatError."""
    listed: Sequence[str | BlockFormat | None] = (
        [formats] if isinstance(formats, BlockFormat) else formats.split(",") if isinstance(formats, str) else formats
    )
    if not listed:
        raise SettingError("formats", None, "no format given; expected e.g. mxfp4, or identity for the control")
    return [
        None if fmt is None or (isinstance(fmt, str) and fmt.strip() == "identity") else parse(fmt) for fmt in listed
    ]


def chosen(name: str, given: str | Sequence[T], known: Sequence[T]) -> list[T]:
    """One name or several, refused before the run and not after it. Raises SettingError."""
    names: list[Any] = [given] if isinstance(given, str) else list(given)
    if not set(names) <= set(known):
        raise SettingError(name, ", ".join(map(repr, names)), f"expected some of {', '.join(map(str, known))}")
    return names
