"""The spec: quant-dequant and its tally, one line per sentence of the standard. Short, slow, obviously right.

Not here: speed (expression.py, run by fused.py, must equal this bit for bit) and checks of arguments (arguments.py).
The steps below stand as numbers beside the lines that do them, here and in expression.py.

 1. Everything is computed from float32, whatever the input's type. Powers of two are applied exactly (in float64).
 2. Blocks are tiles of the last two axes (1 x 32: runs of the last axis). They never cross rows; where a row or
    column ends inside a tile, the tile is short: padding takes part in nothing.
 3. amax is the largest magnitude of the block. Exponents come from frexp, never from log2.
 4. An E8M0 scale is 2^e with e from the rule, clamped to [-127, 127].
 5. A two-level scale is d = s_b * s_t with s_t = gmax / 2688 and s_b = E4M3((amax / 6) / s_t), every step rounded to
    float32. gmax is the largest finite magnitude of the tensor, or what the caller gives. A float32 scale is
    amax / 448, rounded to float32, of the largest finite magnitude of its tile (of the tensor: or what is given).
 6. x / scale is rounded to the nearest element, ties to even, and saturates at the element's largest value. With
    stochastic rounding it goes up with probability (distance to the lower code) / (gap). Signs are kept, also of 0.
    Under scales that are no powers of two, x / scale and q = code * scale are rounded to float32.
 7. A scale of zero gives zeros. A block that holds a NaN or an infinity becomes NaN and enters no sum.

Worked number: amax 3.9 under mxfp4:floor gives e = 1 - 2 = -1, so 3.9 becomes 7.8 in units of 0.5, saturates at 6 and
returns as 3; mxfp4:even sees significand 1.95 >= 1.75, takes e = 0 and returns 4. In a tensor whose amax is 2 fp8
scales by 2 / 448 = 1 / 224: 0.3 is 67.2 there, lies between the codes 64 and 72, and returns as 64 / 224 = 0.286.

Sources: OCP MX v1.0 sections 5.1, 5.3, 5.4 and 6.3; NVIDIA NVFP4 (arXiv 2509.25149, appendix on quantization). FP8:
max|x| / 448 and x / scale in float32 are those of DeepSeek-V3 (act_quant) and vLLM (per_token_group_quant_fp8); stacks
that multiply by 448 / amax or by 1 / scale differ where a value lies within a float32 rounding of a midpoint. Stacks
disagree about tiny tiles, for which vLLM has a least scale (1e-10 / 448, or 1 / (448 * 512) a token) and DeepSeek-V3
none, and about NaN, which spoils a tile or is dropped from amax: here step 7 holds, as for NVFP4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from srdd.core.blocks import EXACT, EXPONENT_OF_0, LOWEST_DB, NO_SCALE, SCALE_BINS, SQNR_BINS, STEP_DB
from srdd.core.formats import E4M3, BlockFormat, Element, Rule, Scale, parse
from srdd.core.tally import FIELDS

_NVFP4_TENSOR_RANGE = 6.0 * 448.0  # 2688: largest E2M1 times largest E4M3
# amax / 448 may be rounded down, and 448 times that be below amax by less than this: no value there is clipped. Below
# 2^-126, where a scale has few bits left, the product is rounded away and amax can clip.
_ROUNDED_DOWN = 1 + 2.0**-22
_MIN_BLOCK_SCALE = {
    Rule.NVIDIA: 0.0,
    Rule.MIN_SUBNORMAL: 2.0**-9,
    Rule.MIN_NORMAL: 2.0**-6,
    Rule.SINGLE_LEVEL: 2.0**-6,
}


def quant_dequant(
    x: Tensor,
    fmt: str | BlockFormat,
    *,
    generator: torch.Generator | None = None,
    global_amax: Tensor | float | None = None,
) -> Tensor:
    """What `x` becomes after a trip through the format: same shape, same dtype, exact in float32."""
    fmt = parse(fmt)
    blocks = _quantize(x, fmt, generator, global_amax)
    return _from_blocks(blocks.q, x.shape, fmt.block).to(torch.float32).to(x.dtype)


def measure(
    x: Tensor,
    fmt: str | BlockFormat,
    *,
    generator: torch.Generator | None = None,
    global_amax: Tensor | float | None = None,
) -> Tensor:
    """The tally of `x` under the format: one float64 vector, FIELDS and then the counts of blocks, on x's device."""
    blocks = _quantize(x, parse(fmt), generator, global_amax)
    keep = blocks.real & ~blocks.bad  # 2: no padding. 7: no bad block
    x64, q64, limit = (t.expand_as(blocks.q)[keep] for t in (blocks.x, blocks.q, blocks.limit))
    e = q64 - x64
    nonzero, no_scale = x64 != 0, limit == 0
    deadzone = nonzero & (q64 == 0)
    clipped = ~no_scale & (x64.abs() > blocks.held.expand_as(blocks.q)[keep])
    sums = {
        "n": torch.ones_like(x64).sum(),
        "nonzero": nonzero.sum(),
        "deadzone": deadzone.sum(),
        "clipped": clipped.sum(),
        "at_max": (~no_scale & (q64.abs() == limit)).sum(),
        "nonfinite": (~blocks.x.isfinite() & blocks.real).sum(),
        "excluded": (blocks.bad & blocks.real).sum(),
        "sum_x": x64.sum(),
        "sum_x2": (x64**2).sum(),
        "sum_x4": (x64**4).sum(),
        "sum_e": e.sum(),
        "sum_e2": (e**2).sum(),
        "sum_e2_clipped": (e[clipped] ** 2).sum(),
        "sum_e2_deadzone": (e[deadzone] ** 2).sum(),
        "sum_abs_x": x64.abs().sum(),
        "sum_abs_e": e.abs().sum(),
        "sum_rel": (e[nonzero].abs() / x64[nonzero].abs()).sum(),
        "sum_q2": (q64**2).sum(),
        "sum_xq": (x64 * q64).sum(),
        "max_abs_x": x64.abs().max() if x64.numel() else 0.0,
        "max_abs_e": e.abs().max() if x64.numel() else 0.0,
        "zero_scale": (no_scale & nonzero).sum(),
    }
    fields = torch.stack([torch.as_tensor(sums[name], dtype=torch.float64, device=x.device) for name in FIELDS])
    return torch.cat([fields, _counts(blocks)])


