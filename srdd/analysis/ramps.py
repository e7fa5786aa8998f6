"""A series without zones: level, ramp or bend, with noise in which each layer is like the one before.

A straight line or a parabola is fitted by generalized least squares under noise of persistence rho, profiled over
`RHOS`: L = n log(RSS / n) - log(1 - rho^2). A parabola counts only when it gains more than `BEND` over the line. A ramp
is told when it gains more than noise of any rho up to 0.9 does in 19 of 20 series (benchmarks/zones.py).

Not here: zones (segmentation.py) and the sentence (zone_words.py).

Worked number: 1 2 3 4 5 6 7 8 is the line 1 + t, RSS 0: it rises from 1 to 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

RHOS = (0.0, 0.2, 0.4, 0.6, 0.75, 0.87, 0.95)
BEND = 4.0  # what a parabola must gain over a line
_MIDDLE = (0.25, 0.75)  # a parabola that turns outside of these shares of the depth is a curved ramp

Shape = Literal["rises", "falls", "rises, then falls", "falls, then rises"]


@dataclass(frozen=True)
class Ramp:
    """A line or parabola through a series: its shape, its values at the ends, and where it turns (an index)."""

    shape: Shape
    first: float
    last: float
    turn: int | None = None
    at_turn: float | None = None


def without_zones(values: Sequence[float], floor: float) -> float:
    """The least L of a series without zones. `floor` as in segmentation.cuts."""
    _, line, bend = likelihoods(values, floor)
    return min(line, bend + BEND)


def likelihoods(values: Sequence[float], floor: float) -> tuple[float, float, float]:
    """L of a level, a line and a parabola, each at its best rho."""
    count = len(values)
    best = [math.inf] * 3
    for rho in RHOS:
        left = _residuals(values, rho)
        lost = math.log(1 - rho * rho)
        for degree, squares in enumerate(left):
            score = count * math.log((squares / count + floor**2) or 1e-300) - lost
            best[degree] = min(best[degree], score)
    return best[0], best[1], best[2]


def ramp_of(values: Sequence[float], floor: float = 0.0) -> Ramp | None:
    """The ramp or bend that a series of at least five values is; None where noise would give as much."""
    count = len(values)
    if count < 5:
        return None
    level, line, bend = likelihoods(values, floor)
    straight, curved = 10 + 24 / count, 15 + 36 / count  # gains that noise of rho 0.9 has in 1 of 20 series
    is_line = level - line > straight
    is_bend = level - bend > curved and (not is_line or line - bend > straight)
    if not is_line and not is_bend:
        return None
    fitted = _fitted(values, 2 if is_bend else 1)
    turn = max(range(count), key=fitted.__getitem__)
    if turn in (0, count - 1):
        turn = min(range(count), key=fitted.__getitem__)
    if is_bend and _MIDDLE[0] <= turn / (count - 1) <= _MIDDLE[1]:
        shape: Shape = "rises, then falls" if fitted[turn] > fitted[0] else "falls, then rises"
        return Ramp(shape, fitted[0], fitted[-1], turn, fitted[turn])
    return Ramp("rises" if fitted[-1] > fitted[0] else "falls", fitted[0], fitted[-1])


def _residuals(values: Sequence[float], rho: float) -> list[float]:
    """The sums of squares that a level, a line and a parabola leave under noise of persistence rho."""
    white = _whitened(values, rho)
    left, found = math.fsum(value * value for value in white), []
    for column in _basis(len(values), rho):
        part = math.fsum(map(float.__mul__, column, white))
        left -= part * part
        found.append(max(left, 0.0))
    return found


def _fitted(values: Sequence[float], degree: int) -> list[float]:
    """The least-squares polynomial at every place."""
    fitted = [0.0] * len(values)
    for column in _basis(len(values), 0.0)[: degree + 1]:
        part = math.fsum(map(float.__mul__, column, map(float, values)))
        fitted = [value + part * share for value, share in zip(fitted, column, strict=True)]
    return fitted


def _whitened(values: Sequence[float], rho: float) -> list[float]:
    return [math.sqrt(1 - rho * rho) * values[0], *(b - rho * a for a, b in pairwise(values))]


@lru_cache(maxsize=64)
def _basis(count: int, rho: float) -> tuple[list[float], ...]:
    """Level, line and parabola over `count` places, whitened, orthonormal (Gram and Schmidt, twice for rounding)."""
    scale = max(count - 1, 1) / 2
    columns: list[list[float]] = []
    for degree in range(3):
        column = _whitened([(place / scale - 1) ** degree for place in range(count)], rho)
        for _ in range(2):
            for other in columns:
                part = math.fsum(map(float.__mul__, other, column))
                column = [value - part * share for value, share in zip(column, other, strict=True)]
        length = math.sqrt(math.fsum(value * value for value in column)) or 1.0
        columns.append([value / length for value in column])
    return tuple(columns)
