"""Opens a model to run: a Hugging Face id, a local folder, a GGUF file, or a packaged model by short name.

Not here: scanning, and reading weights without a model (files/checkpoint.py). No exception of transformers or the hub
gets through: every failure is a SourceError that says in one line what was found.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch

from srdd.core.files import readable
from srdd.core.packaged_models import near_model, packaged
from srdd.documents.parts import Model
from srdd.errors import ConflictError, NoEffectError, SettingError, SourceError, setting
from srdd.models.adapted import Adapted, adapt
from srdd.models.adapter_base import form_of, named, opening_base, other_base
from srdd.models.dequantized import is_packed
from srdd.models.files import gguf, gguf_header, mistaken
from srdd.models.files.arranged import arranged
from srdd.models.files.checkpoint import Checkpoint, open_checkpoint
from srdd.models.files.folders import WeightFiles, weight_files
from srdd.models.files.safetensors import header_of
from srdd.models.loading import load_model, load_tokenizer
from srdd.models.modules import decoder_layers

DTYPES = ("auto", "float32", "bfloat16", "float16")
_DEVICES = "expected auto, cpu, cuda, cuda:N or mps"


@dataclass(frozen=True)
class OpenModel:
    """A model ready to run, in eval mode on its device."""

    model: Any  # a transformers PreTrainedModel, which has no types
    tokenizer: Any | None
    tokenizer_problem: str | None
    identity: Model
    device: torch.device
    notes: tuple[str, ...] = ()
    adapted: Adapted | None = None  # the adapter on it

    def merged(self) -> OpenModel:
        """With its adapter, which is apart, merged into the weights. Raises SourceError where that cannot be."""
        assert self.adapted is not None, "only what has an adapter is merged"
        self.adapted.merge()
        adapter, base = self.adapted.adapter, self.adapted.base
        notes = [note for note in self.notes if note not in adapter.notes("apart")]
        return replace(self, identity=adapter.on(base, "merged"), notes=(*notes, *adapter.notes("merged")))


def needs_model(name: str) -> bool:
    """True when the weights of `name` cannot be read without building it: GGUF files and smollm2."""
    path = packaged(name) or Path(name)
    return path.suffix == ".gguf"


def first_unpacking(name: str, dtype: str) -> bool:
    """True when opening `name` will first unpack a GGUF file into the cache, which takes half a minute."""
    path = packaged(name) or Path(name).expanduser()
    wanted = "float32" if dtype == "auto" else dtype
    return path.suffix == ".gguf" and path.is_file() and not gguf.is_unpacked(path, wanted)


def open_model(
    name: str,
    *,
    adapter: str | None = None,
    adapter_as: str | None = None,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    trust_remote_code: bool = False,
) -> OpenModel:
    """Open a model and, if it has one, its tokenizer. Raises SourceError, MissingExtraError, SettingError,
    NoEffectError and ConflictError.

    dtype "auto" is the checkpoint's own; for GGUF float32, the type its values dequantize to. `adapter` is the folder
    of a LoRA adapter to put on the model; if `name` is one, its config names the model. `adapter_as` is "apart" (the
    default: s B A x beside the quantized W) or "merged" (W + s B A, quantized as one).
    """
    what = named(name, adapter, adapter_as, revision)
    options = {"dtype": dtype, "device": device, "device_map": device_map, "trust_remote_code": trust_remote_code}
    with opening_base(what, name):
        opened = _open(what.model, revision=what.revision, **options)  # type: ignore[arg-type]
    if what.adapter is None:
        return opened
    base = opened.identity
    adapted = adapt(opened.model, what.adapter, base)
    notes = (*opened.notes, *what.adapter.notes("apart"), *other_base(what))
    apart = replace(opened, identity=what.adapter.on(base, "apart"), notes=notes, adapted=adapted)
    return apart.merged() if form_of(adapter_as) == "merged" else apart


def _open(
    name: str, *, revision: str | None, dtype: str, device: str, device_map: str | None, trust_remote_code: bool
) -> OpenModel:
    """A model without an adapter."""
    where = check_options(dtype, device, device_map)
    path = packaged(name) or Path(name).expanduser()
    notes: tuple[str, ...] = ()
    label, hashed = _label(name, path), None
    read: WeightFiles | None = None
    packed: Checkpoint | None = None
    with ExitStack() as open_while_loading:
        if path.is_file() and path.suffix == ".gguf":
            hashed = gguf_header.head_hash(path)
            stored = gguf_header.stored_types(path)
            notes = (
                f"the weights come from a GGUF file in {stored} and already carry that format's error; "
                "weight errors here are against the dequantized values",
            )
            path = open_while_loading.enter_context(gguf.unpacked(path, "float32" if dtype == "auto" else dtype))
        elif path.is_file():
            header_of(path)  # which says so if it is something else
            raise SourceError(
                f"{path.name} is a single file, no model folder; only its weights can be scanned: "
                f"{setting('sites', 'weight')}"
            )
        elif path.is_dir():
            read = _check_folder(path, label, name)
            if read is not None:
                checkpoint = open_checkpoint(str(path))
                packed, notes = checkpoint if is_packed(checkpoint) else None, checkpoint.notes
        elif path.suffix == ".gguf" or name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise SourceError(f"no such model folder or file: {name}{near_model(name)}")
        target = str(path) if path.is_dir() else name
        options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        if revision is not None and not path.is_dir():
            options["revision"] = revision
        elif revision is not None:
            raise NoEffectError("revision", "on a local model")
        load = partial(load_model, dtype=dtype, device_map=device_map, where=None if device_map else where)
        if read is not None and packed is None and not read.usual:
            model, random = _load_arranged(load, path, read, label, options)
        else:
            model, random = load(target, label, options=options, packed=packed)
        if not path.is_dir():
            snapshot, read = _of_hub(name, revision)
            if snapshot is not None:
                revision = snapshot.name  # the cache names its folders by commit
            if snapshot is not None and read is not None and not read.usual:  # seen only now that it is here
                model, random = _load_arranged(load, snapshot, read, label, options)
        tokenizer, problem = load_tokenizer(target, label, options)
    if read is not None:
        hashed, notes = read.weights_hash, tuple(dict.fromkeys((*notes, *read.notes)))
    first = next(model.parameters())
    identity = Model(
        id=label,
        parameter_count=sum(p.numel() for p in model.parameters()),
        revision=revision,
        architecture=type(model).__name__,
        layer_count=len(decoder_layers(model)),
        weights_hash=hashed,
        dtype=str(first.dtype).removeprefix("torch."),
    )
    return OpenModel(model.eval(), tokenizer, problem, identity, first.device, tuple(dict.fromkeys((*notes, *random))))


def check_options(dtype: str, device: str, device_map: str | None) -> torch.device:
    """The device that was asked for. Raises SettingError or ConflictError for what no model can be opened with."""
    if dtype not in DTYPES:
        raise SettingError("dtype", dtype, f"expected one of {', '.join(DTYPES)}")
    if device_map is not None and device != "auto":
        raise ConflictError("device", "device_map")
    return _device(device)


def _label(name: str, path: Path) -> str:
    """What a report calls the model: a local path gives its last part only."""
    if packaged(name) is not None:
        return name
    return readable(path.resolve().name if path.exists() else name)


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise SettingError("device", device, _DEVICES) from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise SettingError("device", device, f"this machine has {torch.cuda.device_count()} cuda device(s)")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise SettingError("device", device, "not available on this machine; leave it out, or take cpu")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise SettingError("device", device, _DEVICES)
    return chosen


def _check_folder(folder: Path, label: str, typed: str) -> WeightFiles | None:
    """The weights, if they are safetensors. Finds in a second what from_pretrained would find late or not at all."""
    if not (folder / "config.json").is_file():
        told = mistaken.told(folder, typed)
        raise SourceError(f"{label} {told or 'holds no config.json, so it is no model folder'}")
    read = weight_files(folder)
    pickles = [] if read is not None else [*mistaken.pickled(folder), *folder.glob("pytorch_model*.bin.index.json")]
    if read is None and not pickles:
        told = mistaken.told(folder, typed)
        known = "holds no weights: expected model.safetensors, its index with shards, or pytorch_model.bin"
        raise SourceError(f"{label} {told or known}")
    pointer = next((file for file in pickles if mistaken.is_pointer(file)), None)
    if pointer is not None:
        raise SourceError(f"{pointer.name} {mistaken.POINTER_ADVICE}")
    return read


def _load_arranged(
    load: Callable[..., tuple[Any, tuple[str, ...]]],
    folder: Path,
    read: WeightFiles,
    label: str,
    options: dict[str, Any],
) -> tuple[Any, tuple[str, ...]]:
    """A model with exactly these weights, by way of a folder of links that lives as long as it may read from it."""
    try:
        links = arranged(folder, read)
    except OSError as problem:
        raise SourceError(f"{label} cannot be opened by links to its files: {problem.strerror or problem}") from problem
    try:
        local = {key: value for key, value in options.items() if key != "revision"}
        model, notes = load(str(links), label, options=local)
    except BaseException:
        rmtree(links, ignore_errors=True)
        raise
    model.config._name_or_path = str(folder)
    weakref.finalize(model, rmtree, links, ignore_errors=True)
    return model, notes


def _of_hub(name: str, revision: str | None) -> tuple[Path | None, WeightFiles | None]:
    """Folder and weights of a model that is now in the hub's cache; no weights without safetensors files."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(config, str):
        return None, None
    snapshot = Path(config).parent
    return snapshot, weight_files(snapshot)
