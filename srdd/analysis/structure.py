"""What a series of layers is made of: outlier layers, then either zones or, without any, a ramp or nothing.

Not here: the three searches (outlying.py, segmentation.py, ramps.py) and what zones mean (zones.py). Outliers are taken
out before the rest is looked at; between two runs, one belongs to the run before it.

Worked number: 1 2 1 9 1 2 5 6 5 6 5 6 has the outlier 9 at place 3 and a cut before place 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from srdd.analysis.outlying import outlying
from srdd.analysis.ramps import Ramp, ramp_of
from srdd.analysis.segmentation import cuts


@dataclass(frozen=True)
class Structure:
    """Places in a series: where runs begin, which values stick out, and the ramp where nothing begins."""

    cuts: tuple[int, ...] = ()
    outliers: tuple[int, ...] = ()
    ramp: Ramp | None = None


def structure_of(values: Sequence[float], most: int, floor: float = 0.0, tried: int = 0) -> Structure:
    """Of at most `most` runs. `floor` and `tried` as in segmentation.cuts."""
    out = outlying(values, floor)
    kept = [place for place in range(len(values)) if place not in out]
    found = tuple(kept[place] for place in cuts([values[place] for place in kept], most, floor, tried))
    if found or most < 2 or not kept:  # with one run zones were not looked for
        return Structure(found, tuple(out))
    return Structure((), tuple(out), ramp_of(_bridged(values, kept), floor))


def _bridged(values: Sequence[float], kept: Sequence[int]) -> list[float]:
    """The values with straight lines, or at an end the nearest value, in place of those not kept."""
    bridged = list(values)
    for place in range(len(values)):
        before = max((k for k in kept if k <= place), default=kept[0])
        after = min((k for k in kept if k >= place), default=kept[-1])
        share = (place - before) / (after - before) if after > before else 0.0
        bridged[place] = values[before] + share * (values[after] - values[before])
    return bridged
