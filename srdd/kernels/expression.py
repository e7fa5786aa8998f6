"""The numbers of `reference.py` as branch-free float32 expressions over groups of blocks, for eager and compiled use.

Not here: shapes, padding, chunks, compilation (fused.py). Nothing here looks at a value to decide what to do next.

Three facts make it fast where the reference is slow:

 - The power of two below y needs no log2 and no bit cast (compilers turn a cast inside a loop into a trip through
   memory): with u = 2^24 * y, the sum u + 1.5 * y lies between 1/2 and 3/2 of u's spacing above u, so
   (u + 1.5 * y) - u is 2^(floor(log2 y) + 1), exactly.
 - Adding and subtracting 1.5 * 2^23 gaps rounds to a multiple of the gap, ties to even.
 - A group is [K, L]: K rows of L = the block's width, 2048 elements in all. Sums run in float32 inside one group, in
   units of its largest power of two, where nothing overflows, and leave it as float64. x = 3e38 gives x^4 = 8e153,
   which float32 could not hold. What underflows is 2^-63 of the group's largest value and below.

Worked number: amax 3.9 has bits 0x4079999A. mxfp4:even adds 2^21 and keeps the exponent: 0x40800000 = 4, less emax 2:
scale 1. mxfp4:floor adds nothing: 2, less emax 2: scale 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from srdd.formats import E4M3, BlockFormat, Element, Rule, Scale
from srdd.tally import FIELDS

_EXPONENT = 0x7F800000
_MANTISSA = 0x007FFFFF
_LARGEST = 254 << 23  # exponent bits of 2^127
_SMALLEST = 0x00400000  # 2^-127, a subnormal
GROUP = 2048  # elements
_PACK = 256.0  # three counts of up to 128 rows fit one float32: 128 * (1 + 256 + 65536) < 2^24
MIN_BLOCK_SCALE = {
    Rule.NVIDIA: 0.0,
    Rule.MIN_SUBNORMAL: 2.0**-9,
    Rule.MIN_NORMAL: 2.0**-6,
    Rule.SINGLE_LEVEL: 2.0**-6,
}


def largest_finite(fmts: Sequence[BlockFormat], x: Tensor) -> Tensor:
    """The largest finite magnitude of every group [G, K, L], as nvfp4's tensor scale wants it: float32 [G]."""
    a = x.to(torch.float32).abs()
    return torch.where(a < math.inf, a, 0.0).amax(2).amax(1)


