"""sigma and the layers' multipliers at a step of the training.

`staged` is QeRL's schedule (arXiv 2510.11696 and its noise_scheduler.py): K equal intervals, the first silent, then
sigma_k = s0 * (s1 / s0)^(k / (K - 2)), k = 0 .. K - 2. Interval borders are exact fractions; QeRL divides in floating
point, which may put a step that falls exactly on a border one interval earlier (1 step of 1 in 10 stages does not reach
stage 10 there).

Worked number: 0.05 to 0.0005 in 10 stages over 29 steps: steps 0-2 silent, 3-5 0.05, 6-8 0.05 * 0.01^(1/8) = 0.0281,
..., 27-28 0.0005. With multiplier 1.2 a layer gets 0.06 in steps 3-5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral

from srdd.core.roles import Norm
from srdd.documents.rin import RinConfig, Schedule
from srdd.errors import NoiseError


@dataclass(frozen=True)
class Stretch:
    """Consecutive steps, `first` to `last` included, with one sigma."""

    first: int
    last: int
    sigma: float


def sigma(schedule: Schedule, step: int, total_steps: int) -> float:
    """The standard deviation of the noise at `step` (0 .. total_steps; the end counts as the last step).

    Raises NoiseError for a total below 1 or a step outside the training.
    """
    _check(step, total_steps)
    step = min(step, total_steps - 1)
    silent = warmup(schedule) * total_steps
    if step < silent:
        return 0.0
    if schedule.kind == "constant":
        return schedule.sigma_start
    if schedule.kind == "linear":
        first = -(-silent.numerator // silent.denominator)  # the first noisy step
        steps = total_steps - 1 - first
        share = (step - first) / steps if steps else 0.0
        return schedule.sigma_start + (schedule.sigma_end - schedule.sigma_start) * share
    values = levels(schedule)
    index = int((step - silent) * len(values) / (total_steps - silent))
    return values[min(index, len(values) - 1)]


def levels(schedule: Schedule) -> list[float]:
    """The sigmas of a staged schedule in order, without the silent one; the ends are exact."""
    assert schedule.num_stages is not None
    start, end, last = schedule.sigma_start, schedule.sigma_end, schedule.num_stages - 2
    return [*(start * (end / start) ** (k / last) for k in range(last)), end]


def warmup(schedule: Schedule) -> Fraction:
    """The silent share of the training, exact: 0.1 is a tenth and not the float next to it."""
    if schedule.warmup_share is not None:
        return Fraction(repr(schedule.warmup_share))
    return Fraction(1, schedule.num_stages) if schedule.num_stages else Fraction(0)


def multiplier(config: RinConfig, layer: int | None, norm: Norm | None, step: int, total_steps: int) -> float:
    """The factor on sigma of a module in `layer` (None: outside all layers) at `step`, phase included.

    `norm` is what a norm feeds, when it has multipliers of its own. Raises NoiseError for a layer without a value.
    """
    _check(step, total_steps)
    if layer is None:
        return config.outside_layers
    value = (config.norm_multipliers or {}).get(norm, {}).get(layer) if norm is not None else None
    value = config.layer_multipliers.get(layer) if value is None else value
    if value is None:
        raise NoiseError(f"layer {layer} has no multiplier; make rin.yaml from a report of this model")
    phase = [p for p in config.phases if Fraction(repr(p.from_share)) * total_steps <= step]
    return value * (phase[-1].layer_factors[layer] if phase else 1.0)


def stretches(schedule: Schedule, total_steps: int) -> Iterator[Stretch]:
    """The whole training as stretches of equal sigma."""
    first, current = 0, sigma(schedule, 0, total_steps)
    for step in range(1, total_steps):
        value = sigma(schedule, step, total_steps)
        if value != current:
            yield Stretch(first, step - 1, current)
            first, current = step, value
    yield Stretch(first, total_steps - 1, current)


def _check(step: int, total_steps: int) -> None:
    if not (isinstance(step, Integral) and isinstance(total_steps, Integral)):
        raise NoiseError(f"step {step!r} of {total_steps!r}: expected two integers, the trainer's own counters")
    if total_steps < 1:
        raise NoiseError(f"total_steps {total_steps}: expected 1 or more; without it the schedule has no end")
    if not 0 <= step <= total_steps:
        raise NoiseError(f"step {step} is outside the training of {total_steps} steps; pass the trainer's own counters")
