"""Weights of a safetensors checkpoint, read piece by piece without building a model.

Not here: single files (safetensors.py), which of them count (folders.py), how codes become values (packed/) and which
tensors matter (srdd.models.checkpoint_sites). A packed weight is a tensor like any other, in float32. Each chunk is a
memory map of its own, freed with the chunk: the pages of one map of the whole file would all come to count as this
process's memory, and a buffer to read into costs more to allocate than to fill.

Worked number: a chunk is at most 64 MiB, so a [8192, 4096] bfloat16 tensor (64 MiB) is one map, a [128256, 4096] one
is 16.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from srdd.core.files import readable
from srdd.core.packaged_models import near_model, packaged
from srdd.documents.parts import Model
from srdd.errors import SourceError, setting
from srdd.models.files import mistaken, packed
from srdd.models.files.contents import left_over
from srdd.models.files.folders import WeightFiles, single_file, weight_files
from srdd.models.files.packed.claims import METHODS, Claims, claims_of
from srdd.models.files.packed.contract import Packed
from srdd.models.files.safetensors import StoredTensor, mapped, opened

CHUNK_BYTES = 64 * 2**20
TALLEST_TILE = 128  # rows of the tallest tile of a format: no chunk may end inside one


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: only headers have been read, no tensor yet."""

    identity: Model
    config: dict[str, Any]
    tensors: dict[str, StoredTensor | Packed]  # packed weights under the names of what they stand for
    notes: tuple[str, ...] = field(default=())
    belongs: dict[str, str] = field(default_factory=dict)  # scales and their kin -> what they belong to
    damaged: tuple[str, ...] = ()  # packed weights that cannot be read, a line each
    unheld: str | None = None  # a line, where the config names a format that no tensor holds
    claims: Claims | None = None  # what the config says of formats
    stored: dict[str, StoredTensor] = field(default_factory=dict)  # every tensor as it lies in the files

    def row_chunks(self, name: str, *, expert: int | None = None, max_bytes: int | None = None) -> Iterator[Tensor]:
        """A matrix in runs of rows, each a multiple of 128 rows except the last; `expert` picks one of a 3-D tensor.

        Memory is held only as long as its chunk; writing to a chunk does not change the file.
        """
        tensor = self.tensors[name]
        if isinstance(tensor, Packed):
            yield from _packed_chunks(tensor, expert, CHUNK_BYTES if max_bytes is None else max_bytes)
            return
        dtype = tensor.torch_dtype
        *lead, rows, columns = (1, 1, *tensor.shape)[-max(len(tensor.shape), 2) :]  # a vector is a row
        if tensor.numel == 0:
            return
        row_bytes = columns * dtype.itemsize
        first = tensor.start + (0 if expert is None else expert * rows * row_bytes)
        if expert is None:
            rows *= math.prod(lead)
        limit = CHUNK_BYTES if max_bytes is None else max_bytes
        step = max(limit // max(row_bytes, 1) // TALLEST_TILE * TALLEST_TILE, TALLEST_TILE)
        with opened(tensor.file) as file:
            for start in range(0, rows, step):
                count = min(step, rows - start)
                raw = mapped(file, tensor, first + start * row_bytes, count * row_bytes)
                yield raw.view(dtype).view(count, columns)


def _packed_chunks(weight: Packed, expert: int | None, max_bytes: int) -> Iterator[Tensor]:
    *lead, rows, columns = weight.shape
    if weight.numel == 0:
        return
    step = max(max_bytes // (columns * 4) // TALLEST_TILE * TALLEST_TILE, TALLEST_TILE)
    for matrix in range(math.prod(lead)) if expert is None else (expert,):
        for start in range(0, rows, step):
            yield weight.rows(matrix, start, min(step, rows - start))


def open_checkpoint(name: str, *, revision: str | None = None) -> Checkpoint:
    """Open a folder with model.safetensors or its index, a single .safetensors file, a hub id or `minilm`.

    Raises SourceError when nothing is there, a shard is missing, a file is cut short, or what is there is no model.
    """
    folder, read, label, revision = _files(name, revision)
    stored = read.tensors
    if not stored:
        raise SourceError(f"{label} holds no tensors")
    config = _config(folder)
    claims = claims_of(config, _config(folder, "hf_quant_config.json"))
    unpacked = packed.unpack(stored, claims, _metadata(stored, [header for header, _ in read.parts]))
    single = (packaged(name) or Path(name).expanduser()).is_file()  # a shard need not hold what the config names
    unheld = None if single else packed.unheld(unpacked, claims)
    if claims is not None and claims.method not in METHODS and not single:
        unheld = left_over(stored, config)
    architectures = config.get("architectures") or [None]
    nested = config.get("text_config")  # of a model with a vision part
    configs = [config, *([nested] if isinstance(nested, dict) else [])]
    layer_count = next(
        (c[key] for c in configs for key in ("num_hidden_layers", "n_layer", "num_layers") if key in c), None
    )
    dtypes = sorted({t.dtype for t in stored.values()})
    identity = Model(
        id=label,
        parameter_count=sum(t.numel for t in unpacked.tensors.values()),
        revision=revision,
        architecture=architectures[0],
        layer_count=layer_count,
        weights_hash=read.weights_hash,
        dtype=", ".join(dtypes),
    )
    notes = (*read.notes, *packed.stored_note(unpacked.packed), *packed.contradictions(unpacked, claims))
    tensors, belongs, problems = unpacked.tensors, unpacked.belongs, unpacked.problems
    return Checkpoint(identity, config, tensors, notes, belongs, problems, unheld, claims, stored)


def _files(name: str, revision: str | None) -> tuple[Path, WeightFiles, str, str | None]:
    """Folder, its weights, what a report calls them, and the revision."""
    path = packaged(name) or Path(name).expanduser()
    label = name if packaged(name) else readable(path.resolve().name if path.exists() else name)
    if path.suffix == ".gguf":
        raise SourceError(f"{label} is a GGUF file, whose weights are read through the model: use open_model")
    if path.is_file():
        return path.parent, single_file(path), label, revision
    if not path.is_dir():
        path = _from_hub(name, revision)
        revision = path.name  # the commit, as the hub's cache calls its folders
    read = weight_files(path)
    if read is None:
        raise SourceError(f"{label} {mistaken.told(path, name) or _no_safetensors(path)}")
    return path, read, label, revision


def _no_safetensors(folder: Path) -> str:
    files = mistaken.pickled(folder)
    if files:
        return (
            f"holds pickled weights alone ({files[0].name}), which are read through the model: leave "
            f"{setting('sites', 'weight')} out, or save it again with save_pretrained, as safetensors"
        )
    return "holds no safetensors file; give a folder with model.safetensors, or a hub id"


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise SourceError(f"no such folder or file: {name}{near_model(name)}")
    try:
        # Subfolders hold the same weights in other layouts (original/, onnx/); patterns cross slashes.
        snapshot = snapshot_download(
            name, revision=revision, allow_patterns=["*.safetensors", "*.json"], ignore_patterns=["*/*"]
        )
    except Exception as problem:  # the hub client raises many types; all mean that there are no files
        first = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise SourceError(
            f"{name} is no local folder or file, and the hub did not give it: {first}{near_model(name)}"
        ) from problem
    return Path(snapshot)


def _metadata(stored: dict[str, StoredTensor], headers: list[bytes]) -> dict[str, str]:
    """What the files say of their tensors; only torchao says anything there that values depend on."""
    if not any(name.endswith("_qdata") for name in stored):
        return {}
    every = [json.loads(header).get("__metadata__") for header in headers]
    return {key: text for said in every if isinstance(said, dict) for key, text in said.items()}


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise SourceError(f"{name} in {folder.name} is no JSON ({problem})") from problem
    return config if isinstance(config, dict) else {}
