"""float64 for sums: on the tensor's own device, or on the CPU where the device has none (Apple's MPS).

Not here: the sums themselves. Tallies must not lose counts beyond float32's 2^24, so what a site leaves behind is held
in float64; a device without it hands its (small) partial sums over.

Worked number: float32 counts 16,777,216 + 1 = 16,777,216; float64 counts on.
"""

from __future__ import annotations

import torch
from torch import Tensor

LACKING = frozenset({"mps"})  # types of device without float64


def home(device: torch.device) -> torch.device:
    """Where float64 numbers about tensors of `device` live."""
    return torch.device("cpu") if device.type in LACKING else device


def to_float64(x: Tensor) -> Tensor:
    """`x` in float64 on its device's `home`."""
    return x.to(home(x.device)).double()
