"""Scales that reach beyond a block, of a whole tensor or a tile: found before a tensor is cut, then spread over groups.

Not here: scales of single blocks (scales.py), and what is done with either (expression.py).

Worked number: fp8_block gives a weight [576, 1536] 5 x 12 = 60 scales, the last row of them for tiles of 64 rows. Each
stands for the blocks of 32 columns in its tile, which makes [576, 48] numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from srdd.core.formats import E4M3, BlockFormat, Scale
from srdd.kernels import expression
from srdd.kernels.engine import Engine
from srdd.kernels.tiling import as_sheets, strips, to_groups


def reaching_scales(engine: Engine, x: Tensor, fmt: BlockFormat, global_amax: Tensor | float | None) -> Tensor:
    """float32: one number for x, [1], or where tiles have scales one for each block, [blocks]; 1 where there is none.

    The same operations as the reference's.
    """
    if fmt.has_tensor_scale and global_amax is not None:
        return _over_range(torch.as_tensor(global_amax, device=x.device).to(torch.float32).reshape(1), fmt)
    if not fmt.has_tensor_scale and fmt.scale is not Scale.FP32:
        return torch.ones(1, dtype=torch.float32, device=x.device)
    largest = []
    sheets = as_sheets(x, fmt.block)
    for where in strips(sheets, fmt.block, engine.chunk(x.device)):
        groups = to_groups(sheets[where], fmt.block)
        rows = engine.call(expression.largest_finite, (), [(groups, 0)], groups).flatten()
        if fmt.has_tensor_scale:
            largest.append(rows.amax(0, keepdim=True))
        else:
            largest.append(rows[: sheets[where].shape[0] * -(-sheets.shape[2] // fmt.block[1])])
    if fmt.has_tensor_scale:
        return _over_range(torch.cat([*largest, x.new_zeros(1, dtype=torch.float32)]).amax(0, keepdim=True), fmt)
    found = torch.cat(largest) if largest else x.new_zeros(0, dtype=torch.float32)
    return _over_range(_over_tiles(found, 1, x.shape, fmt), fmt)


def reaching_scales_of_each(
    engine: Engine, groups: Tensor, count: int, shape: Sequence[int], fmt: BlockFormat
) -> Tensor:
    """The same of `count` tensors of this shape, whose whole groups are given: [count], [blocks of all], or [1]."""
    if fmt.has_tensor_scale:
        largest = engine.call(expression.largest_finite, (), [(groups, 0)], groups)
        return _over_range(largest.view(count, -1).amax(1), fmt)
    if fmt.scale is not Scale.FP32:
        return torch.ones(1, dtype=torch.float32, device=groups.device)
    groups = groups.view(len(groups), -1, fmt.block[1])
    rows = engine.call(expression.largest_finite, (), [(groups, 0)], groups)
    return _over_range(_over_tiles(rows, count, shape, fmt), fmt)


def spread(scales: Tensor, groups: Tensor, fmt: BlockFormat, first: int = 0) -> Tensor:
    """For every group of a strip, [G, 1], or for every block, [G, K], of which the strip's first has number `first`."""
    if fmt.has_tensor_scale or fmt.scale is not Scale.FP32:
        return scales.repeat_interleave(groups.shape[0] // scales.numel())[:, None].contiguous()
    size = groups.numel() // fmt.block[1]
    own = scales[first : first + size]  # with those of the next strip where the last group is padded: zeros stay zeros
    return pad(own, (0, size - len(own)), value=1.0).view(len(groups), -1)


def _over_range(largest: Tensor, fmt: BlockFormat) -> Tensor:
    full_range = fmt.element.max * (E4M3.max if fmt.scale is Scale.E4M3_FP32 else 1.0)  # 2688 of nvfp4, 448 of fp8
    return largest / torch.full_like(largest, full_range)  # by a tensor: see _two_level_scale in reference.py


def _over_tiles(largest: Tensor, count: int, shape: Sequence[int], fmt: BlockFormat) -> Tensor:
    """From the largest magnitude of each block of `count` tensors to that of its tile, flat, in the same order."""
    rows, columns = (1, 1, *shape)[-2:]
    across = -(-columns // fmt.block[1])  # blocks side by side
    sheets = largest.reshape(count * math.prod(shape[:-2]), rows, across)
    high, wide = int(min(fmt.tile[0], max(rows, 1))), int(min(fmt.tile[1] / fmt.block[1], max(across, 1)))
    padded = pad(sheets, (0, -across % wide, 0, -rows % high))
    tiles = padded.view(len(sheets), padded.shape[1] // high, high, padded.shape[2] // wide, wide)
    everywhere = tiles.amax((2, 4), keepdim=True).expand_as(tiles).reshape(padded.shape)
    return everywhere[:, :rows, :across].flatten()
