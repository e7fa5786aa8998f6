"""torch's defaults as this package is written for: new tensors are float32 on the CPU unless said otherwise.

Not here: the tensors a caller gives; their types and devices are kept. A caller may have changed the defaults for the
model's sake (`torch.set_default_dtype(torch.bfloat16)`, `torch.set_default_device("cuda")`); they are as before after
the block. The default type is one for the whole process, so a thread that needs another must not run meanwhile.

Worked number: counts packed as 1 and 2^11 in one float32 are exact; in bfloat16 2^11 + 1 is 2^11, a count lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor


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
    """The same, and on the CPU."""
    elsewhere = torch.get_default_device().type != "cpu"
    with plain_dtype(), torch.device("cpu") if elsewhere else nullcontext():
        yield


LACKING = frozenset({"mps"})  # types of device without float64


def home(device: torch.device) -> torch.device:
    """Where float64 numbers about tensors of `device` live."""
    return torch.device("cpu") if device.type in LACKING else device


def to_float64(x: Tensor) -> Tensor:
    """`x` in float64 on its device's `home`."""
    return x.to(home(x.device)).double()
