"""Noise in a live model: apply, use, restore bit for bit.

While noise is on, the weights must not change: an optimizer that stepped on noisy weights would make the noise
permanent, so that is an error.

Not here: which step it is (trainers say so) and copies for other engines (stream.py).

Worked number: two weights of 576 values with sigma 0.05 and multipliers 1 and 1.2: measured standard deviations 0.05
and 0.06 within 3 % (one standard error of a standard deviation is 1 / sqrt(2 * 576)).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from srdd.documents.rin import RinConfig
from srdd.errors import NoiseError, SettingError
from srdd.kernels.precision import float64_device, to_float64
from srdd.noise.plan import NoisePlan
from srdd.noise.targets import Target

_MARK = "_srdd_noisy"  # on a parameter while it carries noise, seen by every injector


@dataclass(frozen=True)
class Touched:
    """One weight: the noise asked for and the noise that arrived after rounding to the weight's type."""

    name: str
    layer: int | None
    sigma: float  # asked for: sigma * multiplier, in the weight's units
    std: float  # measured: root mean square of noisy - clean
    values: int
    changed: int


@dataclass(frozen=True)
class Injection:
    """What one application did."""

    step: int
    total_steps: int
    sigma: float
    touched: tuple[Touched, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers with noise."""
        return tuple(sorted({row.layer for row in self.touched if row.layer is not None}))

    @property
    def changed_share(self) -> float:
        """The share of the touched values that really changed; below 1 when the weights' type rounds noise away."""
        return sum(row.changed for row in self.touched) / max(1, sum(row.values for row in self.touched))

    def __str__(self) -> str:
        head = f"step {self.step} of {self.total_steps}: sigma {self.sigma:.4g}"
        if not self.sigma:
            return f"{head}, a silent stage: no weight touched"
        return f"{head}, {len(self.touched)} weights in {len(self.layers)} layers, {self.changed_share:.1%} changed"


@dataclass
class _Kept:
    """A weight that carries noise: its clean copy, and two marks by which a change is noticed."""

    target: Target
    parameter: Tensor
    clean: Tensor
    version: int
    total: Tensor  # writes through .data, as some optimizers make, leave the version as it is


class Injector:
    """Adds noise to the weights of `model` as `config` (a RinConfig or the path of rin.yaml) says.

    Numbers depend on (seed, step, parameter name) alone. `evaluation="refuse"` makes noise on a model in evaluation
    mode an error; "allow" is for rollouts and probes. `rounding="refuse"` makes noise that the weights' type rounds
    away an error or a warning; "allow" leaves it to `Injection.changed_share`. Raises NoiseError when any part of the
    document would be lost.
    """

    def __init__(
        self,
        model: nn.Module,
        config: RinConfig | str | Path,
        *,
        seed: int = 0,
        evaluation: Literal["refuse", "allow"] = "refuse",
        rounding: Literal["refuse", "allow"] = "refuse",
    ) -> None:
        for name, value in (("evaluation", evaluation), ("rounding", rounding)):
            if value not in ("refuse", "allow"):
                raise SettingError(name, repr(value), "expected refuse or allow")
        self.model = model
        self.plan = NoisePlan(model, config, seed)
        self._evaluation = evaluation
        self._clean: list[_Kept] = []
        self._active = False
        if rounding == "refuse":
            self.plan.warn_of_rounding({t.name: _parameter(t) for t in self.plan.targets})

    @property
    def targets(self) -> tuple[Target, ...]:
        """The weights that noise reaches, those with multiplier 0 included."""
        return self.plan.targets

    @property
    def active(self) -> bool:
        """True between apply and restore."""
        return self._active

    def apply(self, step: int, total_steps: int) -> Injection:
        """Put the noise of `step` on the weights, until `restore`. On an error no weight has changed.

        Raises NoiseError when noise is already on, for a step outside the training, in evaluation, or on overflow.
        """
        if self._active:
            raise NoiseError("noise is already applied; call restore() first, or the noise of two steps would add up")
        if self._evaluation == "refuse" and not self.model.training:
            raise NoiseError(
                "the model is in evaluation mode, where noise is refused; call model.train(), or make the injector "
                'with evaluation="allow" for rollouts and probes'
            )
        sigma = self.plan.sigma(step, total_steps)
        self._active = True
        rows: list[tuple[Target, float, Tensor]] = []
        try:
            if sigma:
                for target in self.plan.targets:
                    self._touch(target, step, total_steps, rows)
            return Injection(step, total_steps, sigma, tuple(self._touched(rows, step)))
        except BaseException:
            self._put_back()
            raise

    def restore(self) -> None:
        """Take the noise off: every weight is again what it was, bit for bit.

        Raises NoiseError when no noise is on, or when a weight changed meanwhile (an optimizer stepped on noisy
        weights); the weights are then those from before `apply` and the step is lost.
        """
        if not self._active:
            raise NoiseError("no noise is applied; call apply() first")
        if changed := self._put_back():
            raise NoiseError(
                f"{changed[0]} and {len(changed) - 1} more changed while noise was on; restore before the optimizer "
                "steps (the weights are back to what they were before the noise, and that step is lost)"
            )

    @contextmanager
    def applied(self, step: int, total_steps: int) -> Iterator[Injection]:
        """Noise inside the block only; restored bit for bit, also after an exception."""
        injection = self.apply(step, total_steps)
        try:
            yield injection
        except BaseException:
            self._put_back()
            raise
        self.restore()

    def _touch(self, target: Target, step: int, total_steps: int, rows: list[tuple[Target, float, Tensor]]) -> None:
        parameter = _parameter(target)
        size = self.plan.scale(target, parameter, step, total_steps)
        if not size:
            return
        if hasattr(parameter, _MARK):
            raise NoiseError(f"{target.name} already carries the noise of another injector; restore that one first")
        noisy = self.plan.added(target, parameter, size, step)
        clean = parameter.detach().clone()
        kept = _Kept(target, parameter, clean, parameter._version, _sum(parameter))
        setattr(parameter, _MARK, True)
        self._clean.append(kept)  # before the weight changes: an interrupt in between must find it
        with torch.no_grad():
            parameter.copy_(noisy)
        kept.version, kept.total = parameter._version, _sum(parameter)
        moved = noisy.float() - clean.float()
        numbers = (to_float64(moved).square().sum(), (moved != 0).sum(), (~torch.isfinite(noisy)).sum())
        facts = torch.stack([to_float64(number) for number in numbers])
        rows.append((target, size, facts))

    def _touched(self, rows: list[tuple[Target, float, Tensor]], step: int) -> Iterator[Touched]:
        """What arrived at each weight. Raises NoiseError for one that is not finite."""
        facts = _on_host([facts for _, _, facts in rows])
        for (target, size, _), kept, (squares, changed, broken) in zip(rows, self._clean, facts, strict=True):
            if broken:
                raise self.plan.overflow(target, kept.clean, size, step)
            values = kept.clean.numel()
            yield Touched(target.name, target.layer, size, (squares / values) ** 0.5, values, int(changed))

    def _put_back(self) -> list[str]:
        """Restore what was touched; the names of the weights that somebody else changed."""
        others = _on_host([_sum(kept.parameter) != kept.total for kept in self._clean])
        changed = [
            kept.target.name
            for kept, other in zip(self._clean, others, strict=True)
            if other or kept.parameter._version != kept.version
        ]
        for kept in self._clean:
            with torch.no_grad():
                kept.parameter.copy_(kept.clean)
            delattr(kept.parameter, _MARK)
        self._clean.clear()
        self._active = False
        return changed


def _parameter(target: Target) -> Tensor:
    weight = getattr(target.module, target.attribute)
    if not isinstance(weight, Tensor):
        raise NoiseError(f"{target.name} is no tensor but {type(weight).__name__}")
    return weight


def _sum(weight: Tensor) -> Tensor:
    return weight.detach().to(float64_device(weight.device)).sum(dtype=torch.float64)


def _on_host(facts: list[Tensor]) -> list[Any]:
    """Small tensors of equal shape as Python values, waiting once for each device and not for each weight."""
    by_device: dict[torch.device, list[int]] = {}
    for index, fact in enumerate(facts):
        by_device.setdefault(fact.device, []).append(index)
    values: dict[int, Any] = {}
    for indices in by_device.values():
        values.update(zip(indices, torch.stack([facts[i] for i in indices]).tolist(), strict=True))
    return [values[index] for index in range(len(facts))]
