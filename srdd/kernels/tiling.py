"""Cuts tensors of any shape into groups of whole blocks, and puts the groups back together.

Not here: what is computed from them (expression.py) and in how many chunks (fused.py).

A tensor becomes a stack of sheets, cut into strips of whole blocks, each strip a tensor [G, K, L] of groups of 2048
elements: K rows of L, the block's width. Padding is zeros. Worked number: bf16 [256, 576] is 147,456 elements = 72
groups of 64 x 32, one strip.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from srdd.core.formats import BlockFormat
from srdd.kernels.expression import GROUP

NATIVE = (torch.bfloat16, torch.float16, torch.float32)  # other types are cast to float32, strip by strip


def common_block(x: Tensor, fmt: BlockFormat, fmts: Sequence[BlockFormat]) -> tuple[int, int]:
    """The block to tile x with for this format: wide enough for all formats one row high, if their blocks fill rows."""
    flat = [other.block[1] for other in fmts if other.block[0] == 1]
    if fmt.block[0] > 1 or not x.dim() or x.shape[-1] % math.lcm(*flat):
        return fmt.block
    return 1, math.lcm(*flat)


def as_sheets(x: Tensor, block: tuple[int, int]) -> Tensor:
    """x as [stack, rows, columns]; when the last axis is whole blocks, each block becomes a row."""
    rows, columns = block
    if rows > 1 and x.dim() >= 2:
        return x.reshape(x.shape[:-2].numel(), *x.shape[-2:])
    width = x.shape[-1] if x.dim() else 1
    if rows > 1 or width % columns:
        return x.reshape(1, x.numel() // max(width, 1), width)
    return x.reshape(1, x.numel() // columns, columns)


def strips(sheets: Tensor, block: tuple[int, int], chunk: int) -> Iterator[tuple[int, slice]]:
    """Where to cut: whole rows of blocks, about `chunk` elements each."""
    stack, rows, columns = sheets.shape
    if not sheets.numel():
        return
    padded = -(-columns // block[1]) * block[1]
    step = max(chunk // (padded * block[0]), 1) * block[0]
    for sheet in range(stack):
        for start in range(0, rows, step):
            yield sheet, slice(start, min(start + step, rows))


def blocks_before(sheets: Tensor, where: tuple[int, slice], block: tuple[int, int]) -> int:
    """How many blocks lie before a strip."""
    sheet, rows = where
    down, across = -(-sheets.shape[1] // block[0]), -(-sheets.shape[2] // block[1])
    before: int = sheet * down + rows.start // block[0]
    return before * across


def to_groups(strip: Tensor, block: tuple[int, int]) -> Tensor:
    """[rows, columns] -> [G, K, L], a view of the strip where nothing needs padding or moving."""
    height, width = block
    if strip.dtype not in NATIVE:
        strip = strip.to(torch.float32)
    if strip.shape[0] % height or strip.shape[1] % width:
        strip = pad(strip, (0, -strip.shape[1] % width, 0, -strip.shape[0] % height))
    rows, columns = strip.shape
    tiles = strip.reshape(rows // height, height, columns // width, width).transpose(1, 2)
    flat = tiles.reshape(strip.numel())
    missing = max(-flat.numel() % GROUP, 2 * GROUP - flat.numel())
    if missing:
        flat = pad(flat, (0, missing))
    return flat.view(-1, GROUP // width, width)


def from_groups(groups: Tensor, shape: torch.Size, block: tuple[int, int]) -> Tensor:
    """The inverse of `to_groups`: padding is cut off."""
    height, width = block
    down, across = -(-shape[0] // height), -(-shape[1] // width)
    flat = groups.reshape(-1)[: down * height * across * width]
    tiles = flat.view(down, across, height, width).transpose(1, 2)
    return tiles.reshape(down * height, across * width)[: shape[0], : shape[1]]
