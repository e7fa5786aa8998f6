"""Codes of 4 or 6 bits with a scale for every 16 or 32 of a row: how NVFP4, MXFP4 and MXFP6 lie in most checkpoints.

Not here: names of tensors (the forms), GGUF's blocks (gguf_blocks.py), scales for tiles (float8.py). Codes run along
the input axis, which the scales divide; the even element of a byte is its low nibble.

Worked number: MXFP4 codes U8 [64, 16] stand for [64, 32] and need scales [64, 1]; row 5 is 16 bytes and one scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

from srdd.errors import SourceError
from srdd.models.files.packed.codes import E2M1, SIX_BIT, e8m0, nibble_pairs, six_bits
from srdd.models.files.packed.contract import Lines, Packed, Rows, expect, read
from srdd.models.files.safetensors import StoredTensor

BYTES = ("U8", "I8")
POWERS = ("U8", "F8_E8M0")
LARGEST = float(E2M1.max())  # 6


def mx(name: str, codes: StoredTensor, scale: StoredTensor, *, six: str | None = None, lines: Lines = read) -> Packed:
    """MXFP4, or MXFP6 where `six` names the element. Raises SourceError for scales of another shape or type."""
    expect(codes, BYTES)
    shape = _unpacked(codes, per_byte=(4, 3) if six else (2, 1), group=32)
    expect(scale, POWERS, (*shape[:-1], shape[-1] // 32))

    def factors(matrix: int, first: int, count: int) -> Tensor:
        return e8m0(lines(scale, matrix * shape[-2] + first, count))

    def rows(matrix: int, first: int, count: int) -> Tensor:
        raw = read(codes, matrix * shape[-2] + first, count).view(torch.uint8)
        return _scaled(six_bits(raw, six) if six else nibble_pairs(raw), factors(matrix, first, count))

    form = f"MXFP6 {six}" if six else "MXFP4"
    largest = float(SIX_BIT[six].max()) if six else LARGEST
    return Packed(name, shape, form, (codes, scale), rows, along_rows(factors, 32), largest, as_stored(shape), lines)


def nv(
    name: str,
    codes: StoredTensor,
    scale: StoredTensor,
    tensor_scale: StoredTensor | None,
    *,
    divide: bool = False,
    lines: Lines = read,
) -> Packed:
    """NVFP4; `tensor_scale` is one for all or one for each expert, to multiply or `divide` by. Raises SourceError."""
    expect(codes, BYTES)
    shape = _unpacked(codes, per_byte=(2, 1), group=16)
    expect(scale, ("F8_E4M3",), (*shape[:-1], shape[-1] // 16))
    expect_one_each(tensor_scale, shape)

    def factors(matrix: int, first: int, count: int) -> Tensor:
        each = lines(scale, matrix * shape[-2] + first, count).float()
        if tensor_scale is None:
            return each
        whole = one_of(tensor_scale, matrix)
        return each / whole if divide else each * whole

    def rows(matrix: int, first: int, count: int) -> Tensor:
        raw = read(codes, matrix * shape[-2] + first, count).view(torch.uint8)
        return _scaled(nibble_pairs(raw), factors(matrix, first, count))

    parts = (codes, scale) if tensor_scale is None else (codes, scale, tensor_scale)
    return Packed(name, shape, "NVFP4", parts, rows, along_rows(factors, 16), LARGEST, as_stored(shape), lines)


def along_rows(factors: Rows, size: int) -> Rows:
    """The factor of every value, from those of runs of `size` in a row."""
    return lambda matrix, first, count: factors(matrix, first, count).repeat_interleave(size, -1)


def as_stored(shape: tuple[int, ...]) -> bool | None:
    """A matrix lies [out, in]; how the experts of an architecture lie, it says itself."""
    return None if len(shape) > 2 else False


def expect_one_each(scale: StoredTensor | None, shape: tuple[int, ...]) -> None:
    """Raises SourceError for a tensor scale that is no float, or neither one number nor one for each expert."""
    if scale is not None:
        each = (shape[0],) if len(shape) == 3 else (1,)
        expect(scale, ("F32", "BF16", "F16"), (), (1,), (1, 1), each, (*each, 1), (*each, 1, 1))


def one_of(scale: StoredTensor, matrix: int) -> Tensor:
    """The tensor scale of a matrix as one float32 number."""
    values = read(scale).flatten().float()
    return values[matrix if len(values) > 1 else 0]


def _scaled(values: Tensor, factors: Tensor) -> Tensor:
    grouped = values.view(*factors.shape, -1 if values.numel() else 0)
    return grouped.mul_(factors.unsqueeze(-1)).view(values.shape)  # values are a chunk of their own


def _unpacked(codes: StoredTensor, *, per_byte: tuple[int, int], group: int) -> tuple[int, ...]:
    """The shape that the codes stand for: `per_byte` codes lie in so many bytes."""
    values, in_bytes = per_byte
    if len(codes.shape) not in (2, 3) or codes.shape[-1] * values // in_bytes % group or codes.shape[-1] % in_bytes:
        raise SourceError(
            f"{codes.name} is {list(codes.shape)} in {codes.dtype}; expected rows of whole groups, {group} codes in "
            f"{group * in_bytes // values} bytes"
        )
    return (*codes.shape[:-1], codes.shape[-1] * values // in_bytes)
