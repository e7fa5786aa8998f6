"""Cutting a series into runs of equal level: exact dynamic programming, and how sure each cut is.

Not here: what the runs mean (zones.py). For every number of runs K the best cuts minimise the sum of squares around the
runs' means, RSS_K. K is the one with the least n log(RSS_K / n) + penalty (K - 1), as in Zhang and Siegmund (2007),
with a penalty found by simulation instead of theory, since n is small here: for white noise of 6 to 126 values and up
to six runs the 0.97 quantile of the largest gain per cut lies between 10.5 and 12.2, so with 12 + 24 / n white noise
stays whole in 97 of 100 series or more. Runs of fewer than three values on average are not tried: noise alone would
bring RSS_K close to 0.

Worked number: 1 1 1 1 5 5 5 5 with a floor of 0.1: RSS_1 = 32, RSS_2 = 0; 8 log((32 + 0.08) / 0.08) = 47.9 > 15, so
one cut before the fifth value.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import accumulate

VALUES_PER_RUN = 3
_DRAWS = 100
_SEED = 0


def cuts(values: Sequence[float], most: int, floor: float = 0.0) -> tuple[int, ...]:
    """Where new runs begin, at most `most` - 1 places; empty for a series without structure.

    `floor` is the standard deviation below which differences do not matter, in the unit of the values.
    """
    count = len(values)
    tried = _best(values, max(1, min(most, count // VALUES_PER_RUN)))
    whole = tried[0][0]
    if whole <= 0:
        return ()

    def score(runs: int) -> float:
        return count * math.log((tried[runs - 1][0] / count + floor**2) or 1e-300) + penalty(count) * (runs - 1)

    return tried[min(range(1, len(tried) + 1), key=score) - 1][1]


def penalty(count: int) -> float:
    """What one more cut must gain in a series of `count` values."""
    return 12 + 24 / count


def cuts_of(values: Sequence[float], runs: int) -> tuple[int, ...]:
    """The best cuts into exactly `runs` runs, or as many as there are values."""
    return _best(values, min(runs, len(values)))[-1][1]


def _best(values: Sequence[float], most: int) -> list[tuple[float, tuple[int, ...]]]:
    """For 1 to `most` runs: the least sum of squares and its cuts (the earliest of equals)."""
    count = len(values)
    middle = math.fsum(values) / count  # sums of squares around it do not cancel
    shifted = [value - middle for value in values]
    sums = list(accumulate(shifted, initial=0.0))
    squares = list(accumulate((value * value for value in shifted), initial=0.0))
    least = [0.0, *(squares[end] - sums[end] ** 2 / end for end in range(1, count + 1))]
    starts: list[list[int]] = []
    by_runs: list[tuple[float, tuple[int, ...]]] = [(max(least[count], 0.0), ())]
    for runs in range(2, most + 1):
        before, least = least, [math.inf] * (count + 1)
        start = [0] * (count + 1)
        for end in range(runs, count + 1):
            sum_end, square_end = sums[end], squares[end]
            best, where = math.inf, 0
            for cut in range(runs - 1, end):
                total = before[cut] + square_end - squares[cut] - (sum_end - sums[cut]) ** 2 / (end - cut)
                if total < best:
                    best, where = total, cut
            least[end], start[end] = best, where
        starts.append(start)
        by_runs.append((max(least[count], 0.0), _trace(starts, count)))
    return by_runs


def _trace(starts: Sequence[Sequence[int]], end: int) -> tuple[int, ...]:
    places = []
    for start in reversed(starts):
        end = start[end]
        places.append(end)
    return tuple(reversed(places))


def bootstrap(values: Sequence[float], left_out: Sequence[Sequence[float]]) -> list[list[float]]:
    """Series as other samples of the same sequences would give them; `left_out[i][s]` is value i without sequence s.

    A bootstrap over sequences, the same draw for all values because they come from the same text, linearised by the
    jackknife's influence values (Efron and Tibshirani 1993, ch. 20): a draw that holds sequence s w times moves value
    i by (w - 1) (S - 1) / S (mean_t left_out[i][t] - left_out[i][s]).
    """
    sequences = len(left_out[0])
    share = (sequences - 1) / sequences
    influences = []
    for row in left_out:
        middle = math.fsum(row) / sequences
        influences.append([share * (middle - value) for value in row])
    generator = random.Random(_SEED)
    series = []
    for _ in range(_DRAWS):
        drawn = generator.choices(range(sequences), k=sequences)
        weights = [drawn.count(s) - 1 for s in range(sequences)]
        moved = (math.fsum(w * i for w, i in zip(weights, row, strict=True)) for row in influences)
        series.append([value + move for value, move in zip(values, moved, strict=True)])
    return series


def redrawn(values: Sequence[float], errors: Sequence[float]) -> list[list[float]]:
    """Series as other samples might give them, where only each value's standard error is known.

    Values are redrawn from a normal distribution, each by itself. Those of one text rise and fall together, which moves
    no cut, so the shares of cuts kept come out too low rather than too high.
    """
    generator = random.Random(_SEED)
    pairs = list(zip(values, errors, strict=True))
    return [[generator.gauss(value, error) for value, error in pairs] for _ in range(_DRAWS)]


def kept_in_samples(places: Sequence[int], samples: Sequence[Sequence[float]]) -> list[float]:
    """For each cut the share of samples whose best cuts, as many of them, hold it too."""
    by_sample = [cuts_of(sample, len(places) + 1) for sample in samples]
    return [sum(place in best for best in by_sample) / len(by_sample) for place in places]


def kept_without_one(places: Sequence[int], values: Sequence[float]) -> list[float]:
    """For each cut the share of series with one value left out in which it still parts the same neighbours."""
    kept = [0] * len(places)
    for gone in range(len(values)):
        rest = [value for index, value in enumerate(values) if index != gone]
        cut_again = {place + (place >= gone) for place in cuts_of(rest, len(places) + 1)}
        for i, place in enumerate(places):
            # with its first value gone a run begins at the next one
            kept[i] += place in cut_again or (place == gone and place + 1 in cut_again)
    return [count / len(values) for count in kept]
