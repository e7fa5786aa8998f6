"""The tally of pairs: values x and what somebody else's codes stand for in their place, q. Nothing is quantized here.

The fields mean what they mean in reference.py, read off the pair and the scales: x is clipped when it is beyond the
largest value that its scale can hold, q is at the maximum when it is that value. Codes may be any, so a clipped x need
not be at the maximum, x = 0 may have an error, and an error may be beyond x.

Not here: reading codes (srdd.models.files.packed). Sums are float64, in pieces that stay in a cache.

Worked number: x = [7, -1, 0.1, 0] beside q = [6, -1, 0, 0] of scale 1 in E2M1 has clipped 1, at_max 1, deadzone 1,
sum_e2 1.01. It counts about as many values a second as the eager kernel, some ten million on one core.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from srdd.core.blocks import SCALE_BINS, SQNR_BINS
from srdd.core.formats import BlockFormat, Scale
from srdd.core.tally import FIELDS, WIDTH
from srdd.kernels.blocks import scale_bins, sqnr_bins
from srdd.kernels.merging import merged

_PIECE = 1 << 15  # values at once
_HELD = 1 + 2.0**-22  # of float32 scales: see reference.py


def measure_pairs(x: Tensor, q: Tensor, scale: Tensor, fmt: BlockFormat, largest: float) -> Tensor:
    """float64 [WIDTH], as `measure` returns it, of rows [rows, columns] whose blocks are runs of a row.

    `scale` is the factor of every value's code, `largest` what a code can hold. A block where x or q is no finite
    number enters no sum.
    """
    columns, width = x.shape[-1], fmt.block[1]
    total = torch.zeros(WIDTH, dtype=torch.float64)
    step = max(_PIECE // max(columns, 1), 1)
    across = -(-columns // width)
    for start in range(0, len(x), step):
        a, b, factor = (_blocks(t[start : start + step], width) for t in (x, q, scale))
        part = _measured(a, b, factor, columns, fmt.scale is Scale.FP32, largest)
        part[-1] += start * across
        total = merged(total, part)
    return total


def _blocks(rows: Tensor, width: int) -> Tensor:
    """[rows, columns] -> float32 [rows, blocks, width], zeros where the last block is short."""
    rows = rows.to(torch.float32)
    if rows.shape[1] % width:
        rows = pad(rows, (0, -rows.shape[1] % width))
    return rows.reshape(len(rows), -1, width)


def _measured(x: Tensor, q: Tensor, scale: Tensor, columns: int, rounded_scale: bool, largest: float) -> Tensor:
    # What decides is float32; MX scales above 2^125 make the largest value infinite, which nothing is beyond.
    limit = scale.abs() * largest
    held = limit * _HELD if rounded_scale else limit
    n, nonfinite = len(x) * columns, 0
    if not bool((x.sum() + q.sum()).isfinite()):
        finite = x.isfinite() & q.isfinite()
        good = finite.all(2, keepdim=True)
        nonfinite = int((~finite).sum())  # padding is 0, which is finite
        n = int(good.expand_as(x).flatten(1)[:, :columns].sum())
        x, q = x.where(good, 0.0), q.where(good, 0.0)  # of a bad block nothing is left but zeros
        limit = limit.where(good, torch.nan)  # which equals nothing
    a, some = x.abs(), x != 0
    scaled = limit > 0
    dead, clipped = some & (q == 0), (a > held) & scaled
    at_max, no_scale = (q.abs() == limit) & scaled, (limit == 0) & some
    x, q = x.to(torch.float64), q.to(torch.float64)
    e = q - x
    size, error = a.to(torch.float64), e.abs()
    x2, e2 = x * x, e * e
    signal, noise = x2.sum(2).flatten(), e2.sum(2).flatten()
    sums = {
        "n": n,
        "nonzero": some.sum(),
        "deadzone": dead.sum(),
        "clipped": clipped.sum(),
        "at_max": at_max.sum(),
        "nonfinite": nonfinite,
        "excluded": columns * len(x) - n,
        "sum_x": x.sum(),
        "sum_x2": signal.sum(),
        "sum_x4": _product(x2, x2),
        "sum_e": e.sum(),
        "sum_e2": noise.sum(),
        "sum_e2_clipped": _product(e2, clipped.to(torch.float64)),
        "sum_e2_deadzone": _product(e2, dead.to(torch.float64)),
        "sum_abs_x": size.sum(),
        "sum_abs_e": error.sum(),
        "sum_rel": (error / size).nan_to_num_(0.0, 0.0).sum(),  # 0 / 0 and e / 0, where x is zero
        "sum_q2": _product(q, q),
        "sum_xq": _product(x, q),
        "max_abs_x": a.max() if a.numel() else 0.0,
        "max_abs_e": error.max() if a.numel() else 0.0,
        "zero_scale": no_scale.sum(),
    }
    fields = torch.stack([torch.as_tensor(sums[name], dtype=torch.float64) for name in FIELDS])
    return torch.cat([fields, _counts(signal, noise, scale[:, :, 0].flatten().abs())])


def _product(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())


def _counts(signal: Tensor, noise: Tensor, scale: Tensor) -> Tensor:
    """The columns of `srdd.core.blocks.Blocks.from_dense`."""
    sqnr = torch.bincount(sqnr_bins(signal, noise), minlength=SQNR_BINS + 1)[:SQNR_BINS]
    scales = torch.bincount(scale_bins(scale, signal), minlength=SCALE_BINS + 1)[:SCALE_BINS]
    worst = torch.zeros(2, dtype=torch.float64)
    if noise.numel():
        worst[0], worst[1] = noise.max(0)
    return torch.cat([sqnr.to(torch.float64), scales.to(torch.float64), worst])
