"""Weights of a safetensors checkpoint, read piece by piece with no model built.

Not here: which tensors matter (checkpoint_sites.py). A file is an 8-byte length, a JSON header with the place of every
tensor, and the bytes (safetensors' format description). Each chunk is a memory map of its own, gone with the chunk: the
pages of one map of the file would count as this process's memory until the whole file is there, and a buffer to read
into costs more to allocate than to fill.

Worked number: a chunk is at most 64 MiB, so a [8192, 4096] bfloat16 tensor (64 MiB) is one map, a [128256, 4096] one
is 16.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srdd.errors import SourceError
from srdd.identity import Identity, weights_hash
from srdd.packages import packaged

CHUNK_BYTES = 64 * 2**20
_MAX_HEADER = 100 * 2**20  # safetensors' own limit
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
if hasattr(torch, "float8_e8m0fnu"):  # torch 2.7
    _DTYPES["F8_E8M0"] = torch.float8_e8m0fnu


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: `start` is its first byte in `file`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    start: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def torch_dtype(self) -> torch.dtype:
        if self.dtype not in _DTYPES:
            raise SourceError(f"{self.name} is stored as {self.dtype}; known: {', '.join(_DTYPES)}")
        return _DTYPES[self.dtype]


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: headers only, no tensor is read yet."""

    identity: Identity
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]
    notes: tuple[str, ...] = field(default=())

    def row_chunks(self, name: str, *, expert: int | None = None, max_bytes: int | None = None) -> Iterator[Tensor]:
        """A matrix in runs of rows, each a multiple of 32 rows but the last; `expert` picks one of a 3-D tensor.

        Memory is held for as long as a chunk is; writing to one does not change the file.
        """
        tensor = self.tensors[name]
        dtype = tensor.torch_dtype
        *lead, rows, columns = (1, 1, *tensor.shape)[-max(len(tensor.shape), 2) :]  # a vector is a row
        if tensor.numel == 0:
            return
        row_bytes = columns * dtype.itemsize
        first = tensor.start + (0 if expert is None else expert * rows * row_bytes)
        if expert is None:
            rows *= math.prod(lead)
        step = max((CHUNK_BYTES if max_bytes is None else max_bytes) // max(row_bytes, 1) // 32 * 32, 32)
        with _opened(tensor.file) as file:
            for start in range(0, rows, step):
                count = min(step, rows - start)
                raw = _mapped(file, tensor, first + start * row_bytes, count * row_bytes)
                yield raw.view(dtype).view(count, columns)


def open_checkpoint(name: str, *, revision: str | None = None) -> Checkpoint:
    """Open a folder with model.safetensors or its index, a single .safetensors file, a hub id or `minilm`.

    Raises SourceError, in one line: nothing there, a shard missing, a file cut short.
    """
    folder, files, label, revision = _files(name, revision)
    tensors: dict[str, StoredTensor] = {}
    parts = []
    for file in files:
        header, stored = _header(file)
        parts.append((header, file.stat().st_size))
        tensors.update(stored)
    if not tensors:
        raise SourceError(f"{label} holds no tensors")
    config = _config(folder)
    architectures = config.get("architectures") or [None]
    nested = config.get("text_config")  # of a model with a vision part
    configs = [config, *([nested] if isinstance(nested, dict) else [])]
    layer_count = next(
        (c[key] for c in configs for key in ("num_hidden_layers", "n_layer", "num_layers") if key in c), None
    )
    dtypes = sorted({t.dtype for t in tensors.values()})
    quantized = config.get("quantization_config")
    notes: tuple[str, ...] = ()
    if quantized:
        method = quantized.get("quant_method", "unnamed") if isinstance(quantized, dict) else "unnamed"
        notes = (f"the weights are stored quantized ({method}); they are scanned as stored",)
    identity = Identity(
        id=label,
        parameter_count=sum(t.numel for t in tensors.values()),
        revision=revision,
        architecture=architectures[0],
        layer_count=layer_count,
        weights_hash=weights_hash(parts),
        dtype=", ".join(dtypes),
    )
    return Checkpoint(identity, config, tensors, notes)


def check_shards(folder: Path) -> list[Path]:
    """The weight files of a folder in order of name, each complete. Raises SourceError; [] without safetensors."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted(set(where.values()))
            missing = [name for name in names if not (folder / name).is_file()]
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as problem:
            raise SourceError(f"{index.name} is no index of shards ({problem}); get the checkpoint again") from problem
        if missing:
            raise SourceError(f"{index.name} names {len(names)} shards, {missing[0]} is missing in {folder.name}")
        files = [folder / name for name in names]
        stored = {name for file in files for name in _header(file)[1]}
        if absent := sorted(set(where) - stored):
            raise SourceError(f"{index.name} names {absent[0]}, which no shard holds; get the checkpoint again")
        return files
    files = sorted(folder.glob("model.safetensors")) or sorted(folder.glob("*.safetensors"))
    for file in files:
        _header(file)
    return files


def shards_hash(files: list[Path]) -> str:
    """The weights hash of complete safetensors files."""
    return weights_hash((_header(file)[0], file.stat().st_size) for file in files)


def _files(name: str, revision: str | None) -> tuple[Path, list[Path], str, str | None]:
    """Folder, weight files, what a report calls them, and the revision."""
    path = packaged(name) or Path(name).expanduser()
    label = name if packaged(name) else path.resolve().name if path.exists() else name
    if path.suffix == ".gguf":
        raise SourceError(f"{label} is a GGUF file, whose weights are read through the model: use open_model")
    if path.is_file():
        return path.parent, [path], label, revision
    if not path.is_dir():
        path = _from_hub(name, revision)
        revision = path.name  # the commit, as the hub's cache calls its folders
    files = check_shards(path)
    if not files:
        raise SourceError(f"{label} holds no safetensors file; convert it, or scan it without --sites weight")
    return path, files, label, revision


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise SourceError(f"no such folder or file: {name}")
    try:
        # Subfolders hold the same weights in other layouts (original/, onnx/); patterns cross slashes.
        found = snapshot_download(
            name, revision=revision, allow_patterns=["*.safetensors", "*.json"], ignore_patterns=["*/*"]
        )
    except Exception as problem:  # the hub client raises many types; all mean that the files are not to be had
        first = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise SourceError(f"{name} is no local folder or file, and the hub did not give it: {first}") from problem
    return Path(found)


def _header(file: Path) -> tuple[bytes, dict[str, StoredTensor]]:
    """The header of one file and the tensors it names. Raises SourceError where they do not fit the file's size."""
    with _opened(file) as stream:
        size = file.stat().st_size
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise SourceError(f"{file.name} is no complete safetensors file ({size} bytes); get it again")
        raw = stream.read(length)
    try:
        rows = {name: row for name, row in json.loads(raw).items() if name != "__metadata__"}
        tensors = {
            name: StoredTensor(name, tuple(row["shape"]), row["dtype"], file, 8 + length + row["data_offsets"][0])
            for name, row in rows.items()
        }
        end = max((row["data_offsets"][1] for row in rows.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise SourceError(f"{file.name} has no readable safetensors header ({problem}); get it again") from problem
    for row in tensors.values():
        start, stop = rows[row.name]["data_offsets"]
        if row.dtype in _DTYPES and stop - start != row.numel * row.torch_dtype.itemsize:
            raise SourceError(
                f"{file.name} is damaged: {row.name} {list(row.shape)} in {row.dtype} needs "
                f"{row.numel * row.torch_dtype.itemsize} bytes, its header gives {stop - start}; get it again"
            )
    if 8 + length + end != size:
        raise SourceError(
            f"{file.name} is cut short or damaged: its safetensors header promises {8 + length + end} bytes, "
            f"found {size}; get it again"
        )
    return raw, tensors


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise SourceError(f"config.json in {folder.name} is no JSON ({problem})") from problem
    return config if isinstance(config, dict) else {}


@contextmanager
def _opened(file: Path) -> Iterator[FileIO]:
    """A weight file, unbuffered. What the system says of it while it is open becomes a SourceError."""
    try:
        with file.open("rb", buffering=0) as stream:
            yield stream
    except OSError as problem:
        raise SourceError(f"{file.name} cannot be read: {problem.strerror or problem}") from problem


def _mapped(file: FileIO, tensor: StoredTensor, start: int, length: int) -> Tensor:
    """Bytes of a file as uint8, aligned for the tensor's type. A private map: torch takes no read-only memory."""
    lead = start % mmap.ALLOCATIONGRANULARITY
    try:
        area = mmap.mmap(file.fileno(), lead + length, access=mmap.ACCESS_COPY, offset=start - lead)
    except ValueError:
        raise SourceError(f"{tensor.file.name} ended inside {tensor.name}: it changed while it was read") from None
    raw = torch.frombuffer(area, dtype=torch.uint8, count=length, offset=lead)
    return raw if start % tensor.torch_dtype.itemsize == 0 else raw.clone()
