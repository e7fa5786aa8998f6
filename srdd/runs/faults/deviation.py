"""How a tensor differs from what it must be, in numbers that tell kinds of faults apart.

Not here: what it must be (expected.py) and the verdict (srdd.analysis.faults). All tensors are float64 [tokens,
channels] on the CPU.

Worked number: expected (4, 1, 0.1), found (4, 1, 0): share 1/3, zeroed 1, threshold 0.025.
"""

from __future__ import annotations

import torch
from torch import Tensor

from srdd.documents.fault import Deviation
from srdd.kernels.precision import to_float64

_NEARLY_ALL = 0.9  # of the tokens, for a channel that deviates as a whole


def deviation(
    found: Tensor, expected: Tensor, tolerance: Tensor, heads: int | None = None, explained: float = 1.0
) -> Deviation | None:
    """None where nothing deviates by more than the tolerance. `heads` is how many the channels are made up of."""
    difference = found - expected
    off = ~(difference.abs() <= tolerance)  # NaN deviates
    count = int(off.sum())
    if not count:
        return None
    most, most_expected = (x.abs().amax(1, keepdim=True) for x in (found, expected))
    rms = expected.square().mean(1, keepdim=True).sqrt().clamp_min(1e-300)
    zero = off & (found.abs() <= torch.where(found == 0, torch.inf, 0.1 * tolerance))
    share_of_most = expected.abs() / most_expected.clamp_min(1e-300)
    threshold = float(share_of_most[zero].max()) if zero.any() else 0.0
    below = share_of_most < threshold
    spared = float((below & ~zero & (expected.abs() > 10 * tolerance)).sum()) / max(1, int(below.sum()))
    ratio = found / torch.where(expected == 0, torch.nan, expected)
    slack = (10 * tolerance / expected.abs().clamp_min(1e-300)).clamp(1e-6, 0.02)
    flipped = off & (((ratio - 2).abs() <= 2 * slack) | ((ratio - 0.5).abs() <= slack))
    clamped = off & (found.abs() < expected.abs()) & (found.abs() >= most - 2 * tolerance) & (found * expected > 0)
    limits = (most / most_expected.clamp_min(1e-300))[clamped.any(1)]
    per_channel = to_float64(off).mean(0)
    whole = per_channel >= _NEARLY_ALL
    scaled = (difference / rms)[torch.isfinite(difference)]
    return Deviation(
        share=count / off.numel(),
        relative=_number((difference.square().mean() / expected.square().mean().clamp_min(1e-300)).sqrt()),
        zeroed=float(zero.sum()) / count,
        threshold=threshold,
        spared=spared,
        same=_most_frequent(found[off & (found != 0)]) / count,
        flipped=float(flipped.sum()) / count,
        clamped=float(clamped.sum()) / count,
        limit=_number(limits.median()) if limits.numel() else 0.0,
        offset=_number(scaled.mean()) if scaled.numel() else 0.0,
        spread=_number(scaled.std()) if scaled.numel() > 1 else 0.0,
        channels=int(whole.sum()),
        in_channels=float(off[:, whole].sum()) / count,
        heads=_whole_heads(whole, heads),
        explained=explained,
    )


def _most_frequent(values: Tensor) -> int:
    """How often the most frequent value occurs, to four digits of the largest."""
    values = values[torch.isfinite(values)]
    if not values.numel():
        return 0
    rounded = (values / values.abs().max() * 1e4).round()
    return int(torch.unique(rounded, return_counts=True)[1].max())


def _whole_heads(channels: Tensor, heads: int | None) -> int:
    if not heads or len(channels) % heads or len(channels) == heads:
        return 0
    return int(channels.view(heads, -1).all(1).sum())


def _number(x: Tensor) -> float:
    value = float(x)
    return value if value == value and abs(value) < 1e300 else 1e300