def _counts(blocks: _Blocks) -> Tensor:
    """The columns of `srdd.core.blocks.Blocks.from_dense`: blocks by SQNR, by scale, and the noisiest one."""
    signal = (blocks.x.where(~blocks.bad, 0) ** 2).sum(1)
    noise = ((blocks.q - blocks.x).where(~blocks.bad, 0) ** 2).sum(1)
    alive = signal > 0  # a value other than 0, and all finite
    db = 10 * torch.log10(signal / noise)[alive]
    sqnr = torch.floor((db - LOWEST_DB) / STEP_DB).clamp(0, EXACT).long()
    exponent = torch.frexp(blocks.scale.flatten()[alive].double()).exponent - 1
    scales = (exponent + EXPONENT_OF_0).where(blocks.scale.flatten()[alive] > 0, NO_SCALE).long()
    worst = noise.argmax() if noise.numel() else torch.zeros((), dtype=torch.int64, device=noise.device)
    most = noise.amax() if noise.numel() else torch.zeros((), dtype=torch.float64, device=noise.device)
    counts = [torch.bincount(sqnr, minlength=SQNR_BINS), torch.bincount(scales, minlength=SCALE_BINS)]
    return torch.cat([*(c.double() for c in counts), torch.stack([most, worst.double()])])


@dataclass(frozen=True)
class _Blocks:
    """One row per block. x, q and limit are float32 values held in float64 (q of MX is not rounded to float32 yet)."""

    x: Tensor  # [blocks, size], padding is zero
    q: Tensor  # [blocks, size]
    limit: Tensor  # [blocks, 1], the largest value the block can hold; 0 where its scale is zero
    held: Tensor  # [blocks, 1], the limit, or as much above it as a float32 scale may be rounded down: not clipped
    scale: Tensor  # [blocks, 1]
    real: Tensor  # [blocks, size] bool, False on padding
    bad: Tensor  # [blocks, 1] bool, the block holds a NaN or an infinity


def _quantize(
    x: Tensor, fmt: BlockFormat, generator: torch.Generator | None, global_amax: Tensor | float | None
) -> _Blocks:
    given = x
    x = _to_blocks(given.to(torch.float32), fmt.block)  # 1: float32. 2: blocks
    real = _to_blocks(torch.ones(given.shape, dtype=torch.bool, device=given.device), fmt.block)
    noise = None
    if fmt.stochastic:
        drawn = torch.rand(given.shape, generator=generator, dtype=torch.float32, device=given.device)
        noise = _to_blocks(drawn, fmt.block).double()
    finite = x.isfinite()
    bad = ~finite.all(dim=1, keepdim=True)
    magnitude = x.abs().where(finite, 0)
    amax = magnitude.amax(dim=1, keepdim=True)  # 3: the largest magnitude of each block
    if fmt.scale is Scale.E8M0:  # 4: a power of two
        scale = torch.ldexp(torch.ones_like(amax, dtype=torch.float64), _e8m0_exponent(amax.double(), fmt))
        y = x.double().abs() / scale
        q = _round(y, fmt.element, noise) * scale  # 6
        held = limit = fmt.element.max * scale
    else:  # 5: two levels, d = s_b * s_t, or amax / 448 of a tile
        if global_amax is None:
            global_amax = magnitude.max() if magnitude.numel() else 0.0
        gmax = torch.as_tensor(global_amax, device=x.device).to(torch.float32)
        if fmt.scale is Scale.E4M3_FP32:
            scale = _two_level_scale(amax, gmax, fmt)
        else:
            of_tile = gmax.expand_as(amax) if fmt.has_tensor_scale else _amax_of_tiles(given, fmt)
            scale = of_tile / torch.full_like(of_tile, fmt.element.max)
        y = (x.abs() / scale).where(scale > 0, 0)  # 7: a scale of zero gives zeros
        q = _round(y.double(), fmt.element, noise).float() * scale  # 6; rounded to float32, as stored
        limit = fmt.element.max * scale
        held = limit * _ROUNDED_DOWN if fmt.scale is Scale.FP32 else limit
    q = torch.copysign(q.double(), x.double())  # 6: signs are kept
    q = q.where(~bad, torch.nan)  # 7: a bad block becomes NaN
    return _Blocks(x.double(), q, limit.double(), held.double(), scale, real, bad)


