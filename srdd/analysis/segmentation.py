"""Cutting a series into runs of equal level where its layers, each like the one before, would not look so by chance.

Neighbouring layers are alike (their values correlate at 0.5 to 0.9 in real models), and such noise wanders: to methods
for independent values it is full of steps. So every model here has noise of its own persistence rho, x_t = rho x_(t-1)
+ e_t, profiled over `RHOS`. Against K runs, by exact dynamic programming, stands a series without zones: level, ramp or
bend (ramps.py). With L = n log(RSS / n) - log(1 - rho^2) per run, smallest over rho, K runs are taken when
L_K + PENALTY (K - 1) is below the L of the series without zones and when they leave at most 0.8 / K of the variance
between layers unexplained: a zone is layers that differ less inside than from the rest. K + m runs are taken instead
of K on the same terms: a lower L, and at most 0.8 / (m + 1) of what the K left.

The penalty is from simulation: benchmarks/zones.py counts false cuts and steps found, and prints the table. Runs of
one layer are outliers (outlying.py) and are taken out before.

Not here: what the runs mean (zones.py), and how sure a cut is (resampling.py).

Worked number: 1 1 1 1 5 5 5 5 with a floor of 0.1: no level and no ramp has less than L = -0.3, two runs have RSS 0 and
L = 8 log 0.01 = -36.8; -36.8 + 11 < -0.3, so one cut before the fifth value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import add

from srdd.analysis.ramps import RHOS, without_zones

VALUES_PER_RUN = 3  # on average: noise alone would bring the RSS of more runs close to 0
SHORTEST = 2
PENALTY = 11.0  # what one more cut must gain
UNEXPLAINED = 0.8  # over the number of runs: the share of the variance that may lie inside them


def cuts(values: Sequence[float], most: int, floor: float = 0.0, tried: int = 0) -> tuple[int, ...]:
    """Where new runs begin, at most `most` - 1 places; empty for a series without zones.

    Whether there are zones is decided with up to `tried` runs where that is more: what takes three runs to tell from a
    ramp may be told in two. `floor` is the standard deviation below which differences do not matter, in the unit of
    the values.
    """
    count = len(values)
    limit = min(max(most, tried), count // VALUES_PER_RUN)
    if min(limit, most) < 2:
        return ()
    shifted = centred(values)
    whole = math.fsum(value * value for value in shifted)
    best: list[tuple[float, tuple[int, ...]]] = [(math.inf, ())] * (limit + 1)
    for rho in RHOS:
        lost = math.log(1 - rho * rho)
        for runs, (squares, places) in enumerate(best_runs(shifted, limit, rho, SHORTEST), 1):
            score = count * math.log((squares / count + floor**2) or 1e-300) - runs * lost + PENALTY * (runs - 1)
            best[runs] = min(best[runs], (score, places))
    score, inside, runs = without_zones(shifted, floor), whole, 1
    chosen: tuple[int, ...] = ()
    for more in range(2, limit + 1):
        left = _inside(shifted, best[more][1])
        if best[more][0] < score and left <= UNEXPLAINED / (more - runs + 1) * inside:
            (score, chosen), inside, runs = best[more], left, more
    return chosen if runs <= most else min(best[2 : most + 1])[1]


def cuts_of(values: Sequence[float], runs: int) -> tuple[int, ...]:
    """The best cuts into exactly `runs` runs of any length, or as many as there are values, by least squares alone."""
    return best_runs(centred(values), min(runs, len(values)), 0.0, 1)[-1][1]


def centred(values: Sequence[float]) -> list[float]:
    """The values less their mean: sums of squares around it do not cancel."""
    middle = math.fsum(values) / len(values)
    return [value - middle for value in values]


def _inside(values: Sequence[float], places: Sequence[int]) -> float:
    """The sum of squares of values around the means of their runs."""
    total = 0.0
    for start, end in pairwise([0, *places, len(values)]):
        middle = math.fsum(values[start:end]) / (end - start)
        total += math.fsum((value - middle) ** 2 for value in values[start:end])
    return total


def best_runs(values: Sequence[float], most: int, rho: float, shortest: int) -> list[tuple[float, tuple[int, ...]]]:
    """For 1 to `most` runs: the least sum of squares and its cuts (the earliest of equals).

    A run counts (1 - rho^2) (x_0 - m)^2 + sum (x_t - m - rho (x_(t-1) - m))^2 at its best level m: noise begins anew
    with every run, so that runs add up and the best cuts are exact.
    """
    count = len(values)
    first, later = 1 - rho * rho, 1 - rho
    steps = [0.0, *(b - rho * a for a, b in pairwise(values))]
    sums = [later * total for total in accumulate(steps, initial=0.0)]
    squares = list(accumulate((step * step for step in steps), initial=0.0))
    # a run from `start` to before `end` costs own[start] + squares[end] - (drawn[start] + sums[end])^2 / weight
    own = [first * value * value - square for value, square in zip(values, squares[1:], strict=True)]
    drawn = [first * value - total for value, total in zip(values, sums[1:], strict=True)]
    weights = [first + (length - 1) * later * later for length in range(count, 0, -1)]

    def costs(end: int) -> list[float]:
        """Of the runs that end before `end`, by their start."""
        square, total = squares[end], sums[end]
        starts = end - shortest + 1
        return [
            a + square - (b + total) ** 2 / weight
            for a, b, weight in zip(own[:starts], drawn, weights[count - end :], strict=False)
        ]

    # all runs are needed only where there is a level between the first and the last
    table = {end: costs(end) for end in (range(2 * shortest, count) if most > 2 else ())}
    table[count] = costs(count)
    least = [math.inf] * (count + 1)
    for end in range(shortest, count + 1):
        least[end] = own[0] + squares[end] - (drawn[0] + sums[end]) ** 2 / weights[count - end]
    found: list[tuple[float, tuple[int, ...]]] = [(max(least[count], 0.0), ())]
    traces: list[dict[int, int]] = []
    for runs in range(2, most + 1):
        before, least, trace = least, [math.inf] * (count + 1), {}
        lowest = (runs - 1) * shortest
        for end in range(runs * shortest, count + 1) if runs < most else (count,):
            totals = list(map(add, before[lowest : end - shortest + 1], table[end][lowest:]))
            least[end] = min(totals)
            trace[end] = lowest + totals.index(least[end])
        traces.append(trace)
        found.append((max(least[count], 0.0), _traced(traces, count)))
    return found


def _traced(traces: Sequence[dict[int, int]], end: int) -> tuple[int, ...]:
    places = []
    for trace in reversed(traces):
        end = trace[end]
        places.append(end)
    return tuple(reversed(places))
