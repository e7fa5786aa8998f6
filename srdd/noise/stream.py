"""Noise on weights that leave the trainer: copies on their way to a rollout engine (vLLM, SGLang).

The trainer's own weights stay clean, so nothing has to be restored and nothing can add up; the engine is pushed a fresh
copy at every synchronisation. Targets come from the trainer's model, whose names the stream carries.

The engine may hold weights in a coarser type than the trainer, bfloat16 against float32. `arrives_as` names that type:
noise is measured as it arrives there, and the first push tells from which sigma on rounding will remove it.

Not here: the engine (trl_push.py, verl_push.py).

Worked number: a push of 272 tensors to a rollout of SmolLM2 changes 61 (its norms) and passes 211 on as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from srdd.documents.rin import RinConfig
from srdd.errors import NoiseError
from srdd.kernels.precision import to_float64
from srdd.noise.draw import canonical
from srdd.noise.injector import Injection, Touched
from srdd.noise.plan import NoisePlan, some


class NoisyStream:
    """Adds a step's noise to the targets among named tensors. Raises NoiseError as Injector does."""

    def __init__(
        self,
        model: nn.Module,
        config: RinConfig | str | Path,
        *,
        seed: int = 0,
        arrives_as: torch.dtype | None = None,
    ) -> None:
        self.plan = NoisePlan(model, config, seed)
        self.arrives_as = arrives_as
        self.foreseen = False  # the effect of rounding, told at the end of the first push
        self.targets = {target.name: target for target in self.plan.targets}

    def begin(self, step: int, total_steps: int) -> Push:
        """A push of all weights at `step`: give it every tensor, then `finish()` it."""
        return Push(self, step, total_steps)

    def wrap(self, pairs: Iterable[tuple[str, Tensor]], step: int, total_steps: int) -> Iterator[tuple[str, Tensor]]:
        """All pairs with noise on the targets. Raises NoiseError at the end when a target never came by."""
        push = self.begin(step, total_steps)
        for name, tensor in pairs:
            yield name, push.tensor(name, tensor)
        push.finish()


class Push:
    """One synchronisation. A tensor that comes twice (once for its shape, once for its values) counts once."""

    def __init__(self, stream: NoisyStream, step: int, total_steps: int) -> None:
        self.sigma = stream.plan.sigma(step, total_steps)
        self._stream = stream
        self._step, self._total = step, total_steps
        self._seen: set[str] = set()
        self._touched: dict[str, Touched] = {}
        self._sample: dict[str, Tensor] = {}

    def tensor(self, name: str, tensor: Tensor) -> Tensor:
        """A noisy copy of a target; any other tensor itself. Raises NoiseError on overflow."""
        plain = canonical(name)
        target = self._stream.targets.get(plain)
        if target is None:
            return tensor
        self._seen.add(plain)
        if not self._stream.foreseen:
            self._sample[plain] = some(tensor).to(self._stream.arrives_as or tensor.dtype)
        plan, at = self._stream.plan, (self._step, self._total)
        size = plan.scale(target, tensor, *at) if self.sigma else 0.0
        if not size:
            return tensor
        noisy = plan.noisy(target, tensor, *at)
        kind = self._stream.arrives_as or noisy.dtype
        moved = noisy.to(kind).float() - tensor.detach().to(kind).float()
        std = float(to_float64(moved).square().mean().sqrt())
        self._touched[plain] = Touched(plain, target.layer, size, std, moved.numel(), int((moved != 0).sum()))
        return noisy

    def finish(self) -> Injection:
        """What was done. Raises NoiseError when a target never came by, or rounding removes even the largest sigma."""
        stream = self._stream
        if missing := sorted(stream.targets.keys() - self._seen):
            raise NoiseError(
                f"{len(missing)} of {len(stream.targets)} weights that should carry noise were not in the stream "
                f"({', '.join(missing[:3])}, ...); with unmerged LoRA only adapters are sent: merge them, or noise "
                "reaches nothing"
            )
        if not stream.foreseen:
            stream.plan.warn_of_rounding(self._sample)
            stream.foreseen = True
        return Injection(self._step, self._total, self.sigma, tuple(self._touched.values()))
