"""Safetensors files: where their tensors lie, whether the files are complete, and their bytes as memory maps.

Not here: which files of a folder count (folders.py), and their values (checkpoint.py). A file is an 8-byte length, a
JSON header with the place of every tensor, and the tensors' bytes (safetensors' format description).

Worked number: a bfloat16 tensor [2, 3] takes 12 bytes; a header that gives it 10 is refused.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from srdd.errors import SourceError
from srdd.models.files.mistaken import no_safetensors

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


def header_of(file: Path) -> tuple[bytes, dict[str, StoredTensor]]:
    """The header of a file and the tensors it names. Raises SourceError when they do not fit the file's size."""
    with opened(file) as stream:
        size = file.stat().st_size
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise SourceError(no_safetensors(file, size))
        raw = stream.read(length)
    try:
        entries = {name: entry for name, entry in json.loads(raw).items() if name != "__metadata__"}
        tensors = {
            name: StoredTensor(name, tuple(entry["shape"]), entry["dtype"], file, 8 + length + entry["data_offsets"][0])
            for name, entry in entries.items()
        }
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise SourceError(f"{file.name} has no readable safetensors header ({problem}); get it again") from problem
    for tensor in tensors.values():
        start, stop = entries[tensor.name]["data_offsets"]
        if tensor.dtype in _DTYPES and stop - start != tensor.numel * tensor.torch_dtype.itemsize:
            raise SourceError(
                f"{file.name} is damaged: {tensor.name} {list(tensor.shape)} in {tensor.dtype} needs "
                f"{tensor.numel * tensor.torch_dtype.itemsize} bytes, its header gives {stop - start}; get it again"
            )
    if 8 + length + end != size:
        raise SourceError(
            f"{file.name} is cut short or damaged: its safetensors header promises {8 + length + end} bytes, "
            f"found {size}; get it again"
        )
    return raw, tensors


@contextmanager
def opened(file: Path) -> Iterator[FileIO]:
    """A weight file, unbuffered. An OSError while it is open becomes a SourceError."""
    try:
        with file.open("rb", buffering=0) as stream:
            yield stream
    except OSError as problem:
        raise SourceError(f"{file.name} cannot be read: {problem.strerror or problem}") from problem


def mapped(file: FileIO, tensor: StoredTensor, start: int, length: int) -> Tensor:
    """Bytes of a file as uint8, aligned for the tensor's type. A private map: torch takes no read-only memory."""
    lead = start % mmap.ALLOCATIONGRANULARITY
    try:
        area = mmap.mmap(file.fileno(), lead + length, access=mmap.ACCESS_COPY, offset=start - lead)
    except ValueError:
        raise SourceError(f"{tensor.file.name} ended inside {tensor.name}: it changed while it was read") from None
    raw = torch.frombuffer(area, dtype=torch.uint8, count=length, offset=lead)
    return raw if start % tensor.torch_dtype.itemsize == 0 else raw.clone()