def block_scales(fmts: Sequence[BlockFormat], x: Tensor, tensor_scales: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Of groups [G, K, L]: float32 [1 + 2 * formats, G, K] for every row, and [2, G]: unit and amax of every group.

    `tensor_scales` holds one [G, 1] for every format, since groups may belong to several tensors.

    Row 0 is 1/unit of the group, 0 in bad blocks. Then two rows a format: 1/scale and scale of MX; divisor and d of
    nvfp4, the divisor being infinite where d is zero, so that x / divisor is zero.
    """
    groups, rows, width = x.shape
    height = fmts[0].block[0]  # of a block, in rows; every format given has the same block
    a = x.to(torch.float32).abs().view(groups, rows // height, height * width)
    amax = a.amax(2)
    bad = ~(amax < math.inf)
    amax = torch.where(bad, 0.0, amax)
    bits = amax.view(torch.int32)
    largest = amax.amax(1)
    exponent = largest.view(torch.int32) & _EXPONENT
    table = [torch.where(bad, 0.0, _inverse(exponent)[:, None])]
    for fmt, tensor_scale in zip(fmts, tensor_scales, strict=True):
        if fmt.scale is Scale.E8M0:
            e8m0 = _e8m0_bits(amax, bits, fmt)
            table += [_inverse(e8m0), _power(e8m0)]
        else:
            d = _two_level_scale(amax, tensor_scale, fmt)
            table += [torch.where(d > 0, d, math.inf), d]
    stacked = torch.stack(table)
    if height > 1:
        stacked = stacked[:, :, :, None].expand(-1, -1, -1, height).reshape(len(table), groups, rows)
    return stacked, torch.stack([_power(exponent), largest])


def quantize(fmts: Sequence[BlockFormat], x: Tensor, scales: Tensor, noise: Tensor | None) -> Tensor:
    """q of groups [G, K, L] in x's type, NaN in bad blocks; `fmts` is one format, `scales` as `block_scales` gave."""
    (fmt,) = fmts
    f = x.to(torch.float32)
    good = (scales[0] > 0)[:, :, None]
    first, second = scales[1][:, :, None], scales[2][:, :, None]
    a = torch.where(good, f.abs(), 0.0)
    y = a * first if fmt.scale is Scale.E8M0 else a / first
    q = _round(y, a, fmt, noise) * second
    return torch.where(good, torch.copysign(q, f), math.nan).to(x.dtype)


def tallies(fmts: Sequence[BlockFormat], x: Tensor, scales: Tensor, noises: Sequence[Tensor | None]) -> Tensor:
    """float32 [rows, G]: what each group of [G, K, L] leaves behind, in its own unit, ordered as `_COMMON`, `_EACH`.

    Works on magnitudes: only sum_x and sum_e need a sign. Summing over groups is left to `totals`: here it would be a
    parallel loop for every row, dearer than the work.
    """
    f = x.to(torch.float32)
    inverse = scales[0][:, :, None]
    finite = f.abs() < math.inf
    f = torch.where(inverse > 0, f, 0.0)
    a = f.abs()
    xn = a * inverse
    x2 = xn * xn
    nonzero = torch.where(a > 0, 1.0, torch.where(finite, 0.0, _PACK))  # not finite: in a bad block, so a is 0
    rows = [*_counts(nonzero, 2), _sum(f * inverse), _sum(x2), _sum(x2 * x2), _sum(xn)]
    for i, fmt in enumerate(fmts):
        first, second = scales[1 + 2 * i][:, :, None], scales[2 + 2 * i][:, :, None]
        if fmt.scale is Scale.E8M0:
            y = a * first
            q = on_grid = _round(y, a, fmt, noises[i])
            e, base = q - y, y
            clipped = y > fmt.element.max
            rescale = second * inverse  # block to group
            zero_scale = torch.zeros_like(rows[0])
        else:
            on_grid = _round(a / first, a, fmt, noises[i])
            q = on_grid * second
            e, base = q - a, a
            clipped = a > first * fmt.element.max  # infinite where d is zero: nothing clips there
            rescale = inverse
            zero_scale = _sum(torch.where(second == 0, torch.where(a > 0, 1.0, 0.0), 0.0))
        zero = q == 0
        at_max = torch.where(clipped, _PACK * _PACK + _PACK, _PACK * _PACK)  # what is clipped is on the maximum too
        kinds = torch.where(on_grid == fmt.element.max, at_max, torch.where(zero, 1.0, 0.0))
        # |e| / |x| is 1 where q is 0, which `totals` adds; elsewhere x is not tiny and the division safe
        relative = torch.where(zero, 0.0, e.abs() / base)
        en, qn = e * rescale, q * rescale
        e2 = en * en
        rows += [
            *_counts(kinds, 3),
            zero_scale,
            _sum(relative),
            _sum(torch.where(f < 0, -en, en)),
            _sum(en.abs()),
            _sum(e2),
            _sum(torch.where(clipped, e2, 0.0)),
            _sum(torch.where(zero, e2, 0.0)),  # where x is zero too, so is e
            _sum(qn * qn),
            _sum(xn * qn),
            en.abs().amax(1).amax(1),
        ]
    return torch.stack(rows)


# The rows of `tallies`: these, then those of each format; and the power of the group's unit that each is in.
_COMMON = {"nonzero": 0, "nonfinite": 0, "sum_x": 1, "sum_x2": 2, "sum_x4": 4, "sum_abs_x": 1}
_EACH = {
    "deadzone": 0,  # counts every zero of q: `totals` takes off the zeros of x
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


def totals(count: int, rows: Tensor, scales: Tensor, units: Tensor, width: int, tensors: int = 1) -> Tensor:
    """float64 [tensors, count, fields] from the rows of `tallies` for `count` formats, summed over groups, eagerly.

    The groups are those of `tensors` tensors of equal size, one after the other. `n` stays 0 and padding (zeros) counts
    in `excluded` only: both follow from the shape.
    """
    power, sources = _plan(count, rows.device)
    unit = units[0].double()
    unit2 = unit * unit
    powers = torch.stack([torch.ones_like(unit), unit, unit2, unit2 * unit2])
    scaled = (rows.double() * powers[power]).view(len(rows), tensors, -1)
    excluded = (scales[0] == 0).view(tensors, -1).sum(1) * width
    rest = torch.stack([units[1].view(tensors, -1).amax(1).double(), excluded, torch.zeros_like(excluded)])
    results = torch.cat([scaled.sum(2), scaled.amax(2), rest])[sources].permute(2, 0, 1).contiguous()
    zeros = units.shape[1] // tensors * GROUP - results[..., _NONZERO]  # of x; padding and bad blocks count as such
    results[..., _DEADZONE] -= zeros
    results[..., _RELATIVE] += results[..., _DEADZONE]
    return results


_NONZERO, _DEADZONE, _RELATIVE = (FIELDS.index(name) for name in ("nonzero", "deadzone", "sum_rel"))


@cache
def _plan(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which power of the unit each row is in, and where `totals` finds each field: sums, maxima, then three more."""
    layout = [*_COMMON.items(), *list(_EACH.items()) * count]
    size = len(layout)
    power = torch.tensor([min(power, 3) for _, power in layout], device=device)
    sources = []
    for i in range(count):
        at = {name: index for index, name in enumerate(_COMMON)}
        at |= {name: len(_COMMON) + i * len(_EACH) + index for index, name in enumerate(_EACH)}
        at |= {"max_abs_e": size + at["max_abs_e"], "max_abs_x": 2 * size, "excluded": 2 * size + 1, "n": 2 * size + 2}
        sources.append([at[field] for field in FIELDS])
    return power, torch.tensor(sources, device=device)


def _sum(t: Tensor) -> Tensor:
    """[G, K, L] -> [G]: down the rows first, so that vector lanes never meet inside the long loop."""
    return t.sum(1).sum(1)


def _counts(packed: Tensor, number: int) -> list[Tensor]:
    """[G, K, L] of ones, _PACKs and squares of _PACK -> as many counts [G]; unpacked where K is summed, not L."""
    left = packed.sum(1)
    counts = []
    for place in reversed(range(number)):
        digit = torch.floor(left * _PACK**-place)
        counts.append(digit.sum(1))
        left = left - digit * _PACK**place
    return counts[::-1]


def _power(exponent_bits: Tensor) -> Tensor:
    """2^e from e's bits in place; bits 0 stand for 2^-127, which float32 writes as a subnormal."""
    return exponent_bits.clamp(min=_SMALLEST).view(torch.float32)


def _inverse(exponent_bits: Tensor) -> Tensor:
    """2^-e, the same way."""
    return (_LARGEST - exponent_bits).clamp(min=_SMALLEST).view(torch.float32)


def _e8m0_bits(amax: Tensor, bits: Tensor, fmt: BlockFormat) -> Tensor:
    """The scale's exponent bits: adding this much carries into the exponent exactly when the rule goes one up."""
    even_bits = 1 if fmt.rule is Rule.EVEN_M1 else fmt.element.mantissa_bits
    largest = round((fmt.element.max / 2.0**fmt.element.emax - 1) * 2**23)  # mantissa bits of the largest element
    carry = {
        Rule.FLOOR: 0,
        Rule.RCEIL: _MANTISSA - largest,
        Rule.CEIL: _MANTISSA,
        Rule.EVEN: 1 << (22 - even_bits),
        Rule.EVEN_M1: 1 << (22 - even_bits),
    }[fmt.rule]
    if fmt.element.emax == 0:  # only then can a subnormal amax have a scale above 2^-127: normalize it first
        bits = torch.where(amax < 2.0**-126, (amax * 2.0**64).view(torch.int32) - (64 << 23), bits)
    return (((bits + carry) & _EXPONENT_SIGNED) - (fmt.element.emax << 23)).clamp(0, _LARGEST)


_EXPONENT_SIGNED = -(1 << 23)  # keeps the sign too, for exponents below -127


def _two_level_scale(amax: Tensor, tensor_scale: Tensor, fmt: BlockFormat) -> Tensor:
    wanted = (amax / torch.full_like(amax, fmt.element.max)) / tensor_scale
    wanted = torch.where(tensor_scale > 0, wanted, 0.0).clamp(MIN_BLOCK_SCALE[fmt.rule], E4M3.max)
    return _nearest(wanted, E4M3) * tensor_scale


def _round(y: Tensor, x: Tensor, fmt: BlockFormat, noise: Tensor | None) -> Tensor:
    """Magnitudes y = x / scale onto the element's grid. Clamping first is the same as last, and never overflows."""
    largest = fmt.element.max
    a = torch.where(y > largest, largest, y)  # half the cost of clamp, which minds NaNs
    if noise is None:
        return _nearest(a, fmt.element)
    if fmt.scale is Scale.E8M0:  # an exact y may lie below float32's range; a noise of 0 must still round it up
        a = torch.where(x > 0, a.clamp(min=2.0**-149), a)
    twice = _twice_binade(a, fmt.element)
    gap = twice * 2.0 ** (-1 - fmt.element.mantissa_bits)
    near = _snap(a, twice, fmt.element)
    below = near - torch.where(near > a, gap, 0.0)
    up = noise * gap < a - below
    return (below + torch.where(up, gap, 0.0)).clamp(max=largest)


def _nearest(a: Tensor, element: Element) -> Tensor:
    return _snap(a, _twice_binade(a, element), element)


def _twice_binade(a: Tensor, element: Element) -> Tensor:
    """2^(floor(log2 a) + 1), or 2^(emin + 1) where a is below 2^emin."""
    u = a * 2.0**24
    twice, least = (u + a * 1.5) - u, 2.0 ** (element.emin + 1)
    return torch.where(twice > least, twice, least)


def _snap(a: Tensor, twice: Tensor, element: Element) -> Tensor:
    magic = twice * (1.5 * 2.0 ** (22 - element.mantissa_bits))
    return (a + magic) - magic
