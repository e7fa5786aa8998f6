"""Layers that stick out by themselves: beyond all their neighbours, by far more than layers differ from the next.

One such layer is no zone, and it would bend the means of the zones around it. Neighbours are the two on either side; at
an end also what a straight line through the next two would give there, so that the foot of a ramp does not stick out.
A layer beyond all of these by more than `FAR` times the median step from layer to layer is an outlier: Gaussian noise
gives one in 1 to 4 of 100 series (benchmarks/zones.py).

Not here: outliers among sites by the model's own median (srdd.core.verdicts).

Worked number: 1 2 1 2 9 2 1 2: steps 1 1 1 7 7 1 1, median 1; the fifth value is 9 - 2 = 7 > 4 beyond its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

FAR = 4.0
_FEWEST = 5  # values: of fewer, what is an outlier and what are the rest?


def outlying(values: Sequence[float], floor: float = 0.0) -> list[int]:
    """The places of outliers. Steps below `floor` count as `floor`, in the unit of the values."""
    if len(values) < _FEWEST:
        return []
    far = FAR * max(median(abs(b - a) for a, b in pairwise(values)), floor)
    found = []
    for place, value in enumerate(values):
        low, high = around(values, place)
        if max(value - high, low - value) > far:
            found.append(place)
    return found


def around(values: Sequence[float], place: int) -> tuple[float, float]:
    """The lowest and highest of what the neighbours of one of at least three values let expect there."""
    near = [*values[max(place - 2, 0) : place], *values[place + 1 : place + 3]]
    if place == 0:
        near.append(2 * values[1] - values[2])
    elif place == len(values) - 1:
        near.append(2 * values[-2] - values[-3])
    return min(near), max(near)
