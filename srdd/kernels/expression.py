"""The numbers of `reference.py` as branch-free float32 expressions over groups of blocks, for eager and compiled use.

Not here: the blocks' scales (scales.py), rounding to a grid (rounding.py), shapes and padding (tiling.py), chunks and
compilation (fused.py). No value decides what is computed next. The numbers in comments are the steps of reference.py.

A group is [K, L]: K rows of L = the block's width, 2048 elements in all. Inside a group sums run in float32, down 64
rows of 32 and then across, in units of the group's largest power of two, where nothing overflows; they leave it as
float64. Values below 2^-63 of the group's largest underflow. Worked number: x = 3e38 has x^4 = 8e153, which float32
cannot hold; in units of 2^127 x is 1.76, and its fourth power 9.7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from srdd.core.formats import BlockFormat, Scale
from srdd.core.tally import FIELDS
from srdd.kernels.blocks import of_blocks
from srdd.kernels.precision import to_float64
from srdd.kernels.rounding import round_to
from srdd.kernels.scales import block_scales

GROUP = 2048  # elements
_ROWS = 64  # of a group when it is summed, whatever the block's width: that many float32 numbers are added in a row
_HELD = {Scale.E4M3_FP32: 1.0, Scale.FP32: 1 + 2.0**-22}  # see reference.py
_PACK = 256.0  # three counts of 64 rows fit one float32: 64 * (1 + 256 + 65536) < 2^24


def largest_finite(fmts: Sequence[BlockFormat], x: Tensor) -> Tensor:
    """The largest finite magnitude of every row of groups [G, K, L], float32 [G, K]: gmax and tiles' amax of step 5."""
    a = x.to(torch.float32).abs()
    return torch.where(a < math.inf, a, 0.0).amax(2)


def quantize(fmts: Sequence[BlockFormat], x: Tensor, tensor_scales: Sequence[Tensor], noise: Tensor | None) -> Tensor:
    """q of groups [G, K, L] in x's type, NaN in bad blocks. `fmts` holds one format, `tensor_scales` its [G, 1]."""
    (fmt,) = fmts
    scales, _ = block_scales(fmts, x, tensor_scales)  # 2 to 5
    f = x.to(torch.float32)  # 1
    good = (scales[0] > 0)[:, :, None]
    first, second = scales[3][:, :, None], scales[4][:, :, None]
    a = torch.where(good, f.abs(), 0.0)
    y = a * first if fmt.scale is Scale.E8M0 else a / first
    q = round_to(y, a, fmt, noise) * second  # 6; 7: where d is zero, y is too
    return torch.where(good, torch.copysign(q, f), math.nan).to(x.dtype)  # 6: signs. 7: bad blocks


