"""The header of a GGUF file: the types of its weights, whether the file is complete, and a hash that identifies it.

Not here: values (gguf.py). Reading the header takes a hundredth of opening the file through transformers.

Worked number: a Q4_1 tensor of 1024 values is 32 blocks of 20 bytes, so the file must go on for 640 bytes from its
offset.
"""

from __future__ import annotations

import math
import os
import struct
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from srdd.errors import SourceError
from srdd.models.files import weights_hash

_HEAD = 2**20  # the first MiB holds the metadata; with the size it identifies the file in a report
# ggml type -> (name, values per block, bytes per block); gguf-py's GGML_QUANT_SIZES, held equal by a test
GGML_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
}  # fmt: skip
# Metadata value type -> bytes; 8 is a string, 9 an array. GGUF specification, gguf_metadata_value_type.
_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4


def head_hash(file: Path) -> str:
    """The weights hash of a GGUF file, from its first MiB and its size. Raises SourceError for another kind of file."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as problem:
        raise SourceError(f"{file.name} cannot be read ({problem.strerror}); check its permissions") from problem
    if head[:4] != b"GGUF":
        raise SourceError(f"{file.name} is no GGUF file: it starts with {head[:4]!r}, expected b'GGUF'")
    return weights_hash([(head, file.stat().st_size)])


def stored_types(file: Path) -> str:
    """The types of the weights, most used first, e.g. "Q4_1, Q8_0, F32". Raises SourceError for a damaged file."""
    size = file.stat().st_size
    values: Counter[str] = Counter()
    end = 0
    try:
        with file.open("rb") as stream:
            tensors, alignment = _tensors(stream)
            data = -(-stream.tell() // alignment) * alignment
        for kind, numel, offset in tensors:
            name, block, block_bytes = GGML_TYPES.get(kind, (f"type {kind}", 1, 0))
            values[name] += numel
            end = max(end, data + offset + numel // block * block_bytes)
    except (struct.error, OSError, ValueError, OverflowError, ZeroDivisionError) as problem:
        raise SourceError(f"{file.name} has no readable GGUF header ({problem}); get it again") from problem
    if end > size:
        raise SourceError(f"{file.name} is cut short: its header promises {end} bytes, found {size}; get it again")
    return ", ".join(name for name, _ in values.most_common())


def _tensors(stream: BinaryIO) -> tuple[list[tuple[int, int, int]], int]:
    """(ggml type, values, offset) of every tensor and the alignment of the data; the stream ends after the header."""
    _, layout, tensor_count, pair_count = _take(stream, "<IIQQ")  # the first is the magic, which head_hash has checked
    if layout not in (2, 3):
        raise ValueError(f"version {layout}; expected 2 or 3")
    alignment = 32
    for _ in range(pair_count):
        key = _string(stream)
        (kind,) = _take(stream, "<I")
        if key == b"general.alignment" and kind == _UINT32:
            (alignment,) = _take(stream, "<I")
        else:
            _skip(stream, kind)
    tensors = []
    for _ in range(tensor_count):
        _string(stream)
        (dimensions,) = _take(stream, "<I")
        if dimensions > 8:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        *shape, kind, offset = _take(stream, f"<{dimensions}QIQ")
        tensors.append((kind, math.prod(shape), offset))
    return tensors, alignment


def _skip(stream: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        _string(stream)
    elif kind == _ARRAY:
        item, count = _take(stream, "<IQ")
        if item == _STRING:
            for _ in range(count):
                _string(stream)
        elif item in _BYTES:
            stream.seek(count * _BYTES[item], os.SEEK_CUR)
        else:
            raise ValueError(f"an array of type {item}")
    elif kind in _BYTES:
        stream.seek(_BYTES[kind], os.SEEK_CUR)
    else:
        raise ValueError(f"a value of type {kind}")


def _string(stream: BinaryIO) -> bytes:
    (length,) = _take(stream, "<Q")
    if length > _HEAD * 64:
        raise ValueError(f"a string of {length} bytes")
    text = stream.read(length)
    if len(text) < length:
        raise ValueError("the file ends inside it")
    return text


def _take(stream: BinaryIO, layout: str) -> tuple[int, ...]:
    raw = stream.read(struct.calcsize(layout))
    if len(raw) < struct.calcsize(layout):
        raise ValueError("the file ends inside it")
    return struct.unpack(layout, raw)
