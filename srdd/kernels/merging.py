"""Two tallies as one: sums and counts add, maxima take the larger, the worst block is that of the noisier.

Not here: checks of what is given (arguments.py) and merging of `srdd.core.tally.Tally`, which follows the same rule.
"""

from __future__ import annotations

import torch
from torch import Tensor

from srdd.core.tally import IS_MAX, WIDTH


def merged(a: Tensor, b: Tensor) -> Tensor:
    """Of tallies or stacks of them, [..., WIDTH]."""
    is_max = torch.tensor([*IS_MAX, *[False] * (WIDTH - len(IS_MAX))], device=a.device)
    total = torch.where(is_max, torch.maximum(a, b), a + b)
    total[..., -2:] = torch.where(b[..., -2:-1] > a[..., -2:-1], b[..., -2:], a[..., -2:])
    return total
