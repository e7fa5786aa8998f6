"""The random numbers: the same for a (seed, step, parameter), whatever the rank, device, wrapper or order.

Numbers are drawn on the CPU in float32 and then moved, so that a GPU and a CPU, or two kinds of GPU, agree. QeRL draws
from the device's global generator, so its replicas differ.

Not here: how large the noise is (plan.py).

Worked number: `normal(7, 3, "model.norm.weight", (4,))` is one fixed vector; with step 4 it is another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import torch
from torch import Tensor

# What wrappers put into names: DistributedDataParallel, torch.compile, FSDP, and PEFT with its kinds of layers.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer")


def canonical(name: str) -> str:
    """A parameter's name as the bare model has it, so that every wrapper of it draws the same."""
    name = re.sub(r"\.(original_module|modules_to_save\.[^.]+)\.", ".", name.removeprefix("base_model.model."))
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def normal(seed: int, step: int, name: str, shape: Sequence[int]) -> Tensor:
    """float32 on the CPU, N(0, 1). The generator's seed is the first 63 bits of SHA-256 over seed, step and name."""
    digest = hashlib.sha256("\0".join((str(seed), str(step), canonical(name))).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")


def changed_share(weights: Tensor, sigma: float) -> float:
    """The share of weights that noise of `sigma` is expected to move, given the steps of their type.

    A weight w moves when |z| * sigma passes half the step at w: P = erfc(step / (2 sqrt(2) sigma)). bfloat16 has steps
    of 2^-7 at 1, so sigma 0.0005 moves one weight of 10^14 there.
    """
    if sigma <= 0:
        return 0.0
    w = weights.detach().float().abs().clamp_min(torch.finfo(torch.float32).tiny)
    mantissa, exponent = torch.frexp(w)
    up = torch.ldexp(torch.full_like(w, torch.finfo(weights.dtype).eps), exponent - 1)
    down = torch.where(mantissa == 0.5, up / 2, up)  # below a power of two steps are half as wide
    shares = [torch.special.erfc(step / (2 * 2**0.5 * sigma)) / 2 for step in (up, down)]
    return float((shares[0] + shares[1]).mean())
