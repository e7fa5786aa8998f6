"""A planted hardware fault: a deadzone at the output of one decoder layer, with or without dither before it.

Not here: formats. Values below `deadzone` times the largest magnitude of their token become zero, as a unit with too
little resolution would do; the original study put noise before such a fault to carry small signals over the threshold.

Worked number: a token (1.0, 0.02, -0.005) with deadzone 0.01 becomes (1.0, 0.02, 0).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from srdd.errors import NoEffectError, SettingError
from srdd.models.stack import LayerStack, first


@dataclass(frozen=True)
class Fault:
    """Where, and below which share of a token's largest magnitude."""

    layer: int
    deadzone: float


def parse_fault(text: str) -> Fault:
    """`layer=10,deadzone=0.01`. Raises SettingError."""
    try:
        given = dict(part.split("=", 1) for part in text.split(","))
        fault = Fault(int(given.pop("layer")), float(given.pop("deadzone")))
    except (ValueError, KeyError):
        expected = "expected layer=N,deadzone=SHARE, e.g. layer=10,deadzone=0.01"
        raise SettingError("fault", repr(text), expected) from None
    if given or not 0 < fault.deadzone < 1 or fault.layer < 0:
        raise SettingError("fault", repr(text), "expected layer from 0 and deadzone between 0 and 1, nothing else")
    return fault


def check_fault(fault: Fault, layers: int) -> None:
    """Raises SettingError for a layer that a model of so many layers does not have."""
    if fault.layer >= layers:
        raise SettingError("fault", f"layer={fault.layer}", f"the model has layers 0 to {layers - 1}")


@contextmanager
def planted(model: nn.Module, fault: Fault, dither: float, seed: int) -> Iterator[None]:
    """The fault until the block ends. `dither` is the noise before it, in units of each token's root mean square.

    Raises SettingError for a layer that the model does not have, NoEffectError for one that never ran.
    """
    stack = LayerStack(model)
    check_fault(fault, len(stack))
    generator = torch.Generator().manual_seed(seed)
    calls = 0

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        h = first(output)
        if dither:
            noise = torch.randn(h.shape, generator=generator, dtype=torch.float32, device="cpu").to(h)
            h = h + dither * h.detach().square().mean(-1, keepdim=True).sqrt() * noise
        return _with_first(output, dead(h, fault.deadzone))

    handle = stack.layers[fault.layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if not calls:
        raise NoEffectError("fault", f"on layer {fault.layer}, which never ran")


def dead(h: Tensor, share: float) -> Tensor:
    """h with everything below `share` of its token's largest magnitude set to zero."""
    magnitude = h.abs()
    return torch.where(magnitude < share * magnitude.amax(-1, keepdim=True), torch.zeros_like(h), h)


def _with_first(output: Any, h: Tensor) -> Any:
    return (h, *output[1:]) if isinstance(output, tuple) else h
