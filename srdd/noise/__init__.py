"""Noise on weights as `rin.yaml` says: schedule, targets, injector, weight streams and the trainers that use them.

injector = Injector(model, "rin.yaml", seed=7)
with injector.applied(step, total_steps) as injection:
    loss = model(batch).loss          # weights are w + N(0, (sigma * multiplier)^2)
# here they are what they were, bit for bit
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srdd.noise.injector import Injection as Injection
    from srdd.noise.injector import Injector as Injector
    from srdd.noise.stream import NoisyStream as NoisyStream

# Resolved when first used (PEP 562): the schedule needs no torch.
_HOME = {
    "Injection": "srdd.noise.injector",
    "Injector": "srdd.noise.injector",
    "NoisyStream": "srdd.noise.stream",
}
__all__ = ["Injection", "Injector", "NoisyStream"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'srdd.noise' has no attribute {name!r}")
