"""Runs `expression.py` over tensors of any shape, in chunks: eagerly, or compiled by torch.compile.

Not here: the arithmetic (expression.py), how it is run (engine.py), how a tensor becomes groups (tiling.py), argument
checks (arguments.py) and the choice of a backend (backend.py).

The expression always gets at least two groups, because torch.compile makes special cases of sizes 0 and 1. Padding
enters no sum; n follows from the shape.
Worked number: bf16 [256, 576] is 72 groups of 64 x 32, one strip, one compiled call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from srdd.core.formats import BlockFormat
from srdd.core.tally import FIELDS, WIDTH
from srdd.kernels import blocks, expression
from srdd.kernels.engine import Engine
from srdd.kernels.merging import merged
from srdd.kernels.precision import float64_device
from srdd.kernels.reaching import reaching_scales, reaching_scales_of_each, spread
from srdd.kernels.tiling import NATIVE, as_sheets, blocks_before, common_block, from_groups, strips, to_groups

_N, _EXCLUDED = FIELDS.index("n"), FIELDS.index("excluded")


def quant_dequant(
    engine: Engine,
    x: Tensor,
    fmt: BlockFormat,
    generator: torch.Generator | None,
    global_amax: Tensor | float | None,
) -> Tensor:
    """What x becomes, in its shape and type."""
    noise = _draw(x, fmt, generator)
    scales = reaching_scales(engine, x, fmt, global_amax)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    sheets, target = as_sheets(x, fmt.block), as_sheets(out, fmt.block)
    noise_sheets = None if noise is None else as_sheets(noise, fmt.block)
    for where in strips(sheets, fmt.block, engine.chunk(x.device)):
        groups = to_groups(sheets[where], fmt.block)
        drawn = None if noise_sheets is None else to_groups(noise_sheets[where], fmt.block)
        scale = spread(scales, groups, fmt, blocks_before(sheets, where, fmt.block))
        varying = [(t, 0) for t in (groups, scale, drawn) if t is not None]
        q = engine.call(expression.quantize, (fmt,), varying, groups, [scale], drawn)
        target[where] = from_groups(q, target[where].shape, fmt.block).to(x.dtype)
    return out


def measure(
    engine: Engine,
    x: Tensor,
    fmts: Sequence[BlockFormat],
    generator: torch.Generator | None,
    global_amax: Tensor | float | None,
) -> Tensor:
    """float64 [formats, WIDTH]. Formats whose blocks tile x alike, one row high, share one reading of x."""
    noises = [_draw(x, fmt, generator) for fmt in fmts]  # in the order given, so that a seed draws the same noise
    tiles = [common_block(x, fmt, fmts) for fmt in fmts]
    results: list[Tensor | None] = [None] * len(fmts)
    for block in dict.fromkeys(tiles):
        chosen = [i for i, tile in enumerate(tiles) if tile == block]
        rows = _measure_tiles(
            engine, x, block, tuple(fmts[i] for i in chosen), [noises[i] for i in chosen], global_amax
        )
        for i, row in zip(chosen, rows, strict=True):
            results[i] = row
    return torch.stack([row for row in results if row is not None])


def measure_each(engine: Engine, x: Tensor, fmts: Sequence[BlockFormat]) -> Tensor:
    """float64 [tensors, formats, WIDTH] of the tensors x[0], x[1], ...; in one call when they fill whole groups."""
    size = x[0].numel() if len(x) else 0
    whole = size > 0 and size % expression.GROUP == 0 and x.dtype in NATIVE and size * 2 <= engine.chunk(x.device)
    if not whole or any(f.stochastic or f.block[0] > 1 or x.shape[-1] % f.block[1] for f in fmts):
        return torch.stack([measure(engine, part, fmts, None, None) for part in x])
    results = torch.empty(len(x), len(fmts), WIDTH, dtype=torch.float64, device=float64_device(x.device))
    step = engine.chunk(x.device) // size
    width = max(fmt.block[1] for fmt in fmts)
    for start in range(0, len(x), step):
        groups = x[start : start + step].reshape(-1, expression.GROUP // width, width)
        count = groups.numel() // size
        found = [reaching_scales_of_each(engine, groups, count, x.shape[1:], fmt) for fmt in fmts]
        scales = [spread(scale, groups, fmt) for scale, fmt in zip(found, fmts, strict=True)]
        varying = [(t, 0) for t in (groups, *scales)]
        sums, units, _, each = engine.call(expression.tallies, tuple(fmts), varying, groups, scales, [None] * len(fmts))
        results[start : start + count, :, : len(FIELDS)] = expression.totals(fmts, sums, units, count)
        for i, chosen in enumerate(each):
            results[start : start + count, i, len(FIELDS) :] = blocks.counted(chosen, _unit(fmts, units, i), count)
    results[..., _N] = size - results[..., _EXCLUDED]
    return results


def _measure_tiles(
    engine: Engine,
    x: Tensor,
    block: tuple[int, int],
    fmts: tuple[BlockFormat, ...],
    noises: Sequence[Tensor | None],
    global_amax: Tensor | float | None,
) -> Tensor:
    found = [reaching_scales(engine, x, fmt, global_amax) for fmt in fmts]
    sheets = as_sheets(x, block)
    noise_sheets = [None if noise is None else as_sheets(noise, block) for noise in noises]
    ragged = sheets.shape[1] % block[0] != 0 or sheets.shape[2] % block[1] != 0
    total = torch.zeros(len(fmts), WIDTH, dtype=torch.float64, device=float64_device(x.device))
    for where in strips(sheets, block, engine.chunk(x.device)):
        groups = to_groups(sheets[where], block)
        drawn = [None if noise is None else to_groups(noise[where], block) for noise in noise_sheets]
        before = blocks_before(sheets, where, block)
        first = [before * block[1] // fmt.block[1] for fmt in fmts]
        scales = [spread(*row) for row in zip(found, [groups] * len(fmts), fmts, first, strict=True)]
        varying = [(t, 0) for t in (groups, *scales, *drawn) if t is not None]
        rows, units, inverses, each = engine.call(expression.tallies, fmts, varying, groups, scales, drawn)
        counts = [blocks.counted(chosen, _unit(fmts, units, i))[0] for i, chosen in enumerate(each)]
        part = torch.cat([expression.totals(fmts, rows, units)[0], torch.stack(counts)], dim=1)
        part[:, -1] += torch.tensor(first, device=part.device)
        if ragged:  # the compiled sum cannot tell padding from data in a bad block
            real = to_groups(torch.ones_like(sheets[where], dtype=torch.float32), block).sum(2)
            part[:, _EXCLUDED] = torch.where(inverses[0] > 0, 0.0, real).to(total.device).sum(dtype=torch.float64)
        total = merged(total, part)
    total[:, _N] = x.numel() - total[:, _EXCLUDED]
    return total


def _unit(fmts: Sequence[BlockFormat], units: Tensor, i: int) -> Tensor:
    """The unit of each group for format i, from [widths, 3, G]."""
    return units[next(w for w, chosen in enumerate(expression.by_width(fmts)) if i in chosen), 0]


def _draw(x: Tensor, fmt: BlockFormat, generator: torch.Generator | None) -> Tensor | None:
    if not fmt.stochastic:
        return None
    return torch.rand(x.shape, generator=generator, dtype=torch.float32, device=x.device)
