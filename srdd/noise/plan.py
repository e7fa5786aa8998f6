"""What noise each target gets at a step: the one place where schedule, multipliers, seed and weights meet.

noisy = w + s * z in float32, rounded to the weight's own type; s = sigma * multiplier, times the root mean square of
the weight when `relative` (of 1 + w for norms that multiply by 1 + w).

Not here: where the noisy weight goes. injector.py writes it into a live model, stream.py into copies on their way to
another engine.

Worked number: sigma 0.05, multiplier 1.2, relative, a weight with root mean square 0.2: s = 0.05 * 1.2 * 0.2 = 0.012.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from pathlib import Path

import torch
from torch import Tensor, nn

from srdd.documents import schedule
from srdd.documents.rin import RinConfig, load_rin
from srdd.errors import NoiseError, NoiseWarning
from srdd.kernels.precision import to_float64
from srdd.models.modules import require_module
from srdd.noise.draw import changed_share, normal
from srdd.noise.targets import Target, find_targets, unit_offset

_SAMPLE = 1024  # values of a weight from which the effect of rounding is estimated
_FEW = 0.01  # share of moved weights below which noise has in effect ended


class NoisePlan:
    """A model's targets with their noise. Raises NoiseError as find_targets does, ReportError for a bad document."""

    def __init__(self, model: nn.Module, config: RinConfig | str | Path, seed: int) -> None:
        require_module(model)
        self.config = load_rin(config)
        self.seed = seed
        self.targets = find_targets(model, self.config)
        self._offsets = {t.name: unit_offset(t.module) for t in self.targets} if self.config.relative else {}

    def sigma(self, step: int, total_steps: int) -> float:
        """sigma of the schedule, before multipliers."""
        return schedule.sigma(self.config.schedule, step, total_steps)

    def scale(self, target: Target, weight: Tensor, step: int, total_steps: int) -> float:
        """The standard deviation of the target's noise, in the weight's own units."""
        factor = schedule.multiplier(self.config, target.layer, target.norm, step, total_steps)
        return self.sigma(step, total_steps) * factor * self._unit(target, weight)

    def noisy(self, target: Target, weight: Tensor, step: int, total_steps: int) -> Tensor:
        """A noisy copy of `weight`. Raises NoiseError for weights that cannot carry noise or overflow."""
        size = self.scale(target, weight, step, total_steps)
        noisy = self.added(target, weight, size, step)
        if not bool(torch.isfinite(noisy).all()):
            raise self.overflow(target, weight, size, step)
        return noisy

    def added(self, target: Target, weight: Tensor, size: float, step: int) -> Tensor:
        """The same for a known size, without looking at the result: looking waits for the device."""
        if not weight.is_floating_point():
            raise NoiseError(f"{target.name} is {weight.dtype}: noise needs floating-point weights, not packed codes")
        if weight.is_inference():  # such a tensor cannot tell whether an optimizer stepped on the noise
            raise NoiseError(f"{target.name} was made under torch.inference_mode(); open the model outside of it")
        if weight.is_meta or hasattr(weight, "device_mesh"):
            raise NoiseError(f"{target.name} is sharded or not loaded; add noise to the gathered copy (NoisyStream)")
        draw = normal(self.seed, step, target.name, weight.shape).to(weight.device)
        return (weight.detach().float() + size * draw).to(weight.dtype)

    def overflow(self, target: Target, clean: Tensor, size: float, step: int) -> NoiseError:
        """What to say of a noisy weight that is not finite."""
        was = "its noise overflows" if bool(torch.isfinite(clean).all()) else "it is not finite without noise"
        return NoiseError(f"{target.name}: {was} at step {step} (noise std {size:g}, {clean.dtype}); lower sigma")

    def warn_of_rounding(self, weights: dict[str, Tensor]) -> None:
        """Warn when the weights' type rounds the noise away. Raises NoiseError when it does so from the first stage on.

        A type's steps grow with the weight: bfloat16 near 1 cannot hold a change below 0.004.
        """
        levels = sorted({s.sigma for s in schedule.stretches(self.config.schedule, 1000) if s.sigma > 0}, reverse=True)
        sample = {name: some(weight) for name, weight in weights.items()}
        place = bisect_left(levels, True, key=lambda level: self._moved(sample, level) < _FEW)  # it falls with sigma
        if place == len(levels):
            return
        types = ", ".join(sorted({str(w.dtype).removeprefix("torch.") for w in weights.values()}))
        share = self._moved(sample, levels[place])
        what = f"at sigma {levels[place]:.3g} noise moves {share:.1%} of the {types} weights: rounding removes it"
        if place == 0:
            raise NoiseError(f"{what}, and this is the largest sigma; raise it or keep these weights in float32")
        warnings.warn(f"{what}; from there on the training is in effect without noise", NoiseWarning, stacklevel=3)

    def _moved(self, weights: dict[str, Tensor], sigma: float) -> float:
        moved = total = 0.0
        for target in self.targets:
            weight = weights[target.name]
            factor = schedule.multiplier(self.config, target.layer, target.norm, 0, 1) * self._unit(target, weight)
            if factor:
                moved += changed_share(weight, sigma * factor) * weight.numel()
                total += weight.numel()
        return moved / total if total else 0.0

    def _unit(self, target: Target, weight: Tensor) -> float:
        if not self.config.relative:
            return 1.0
        return float((to_float64(weight.detach()) + self._offsets[target.name]).square().mean().sqrt())


def some(weight: Tensor) -> Tensor:
    """Evenly spread values of a weight."""
    flat = weight.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // _SAMPLE)]
