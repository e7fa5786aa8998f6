"""The precision that srdd computes in, whatever a caller has set: float32 by default, float64 where a device has it.

The package is written for torch's own defaults: new tensors are float32, on the CPU. A caller may have changed them for
the model's sake (`torch.set_default_dtype(torch.bfloat16)`, `torch.set_default_device("cuda")`), so what relies on them
runs inside these blocks, which restore the caller's. The default type belongs to the whole process: a thread that needs
another must not run meanwhile. Tensors that a caller gives keep their types and devices.

Worked number: counts packed as 1 and 2^11 in one float32 are exact; in bfloat16 2^11 + 1 is 2^11, a count lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

LACKING = frozenset({"mps"})  # types of device without float64


@contextmanager
def plain_dtype() -> Iterator[None]:
    """New tensors are float32 inside the block."""
    before = torch.get_default_dtype()
    if before == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def plain_defaults() -> Iterator[None]:
    """New tensors are float32 and on the CPU inside the block."""
    elsewhere = torch.get_default_device().type != "cpu"
    with plain_dtype(), torch.device("cpu") if elsewhere else nullcontext():
        yield


def float64_device(device: torch.device) -> torch.device:
    """Where float64 numbers about tensors of `device` are kept: there, or on the CPU when it has no float64."""
    return torch.device("cpu") if device.type in LACKING else device


def to_float64(x: Tensor) -> Tensor:
    """`x` in float64, on the `float64_device` of its device."""
    return x.to(float64_device(x.device)).double()
