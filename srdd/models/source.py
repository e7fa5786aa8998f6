"""Opens a model to run: a Hugging Face id, a local folder, a GGUF file, or a packaged model by short name.

Not here: scanning, and reading weights without a model (files/checkpoint.py). No exception of transformers or the hub
gets through: every failure is a SourceError that says in one line what was found.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from srdd.core.files import readable
from srdd.core.packaged_models import near_model, packaged
from srdd.documents.parts import Model
from srdd.errors import ConflictError, NoEffectError, SettingError, SourceError, setting
from srdd.models.dequantized import is_packed
from srdd.models.files import gguf, gguf_header
from srdd.models.files.checkpoint import Checkpoint, open_checkpoint
from srdd.models.files.safetensors import check_shards, shards_hash
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
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    trust_remote_code: bool = False,
) -> OpenModel:
    """Open a model and, if it has one, its tokenizer. Raises SourceError, MissingExtraError, SettingError,
    NoEffectError and ConflictError.

    dtype "auto" is the checkpoint's own; for GGUF float32, the type its values dequantize to.
    """
    where = check_options(dtype, device, device_map)
    path = packaged(name) or Path(name).expanduser()
    notes: tuple[str, ...] = ()
    label, hashed = _label(name, path), None
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
            raise SourceError(
                f"{path.name} is a single file, no model folder; only its weights can be scanned: "
                f"{setting('sites', 'weight')}"
            )
        elif path.is_dir():
            hashed = _check_folder(path, label)
            if hashed is not None:  # safetensors
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
        model, random = load_model(target, label, dtype, device_map, None if device_map else where, options, packed)
        tokenizer, problem = load_tokenizer(target, label, options)
    if target == name and not path.is_dir():
        revision, hashed = _of_hub(name, revision)
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
    return OpenModel(model.eval(), tokenizer, problem, identity, first.device, (*notes, *random))


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


def _check_folder(folder: Path, label: str) -> str | None:
    """The weights hash, if any. Finds in a second what from_pretrained would find late or not at all."""
    if not (folder / "config.json").is_file():
        raise SourceError(f"{label} holds no config.json, so it is no model folder")
    shards = check_shards(folder)
    if not shards and not any(folder.glob("pytorch_model*.bin*")):
        raise SourceError(
            f"{label} holds no weights: expected model.safetensors, its index with shards, or a .bin file"
        )
    return shards_hash(shards) if shards else None


def _of_hub(name: str, revision: str | None) -> tuple[str | None, str | None]:
    """Commit and weights hash of a model that is now in the hub's cache; no hash without safetensors files."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(config, str):
        return revision, None
    snapshot = Path(config).parent  # the cache names its folders by commit
    shards = check_shards(snapshot)
    return snapshot.name, shards_hash(shards) if shards else None
