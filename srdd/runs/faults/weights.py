"""What a weight holds, in numbers that tell a broken memory from a trained matrix.

Not here: the verdict. A row is an output channel; ties at the largest value of a row are what clamping leaves.

Worked number: a weight of 4 rows, one of them zeros, has dead_rows 1 and zeros 0.25.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from srdd.documents.fault import WeightHealth

SAMPLED = 65_536  # values among which the most frequent is looked for, evenly spread


def health_of(module: nn.Module) -> WeightHealth | None:
    """Of a Linear or Conv1D; None where the weight is none of floats."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.is_meta or weight.dim() != 2:
        return None
    stored = weight.detach().to("cpu").contiguous()
    sha256 = hashlib.sha256(stored.view(torch.uint8).numpy().data).hexdigest()
    w = stored.float()
    w = w if isinstance(module, nn.Linear) else w.T
    n, rms = w.numel(), float(w.square().mean().sqrt())
    if not rms > 0:
        rms = 1.0
    sample = w.reshape(-1)[:: max(1, n // SAMPLED)]
    most = w.abs().amax(1, keepdim=True)
    alive = most[:, 0] > 0
    ties = int((w.abs() == most)[alive].sum()) - int(alive.sum())
    return WeightHealth(
        sha256=sha256,
        values=n,
        zeros=float((w == 0).sum()) / n,
        dead_rows=int((~alive).sum()),
        dead_columns=int((w == 0).all(0).sum()),
        at_max=max(0, ties) / n,
        same=_most_frequent(sample) / len(sample),
        mean=_finite(float(w.mean()) / rms),
        rms=_finite(rms),
        kurtosis=_finite(float((w / rms).pow(4).mean())),
    )


def _most_frequent(w: Tensor) -> int:
    ordered = w.sort().values
    ordered = ordered[ordered != 0]
    if not ordered.numel():
        return 0
    new = torch.ones(len(ordered), dtype=torch.bool, device="cpu")
    new[1:] = ordered[1:] != ordered[:-1]
    starts = new.nonzero()[:, 0]
    ends = torch.cat([starts[1:], torch.tensor([len(ordered)], device="cpu")])
    return int((ends - starts).max())


def _finite(value: float) -> float:
    return value if abs(value) < 1e300 else 1e300
