"""The scale of every block, by all rules, from the bits of its amax: branch-free, for eager and compiled use.

Not here: what is done with a scale (expression.py) and what the rules mean (`srdd.core.formats.Rule`). The numbers in
comments are the steps of reference.py.

Worked number: amax 3.9 has bits 0x4079999A. mxfp4:even adds 2^21 and keeps the exponent: 0x40800000 = 4; minus emax 2,
the scale is 1. mxfp4:floor adds nothing: 2; minus emax 2, the scale is 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from srdd.core.formats import E4M3, BlockFormat, Rule, Scale
from srdd.kernels.rounding import nearest

_EXPONENT = 0x7F800000
_EXPONENT_SIGNED = -(1 << 23)  # keeps the sign too, for exponents below -127
_MANTISSA = 0x007FFFFF
_LARGEST = 254 << 23  # exponent bits of 2^127
_SMALLEST = 0x00400000  # 2^-127, a subnormal
_MIN_BLOCK_SCALE = {
    Rule.NVIDIA: 0.0,
    Rule.MIN_SUBNORMAL: 2.0**-9,
    Rule.MIN_NORMAL: 2.0**-6,
    Rule.SINGLE_LEVEL: 2.0**-6,
}


def block_scales(fmts: Sequence[BlockFormat], x: Tensor, tensor_scales: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """For groups [G, K, L]: float32 [3 + 2 * formats, G, K], scales of rows, and [3, G]: unit, amax, bad elements.

    `tensor_scales` holds one [G, 1] for every format, since the groups may belong to several tensors; [G, K] of formats
    with a scale for each tile.

    Row 0 is 1/unit of the group, 0 in bad blocks; rows 1 and 2 are 1/unit and unit of the block, the power of two of
    its amax. Then come two rows a format: 1/scale and scale of MX; divisor and d of nvfp4 and fp8, where the
    divisor is infinite if d is zero, so that x / divisor is zero.
    """
    groups, rows, width = x.shape
    height = fmts[0].block[0]  # of a block, in rows; all formats given have the same block
    a = x.to(torch.float32).abs().view(groups, rows // height, height * width)  # 1, 2
    amax = a.amax(2)  # 3
    bad = ~(amax < math.inf)
    amax = torch.where(bad, 0.0, amax)
    bits = amax.view(torch.int32)
    largest = amax.amax(1)
    exponent = largest.view(torch.int32) & _EXPONENT
    own = bits & _EXPONENT
    table = [torch.where(bad, 0.0, _inverse(exponent)[:, None]), _inverse(own), _power(own)]
    for fmt, tensor_scale in zip(fmts, tensor_scales, strict=True):
        if fmt.scale is Scale.E8M0:  # 4
            e8m0 = _e8m0_bits(amax, bits, fmt)
            table += [_inverse(e8m0), _power(e8m0)]
        else:  # 5
            d = tensor_scale.expand_as(amax) if fmt.scale is Scale.FP32 else _two_level_scale(amax, tensor_scale, fmt)
            table += [torch.where(d > 0, d, math.inf), d]  # 7: what is divided by infinity is zero
    stacked = torch.stack(table)
    if height > 1:
        stacked = stacked[:, :, :, None].expand(-1, -1, -1, height).reshape(len(table), groups, rows)
    return stacked, torch.stack([_power(exponent), largest, bad.sum(1) * float(height * width)])


def _power(exponent_bits: Tensor) -> Tensor:
    """2^e from e's bits, already in place; bits 0 stand for 2^-127, a subnormal in float32."""
    return exponent_bits.clamp(min=_SMALLEST).view(torch.float32)


def _inverse(exponent_bits: Tensor) -> Tensor:
    """2^-e from the same bits."""
    return (_LARGEST - exponent_bits).clamp(min=_SMALLEST).view(torch.float32)


def _e8m0_bits(amax: Tensor, bits: Tensor, fmt: BlockFormat) -> Tensor:
    """The scale's exponent bits: what is added to amax carries into its exponent exactly when the rule steps up."""
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


def _two_level_scale(amax: Tensor, tensor_scale: Tensor, fmt: BlockFormat) -> Tensor:
    """d = s_b * s_t; divisors are tensors, see reference.py."""
    wanted = (amax / torch.full_like(amax, fmt.element.max)) / tensor_scale
    wanted = torch.where(tensor_scale > 0, wanted, 0.0).clamp(_MIN_BLOCK_SCALE[fmt.rule], E4M3.max)
    return nearest(wanted, E4M3) * tensor_scale
