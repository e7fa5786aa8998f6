"""Noise on weights, as rin.yaml says: in a live model, in copies on their way to a rollout engine, in trainers.

injector = Injector(model, "rin.yaml", seed=7)
with injector.applied(step, total_steps) as injection:
    loss = model(batch).loss          # the weights are w + N(0, (sigma * multiplier)^2)
# and here they are what they were, bit for bit

A new trainer is a new file: it tells an Injector (live weights) or a NoisyStream (copies) which step it is, and asks a
Record at the end whether the noise arrived. Noise that would reach nothing is an error, never a line in a log.

Not here: how the multipliers are found (srdd.analysis.multipliers), and rin.yaml and its schedule (srdd.documents).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srdd.noise.hf import RinCallback as RinCallback
    from srdd.noise.injector import Injection as Injection
    from srdd.noise.injector import Injector as Injector
    from srdd.noise.learning_rates import parameter_groups as parameter_groups
    from srdd.noise.learning_rates import set_layer_rates as set_layer_rates
    from srdd.noise.stream import NoisyStream as NoisyStream
    from srdd.noise.trl import attach as attach


# Resolved when first used (PEP 562): the schedule needs no torch.
_HOME = {
    "Injection": "srdd.noise.injector",
    "Injector": "srdd.noise.injector",
    "NoisyStream": "srdd.noise.stream",
    "RinCallback": "srdd.noise.hf",
    "attach": "srdd.noise.trl",
    "parameter_groups": "srdd.noise.learning_rates",
    "set_layer_rates": "srdd.noise.learning_rates",
}
__all__ = ["Injection", "Injector", "NoisyStream", "RinCallback", "attach", "parameter_groups", "set_layer_rates"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'srdd.noise' has no attribute {name!r}")
