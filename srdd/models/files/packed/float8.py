"""FP8 codes called `weight` with scales beside them: one a tensor, one a row, one a tile, or MXFP8's one for 32.

compressed-tensors, ModelOpt, Quark and FBGEMM write them, and DeepSeek, whose weight_scale_inv is a factor in spite of
its name. Not here: codes of 4 and 6 bits. The last tiles of a weight may be short. Sizes of tiles are the config's,
else 128 x 128, else square or runs of a row, where they divide the weight evenly.

Worked number: weight F8_E4M3 [256, 300], weight_scale_inv F32 [2, 3]: element (200, 280) is times scale (1, 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from srdd.errors import SourceError
from srdd.models.files.packed.codes import e8m0
from srdd.models.files.packed.contract import (
    Facts,
    Lines,
    Module,
    Packed,
    expect,
    read,
    refuse_zero_points,
    weight_name,
)
from srdd.models.files.packed.groups import POWERS, as_stored
from srdd.models.files.safetensors import StoredTensor

KNOWN = "FP8 and MXFP8 with scales"
CODES = ("F8_E4M3", "F8_E5M2")
_ENDS = ("weight_scale_inv", "weight_scale", "scale_inv", "scale")
Tile = tuple[int, int]


def recognise(module: Module, facts: Facts) -> Iterator[Packed]:
    """Weights in FP8 that have a scale. Raises SourceError for scales that do not fit."""
    for local, codes in module.items():
        if codes.dtype not in CODES or len(codes.shape) not in (2, 3):
            continue
        names = _ENDS if local == "weight" else tuple(f"{local}_{end}" for end in _ENDS)
        scale = next((module[name] for name in names if name in module), None)
        if scale is None:
            continue
        refuse_zero_points(module, codes)
        yield packed(weight_name(codes, local), codes, scale, facts.tiles)


def packed(
    name: str, codes: StoredTensor, scale: StoredTensor, tiles: Sequence[Tile], *, lines: Lines = read
) -> Packed:
    """A weight of FP8 codes; `tiles` are what the config names. Raises SourceError for scales that do not fit."""
    expect(codes, CODES)
    if len(codes.shape) not in (2, 3):
        raise SourceError(f"{codes.name} is {list(codes.shape)} in {codes.dtype}; expected a matrix, or one an expert")
    expect(scale, ("F32", "BF16", "F16", *POWERS))
    tile = _tile(codes.shape, scale, tiles)
    rows_each, columns = codes.shape[-2:]
    (high, wide), (down, across) = tile, _grid(codes.shape, tile)[-2:]
    grid = replace(scale, shape=(scale.numel // max(across, 1), across))

    def factors(matrix: int, first: int, count: int) -> Tensor:
        top = first // high
        before = matrix * down if scale.numel > down * across else 0  # one scale may serve all experts
        raw = lines(grid, before + top, -(-(first + count) // high) - top)
        each = e8m0(raw) if scale.dtype in POWERS else raw.float()
        each = each[torch.arange(first, first + count) // high - top]
        return each if across == 1 else each.repeat_interleave(wide, 1)[:, :columns]

    def rows(matrix: int, first: int, count: int) -> Tensor:
        return read(codes, matrix * rows_each + first, count).float() * factors(matrix, first, count)

    def scales(matrix: int, first: int, count: int) -> Tensor:
        return factors(matrix, first, count).expand(count, columns)

    form = _form(tile, codes.shape, scale) + ("" if codes.dtype == "F8_E4M3" else " in E5M2")
    largest = torch.finfo(codes.torch_dtype).max
    return Packed(name, codes.shape, form, (codes, scale), rows, scales, largest, as_stored(codes.shape), lines)


def _form(tile: Tile, shape: tuple[int, ...], scale: StoredTensor) -> str:
    if scale.dtype in POWERS and tile == (1, 32):
        return "MXFP8"
    if tile == shape[-2:]:
        return "FP8 per tensor"
    return "FP8 per row" if tile == (1, shape[-1]) and shape[-1] > 1 else f"FP8 in blocks of {tile[0]} x {tile[1]}"


def _grid(shape: tuple[int, ...], tile: Tile) -> tuple[int, ...]:
    return (*shape[:-2], -(-shape[-2] // max(tile[0], 1)), -(-shape[-1] // max(tile[1], 1)))


def _tile(shape: tuple[int, ...], scale: StoredTensor, named: Sequence[Tile]) -> Tile:
    """Rows and columns that share a scale. Raises SourceError where the scales fit nothing."""
    (rows, columns), lead, found = shape[-2:], shape[:-2], scale.shape
    if len(found) == len(shape) + 2 and found[-1] == found[-3] == 1:  # ModelOpt writes [down, 1, across, 1]
        found = (*found[:-3], found[-2])
    each = lead or (1,)
    a_grid = bool(named) and len(found) == len(shape)  # what the config says is asked of it first
    if not a_grid and (scale.numel == 1 or found in (each, (*each, 1), (*each, 1, 1))):
        return rows, columns
    of_powers = [(1, 32)] if scale.dtype in POWERS else []
    for tile in (*named, *of_powers, *([] if named else [(128, 128)])):
        if _grid(shape, tile) == found:
            return tile
    if found in ((*lead, rows), (*lead, rows, 1)):
        return 1, columns
    down, across = found[-2:] if len(found) == len(shape) else (0, 0)
    if not named and down and across and found[:-2] == lead and rows % down == 0 and columns % across == 0:
        high, wide = rows // down, columns // across
        if high in (1, wide) or (of_powers and wide == 32):  # any other is rather a grid of another weight
            return high, wide
    tile = next(iter((*named, *of_powers)), (128, 128))
    raise SourceError(
        f"{scale.name} is {list(scale.shape)} beside codes {list(shape)}; expected {list(_grid(shape, tile))} for "
        f"blocks of {tile[0]} x {tile[1]}, one a row, or one in all"
    )
