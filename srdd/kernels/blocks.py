"""Counts of single blocks: the bin of each one's SQNR and scale (compiled), and how many are in each bin (eager).

Not here: what the bins are (srdd.core.blocks) and the sums over elements (expression.py).

Decibels come from float32 sums, so a block within 0.0001 dB of a bin's edge may be counted beside it; the reference
counts from float64. Worked number: signal 100 and noise 1 are 20 dB, bin (20 + 20) / 0.5 = 80.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from srdd.core.blocks import EXACT, EXPONENT_OF_0, LOWEST_DB, NO_SCALE, SCALE_BINS, SQNR_BINS, STEP_DB
from srdd.kernels.precision import to_float64

_BIAS = EXPONENT_OF_0 - 127  # from the exponent bits of a float32 to its bin
_TINY = 2.0**-126  # below are subnormals, whose bits hold no exponent


def of_blocks(signal: Tensor, noise: Tensor, share: Tensor, scale: Tensor, height: int) -> list[Tensor]:
    """Of each block, [G, blocks]: noise in the group's unit, the bins of SQNR and scale.

    All are given for rows [G, K]: squares in the block's own unit, that unit in the group's, scales; a block has
    `height` rows.
    """
    if height > 1:
        signal, noise = (t.view(len(t), -1, height).sum(2) for t in (signal, noise))
        share, scale = share[:, ::height], scale[:, ::height]
    return [noise * share * share, sqnr_bins(signal, noise), scale_bins(scale, signal)]


def sqnr_bins(signal: Tensor, noise: Tensor) -> Tensor:
    """The bin of 10 log10(signal / noise), int32; SQNR_BINS where there is no signal. Of any floating type."""
    bins = torch.floor((10 * torch.log10(signal / noise) - LOWEST_DB) / STEP_DB).clamp(0, EXACT)
    return torch.where(signal > 0, bins, SQNR_BINS).to(torch.int32)  # without noise the ratio is infinite: EXACT


def scale_bins(scale: Tensor, signal: Tensor) -> Tensor:
    """The bin of each float32 scale, int32; SCALE_BINS where there is no signal."""
    small = scale < _TINY
    bits = torch.bitwise_right_shift(torch.where(small, scale * 2.0**64, scale).view(torch.int32), 23)
    bins = torch.where(scale > 0, bits + torch.where(small, _BIAS - 64, _BIAS), NO_SCALE)
    return torch.where(signal > 0, bins, SCALE_BINS).to(torch.int32)


def counted(blocks: Sequence[Tensor], unit: Tensor, tensors: int = 1) -> Tensor:
    """float64 [tensors, DENSE] for `srdd.core.blocks.Blocks.from_dense`, from `of_blocks` of one format.

    The groups, of units [G], belong to `tensors` tensors of equal size, one after the other.
    """
    noise, sqnr, scale = blocks
    counts = [_histogram(bins, size, tensors) for bins, size in ((sqnr, SQNR_BINS), (scale, SCALE_BINS))]
    power = to_float64(noise.amax(1)) * to_float64(unit) ** 2
    power, group = power.view(tensors, -1).max(1)
    first = torch.arange(tensors, device=group.device) * (len(unit) // tensors)
    inside = noise[(group + first).to(noise.device)].argmax(1).to(group.device)
    number = group * noise.shape[1] + inside
    return torch.cat([*counts, power[:, None], number[:, None]], dim=1)


def _histogram(bins: Tensor, size: int, tensors: int) -> Tensor:
    """float64 [tensors, size]; what is in bin `size` is nothing."""
    if tensors > 1:
        offsets = torch.arange(tensors, device=bins.device, dtype=bins.dtype) * (size + 1)
        bins = bins + offsets.repeat_interleave(len(bins) // tensors)[:, None]
    counts = torch.bincount(bins.flatten(), minlength=tensors * (size + 1)).view(tensors, size + 1)
    return to_float64(counts[:, :size])
