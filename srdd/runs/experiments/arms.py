"""The arms of the AQN experiment: treatments and controls, and which layers get noise in each.

Not here: running them (arm_trial.py). `targeted` takes the report's worst layers, `healthy` its best (the control that
a targeted gain must beat), `random` as many at random, drawn anew for every seed. All three use the sigma of `global`
on fewer layers, so they inject less noise in total; the document says how much.

Worked number: 30 layers, a quarter: 8 worst, 8 best, 8 random.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from srdd.errors import SettingError

# Compared in this order; the first name is expected to have the lower loss if guided noise helps.
PAIRS = (
    ("quantized", "clean"),
    ("global", "quantized"),
    ("targeted", "quantized"),
    ("healthy", "quantized"),
    ("random", "quantized"),
    ("targeted", "global"),
    ("targeted", "random"),
    ("targeted", "healthy"),
)
DITHER = "dither"


@dataclass(frozen=True)
class Arm:
    """A treatment. `layers(seed)` are those that get noise; None: no layer does."""

    name: str
    meaning: str
    quantized: bool
    layers: Callable[[int], Sequence[int]] | None
    dither: bool = False  # Gaussian noise on the hidden state right before the planted fault

    def noisy_layers(self, seed: int) -> list[int]:
        return [] if self.layers is None else list(self.layers(seed))


def make_arms(errors: Sequence[float], worst: int, *, fault: bool) -> list[Arm]:
    """Arms for layers 0 .. len(errors) - 1 with those errors, larger is worse. Raises SettingError."""
    count = len(errors)
    if not 1 <= worst <= count // 2:
        apart = f"expected 1 to {count // 2} of {count} layers, so that targeted and healthy stay apart"
        raise SettingError("worst", worst, apart)
    ranked = sorted(range(count), key=lambda layer: (-errors[layer], layer))
    bad, good = sorted(ranked[:worst]), sorted(ranked[-worst:])
    arms = [
        Arm("clean", "no quantization, no noise, no fault", False, None),
        Arm("quantized", "no noise", True, None),
        Arm("global", "noise on every layer and outside them", True, lambda seed: range(count)),
        Arm("targeted", f"noise on the {worst} layers with the largest error", True, lambda seed: bad),
        Arm("healthy", f"noise on the {worst} layers with the smallest error (control)", True, lambda seed: good),
        Arm(
            "random",
            f"noise on {worst} random layers, new for each seed (control)",
            True,
            lambda s: _drawn(s, count, worst),
        ),
    ]
    if fault:
        arms.append(Arm(DITHER, "noise on the hidden state right before the fault", True, None, dither=True))
    return arms


def pairs_of(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """The pairs of arms that are compared."""
    return [*PAIRS, (DITHER, "quantized")] if any(arm.dither for arm in arms) else list(PAIRS)


def _drawn(seed: int, count: int, number: int) -> list[int]:
    return sorted(random.Random(f"srdd random layers {seed}").sample(range(count), number))
