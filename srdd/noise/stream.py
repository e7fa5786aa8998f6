"""Noise on weights that leave the trainer: copies on their way to a rollout engine (vLLM, SGLang).

Not here: the engine. The trainer's own weights stay clean, so nothing has to be restored and nothing can add up; the
engine is pushed a fresh copy at every synchronisation. Targets come from the trainer's model, whose names the stream
carries.

Worked number: a push of 272 tensors to a rollout of SmolLM2 changes 61 (its norms) and passes 211 on as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor, nn

from srdd.errors import NoiseError
from srdd.noise.draw import canonical
from srdd.noise.plan import NoisePlan
from srdd.rin import RinConfig


class NoisyStream:
    """Adds a step's noise to the targets among named tensors. Raises NoiseError as Injector does."""

    def __init__(self, model: nn.Module, config: RinConfig | str | Path, *, seed: int = 0) -> None:
        self.plan = NoisePlan(model, config, seed)
        self._targets = {target.name: target for target in self.plan.targets}

    def tensor(self, name: str, tensor: Tensor, step: int, total_steps: int) -> Tensor:
        """A noisy copy of a target; any other tensor itself."""
        target = self._targets.get(canonical(name))
        if target is None or not self.plan.sigma(step, total_steps):
            return tensor
        return self.plan.noisy(target, tensor, step, total_steps)

    def wrap(self, pairs: Iterable[tuple[str, Tensor]], step: int, total_steps: int) -> Iterator[tuple[str, Tensor]]:
        """All pairs with noise on the targets. Raises NoiseError at the end when a target never came by."""
        missing = set(self._targets)
        for name, tensor in pairs:
            missing.discard(canonical(name))
            yield name, self.tensor(name, tensor, step, total_steps)
        self.check_complete(missing)

    def check_complete(self, missing: set[str]) -> None:
        """Raise NoiseError when targets (canonical names) are missing from a push that should have held them all."""
        if missing:
            some = ", ".join(sorted(missing)[:3])
            raise NoiseError(
                f"{len(missing)} of {len(self._targets)} weights that should carry noise were not in the stream "
                f"({some}, ...); with unmerged LoRA only adapters are sent: merge them, or noise reaches nothing"
            )