def _e8m0_exponent(amax: Tensor, fmt: BlockFormat) -> Tensor:
    """Step 4 by OCP MX v1.0 section 6.3 for `floor`, else as `srdd.core.formats.Rule` says. amax: float64, >= 0."""
    mantissa, exponent = torch.frexp(amax)  # 3: never log2
    significand, exponent = 2 * mantissa, exponent - 1  # amax = significand * 2^exponent, 1 <= significand < 2
    largest = fmt.element.max / 2.0**fmt.element.emax
    bits = 1 if fmt.rule is Rule.EVEN_M1 else fmt.element.mantissa_bits
    up = {
        Rule.FLOOR: torch.zeros_like(significand, dtype=torch.bool),
        Rule.RCEIL: significand > largest,
        Rule.CEIL: significand > 1,
        Rule.EVEN: significand >= 2 - 2.0 ** -(bits + 1),
        Rule.EVEN_M1: significand >= 2 - 2.0 ** -(bits + 1),
    }[fmt.rule]
    return (exponent - fmt.element.emax + up.to(exponent.dtype)).clamp(-127, 127)


def _two_level_scale(amax: Tensor, gmax: Tensor, fmt: BlockFormat) -> Tensor:
    """Step 5: d = s_b * s_t in float32; zero if the tensor or block holds nothing but zeros, or if s_b underflows."""
    # Divisors are tensors: given a plain number, CUDA multiplies by its rounded reciprocal and may miss by one ulp.
    full_range, largest = torch.full_like(gmax, _NVFP4_TENSOR_RANGE), torch.full_like(amax, fmt.element.max)
    s_t = torch.ones_like(gmax) if fmt.rule is Rule.SINGLE_LEVEL else gmax / full_range
    wanted = ((amax / largest) / s_t).where(s_t > 0, 0)
    wanted = wanted.clamp(_MIN_BLOCK_SCALE[fmt.rule], E4M3.max)
    return _round(wanted.double(), E4M3, None).float() * s_t


def _amax_of_tiles(x: Tensor, fmt: BlockFormat) -> Tensor:
    """Step 5: for each block the largest finite magnitude of the tile it lies in, [blocks, 1] float32."""
    rows, columns = (x.shape[-2] if x.dim() >= 2 else 1), (x.shape[-1] if x.dim() else 1)
    tile = int(min(fmt.tile[0], max(rows, 1))), int(min(fmt.tile[1], max(columns, 1)))
    x = x.to(torch.float32)
    tiles = _to_blocks(x.abs().where(x.isfinite(), 0), tile)
    everywhere = _from_blocks(tiles.amax(dim=1, keepdim=True).expand_as(tiles), x.shape, tile)
    return _to_blocks(everywhere, fmt.block).amax(dim=1, keepdim=True)


def _round(y: Tensor, element: Element, noise: Tensor | None) -> Tensor:
    """Step 6 for magnitudes y (float64, >= 0): to nearest, ties to even, or stochastically with noise."""
    exponent = (torch.frexp(y).exponent - 1).clamp(min=element.emin)
    gap = torch.ldexp(torch.ones_like(y), exponent - element.mantissa_bits)
    steps = y / gap
    if noise is None:
        return (steps.round() * gap).clamp(max=element.max)  # torch rounds ties to even
    below = steps.floor()
    return ((below + (noise < steps - below)) * gap).clamp(max=element.max)


def _to_blocks(x: Tensor, block: tuple[int, int]) -> Tensor:
    """Step 2: [..., R, C] -> [blocks, rows * columns], with zeros where the last tile is short."""
    rows, columns = block
    x = x.reshape(x.shape[:-2].numel(), *x.shape[-2:]) if x.dim() >= 2 else x.reshape(1, 1, -1)
    x = pad(x, (0, -x.shape[2] % columns, 0, -x.shape[1] % rows))
    tiles = x.reshape(x.shape[0], x.shape[1] // rows, rows, x.shape[2] // columns, columns)
    return tiles.transpose(2, 3).reshape(x.numel() // (rows * columns), rows * columns)


def _from_blocks(blocks: Tensor, shape: torch.Size, block: tuple[int, int]) -> Tensor:
    """The inverse of `_to_blocks`: padding is cut off."""
    rows, columns = block
    r, c = (shape[-2], shape[-1]) if len(shape) >= 2 else (1, shape.numel())
    down, across = -(-r // rows), -(-c // columns)
    stack = blocks.shape[0] // max(down * across, 1)
    tiles = blocks.reshape(stack, down, across, rows, columns).transpose(2, 3)
    return tiles.reshape(stack, down * rows, across * columns)[:, :r, :c].reshape(shape)