def tallies(
    fmts: Sequence[BlockFormat], x: Tensor, tensor_scales: Sequence[Tensor], noises: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor, list[Tensor], list[list[Tensor]]]:
    """Sums of each group of [G, K, L], float32 [rows, G] in the group's own unit, in the order that `totals` expects.

    With them, for every width of `by_width`: unit, amax and bad elements [widths, 3, G], and 1/unit of each row [G, K],
    0 in bad blocks; for every format, of each block [G, blocks]: its noise in the group's unit, the bin of its SQNR and
    of its scale (int32, the last bin plus one where there is nothing). `totals` adds the groups up: here that would be
    a parallel loop for every row, slower than the work itself.
    """
    parts = []
    for chosen in by_width(fmts):
        width = fmts[chosen[0]].block[1]
        shape = (x.shape[0], GROUP // width, width)
        drawn = [None if noise is None else noise.view(shape) for noise in (noises[i] for i in chosen)]
        scales = [tensor_scales[i] for i in chosen]
        parts.append(_tallies([fmts[i] for i in chosen], x.view(shape), scales, drawn))
    rows, units, inverses, blocks = zip(*parts, strict=True)
    return torch.cat([*rows]), torch.stack([*units]), [*inverses], _in_order(by_width(fmts), blocks)


def by_width(fmts: Sequence[BlockFormat]) -> list[list[int]]:
    """The places of formats whose blocks are equally wide: they share the group's unit and every sum over x alone."""
    widths = dict.fromkeys(fmt.block[1] for fmt in fmts)
    return [[i for i, fmt in enumerate(fmts) if fmt.block[1] == width] for width in widths]


def _tallies(
    fmts: Sequence[BlockFormat], x: Tensor, tensor_scales: Sequence[Tensor], noises: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor, Tensor, list[list[Tensor]]]:
    """`tallies` for formats of one width. Works on magnitudes: only sum_x and sum_e need a sign.

    x^2 and e^2 are summed inside each block first, in the block's own unit: what single blocks are like follows from
    these, and so do the group's sums.
    """
    scales, units = block_scales(fmts, x, tensor_scales)  # 2 to 5
    groups, _, width = x.shape
    blocks = GROUP // (_ROWS * width)
    x, scales = x.view(groups, _ROWS, blocks, width), scales.view(-1, groups, _ROWS, blocks, 1)
    f = x.to(torch.float32)  # 1
    height = fmts[0].block[0]
    inverse, own = scales[0], scales[1]
    share = (scales[2] * inverse).flatten(1)  # a block's unit in the group's, [G, K]; 0 in bad blocks
    finite = f.abs() < math.inf
    f = torch.where(inverse > 0, f, 0.0)  # 7: a bad block enters no sum
    a = f.abs()
    xn = a * inverse
    x2 = xn * xn
    signal = _in_rows(a * own)
    rows_of_noise: list[list[Tensor]] = []
    nonzero = torch.where(a > 0, 1.0, torch.where(finite, 0.0, _PACK))  # not finite: in a bad block, so a is 0
    rows = [*_counts(nonzero, 2), _sum(f * inverse), _weighted(signal, share), _sum(x2 * x2), _sum(xn)]
    for i, fmt in enumerate(fmts):
        first, second, noise = scales[3 + 2 * i], scales[4 + 2 * i], noises[i]
        if noise is not None:
            noise = noise.view(x.shape)
        if fmt.scale is Scale.E8M0:  # in units of the block's scale
            y = a * first
            q = on_grid = round_to(y, a, fmt, noise)  # 6
            e, base = q - y, y
            clipped = y > fmt.element.max
            rescale, to_own = second * inverse, second * own  # scale to group, scale to block
            zero_scale = torch.zeros_like(rows[0])
        else:  # in units of x, since q is rounded to float32
            on_grid = round_to(a / first, a, fmt, noise)  # 6; 7: where d is zero, first is infinite
            q = on_grid * second
            e, base = q - a, a
            clipped = a > first * fmt.element.max * _HELD[fmt.scale]  # nothing clips where d is zero
            rescale, to_own = inverse, own
            zero_scale = _sum(torch.where(second == 0, torch.where(a > 0, 1.0, 0.0), 0.0))
        zero = q == 0
        at_max = torch.where(clipped, _PACK * _PACK + _PACK, _PACK * _PACK)  # what is clipped is at the maximum too
        kinds = torch.where(on_grid == fmt.element.max, at_max, torch.where(zero, 1.0, 0.0))
        # |e| / |x| is 1 where q is 0, which `totals` adds; elsewhere x is not tiny and the division is safe
        relative = torch.where(zero, 0.0, e.abs() / base)
        en, qn = e * rescale, q * rescale
        e2 = en * en
        loss = _in_rows(e * to_own)
        rows_of_noise.append(of_blocks(signal, loss, share, second.flatten(1), height))
        rows += [
            *_counts(kinds, 3),
            zero_scale,
            _sum(relative),
            _sum(torch.where(f < 0, -en, en)),
            _sum(en.abs()),
            _weighted(loss, share),
            _sum(torch.where(clipped, e2, 0.0)),
            _sum(torch.where(zero, e2, 0.0)),  # where x is zero too, so is e
            _sum(qn * qn),
            _sum(xn * qn),
            en.abs().amax(_first(en)).flatten(1).amax(1),
        ]
    return torch.stack(rows), units, inverse.flatten(1), rows_of_noise


# The rows of each width, these first, then those of each format; with the power of the group's unit each is in.
_COMMON = {"nonzero": 0, "nonfinite": 0, "sum_x": 1, "sum_x2": 2, "sum_x4": 4, "sum_abs_x": 1}
_EACH = {
    "deadzone": 0,  # counts every zero of q; `totals` subtracts the zeros of x
    "clipped": 0,
    "at_max": 0,
    "zero_scale": 0,
    "sum_rel": 0,
    "sum_e": 1,
    "sum_abs_e": 1,
    "sum_e2": 2,
    "sum_e2_clipped": 2,
    "sum_e2_deadzone": 2,
    "sum_q2": 2,
    "sum_xq": 2,
    "max_abs_e": 1,
}


def totals(fmts: Sequence[BlockFormat], rows: Tensor, units: Tensor, tensors: int = 1) -> Tensor:
    """float64 [tensors, formats, fields]: the sums that `tallies` returned, over all groups, always eagerly.

    The groups belong to `tensors` tensors of equal size, one after the other. `n` stays 0, and padding (zeros) counts
    in `excluded` alone: the caller corrects both from the shape.
    """
    rows, units = to_float64(rows), to_float64(units)
    power, sources = _plan(tuple(map(tuple, by_width(fmts))), rows.device)
    unit = units[:, 0]
    unit2 = unit * unit
    powers = torch.cat([torch.ones_like(unit), unit, unit2, unit2 * unit2])
    scaled = (rows * powers[power]).view(len(rows), tensors, -1)
    largest, excluded = units[:, 1:].view(len(units), 2, tensors, -1).unbind(1)
    rest = [largest.amax(2), excluded.sum(2), torch.zeros_like(unit[:1, :tensors])]
    results = torch.cat([scaled.sum(2), scaled.amax(2), *rest])[sources].permute(2, 0, 1).contiguous()
    zeros = units.shape[2] // tensors * GROUP - results[..., _NONZERO]  # of x; padding and bad blocks count as such
    results[..., _DEADZONE] -= zeros
    results[..., _RELATIVE] += results[..., _DEADZONE]
    return results


_NONZERO, _DEADZONE, _RELATIVE = (FIELDS.index(name) for name in ("nonzero", "deadzone", "sum_rel"))


@cache
def _plan(widths: tuple[tuple[int, ...], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The power of its unit that each row is in, and where `totals` finds each field: sums, maxima, then the rest."""
    layout = [
        (w, *row) for w, chosen in enumerate(widths) for row in (*_COMMON.items(), *[*_EACH.items()] * len(chosen))
    ]
    power = torch.tensor([min(power, 3) * len(widths) + w for w, _, power in layout], device=device)
    size = len(layout)
    sources = {}
    start = 0
    for w, chosen in enumerate(widths):
        common = {name: start + index for index, name in enumerate(_COMMON)}
        common |= {"max_abs_x": 2 * size + w, "excluded": 2 * size + len(widths) + w, "n": 2 * (size + len(widths))}
        start += len(_COMMON)
        for i in chosen:
            at = common | {name: start + index for index, name in enumerate(_EACH)}
            at["max_abs_e"] += size
            sources[i] = [at[field] for field in FIELDS]
            start += len(_EACH)
    return power, torch.tensor([sources[i] for i in sorted(sources)], device=device)


def _in_order(widths: Sequence[Sequence[int]], blocks: Sequence[list[list[Tensor]]]) -> list[list[Tensor]]:
    """One entry a format in the order given, from one list for each width."""
    placed = {i: row for chosen, rows in zip(widths, blocks, strict=True) for i, row in zip(chosen, rows, strict=True)}
    return [placed[i] for i in sorted(placed)]


def _in_rows(t: Tensor) -> Tensor:
    """Squares summed inside each row of a block, [G, rows, blocks, L] -> [G, K]."""
    return (t * t).sum(3).flatten(1)


def _weighted(squares: Tensor, share: Tensor) -> Tensor:
    """Squares in units of blocks [G, K] as sums in the group's unit [G]."""
    return (squares * share * share).sum(1)


def _first(t: Tensor) -> tuple[int, ...]:
    """The axes of [G, rows, blocks, L] to reduce first.

    On a CPU the rows, so that vector lanes never meet inside the long loop. On a GPU everything in a row: down the
    rows, threads would exchange 15 numbers for every element, and the code for an H200 would be twice as long.
    """
    return (1,) if t.device.type == "cpu" else (2, 3)


def _sum(t: Tensor) -> Tensor:
    """[G, rows, blocks, L] -> [G]."""
    return t.sum(_first(t)).flatten(1).sum(1)


def _counts(packed: Tensor, number: int) -> list[Tensor]:
    """[G, rows, blocks, L] of ones, _PACKs and their squares -> `number` counts [G], unpacked before 2^24."""
    left = packed.sum(_first(packed)).flatten(1)
    counts = []
    for place in reversed(range(number)):
        digit = torch.floor(left * _PACK**-place)
        counts.append(digit.sum(1))
        left = left - digit * _PACK**place
    return counts[::-1]
