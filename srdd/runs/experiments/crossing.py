"""Where a curve that grows with sigma crosses a limit: bisection in log sigma, and an interval over seeds.

Not here: the curve. Every seed has a curve and a crossing of its own; the result is their geometric mean with
Student's 95 % interval on log sigma. The first crossing counts, since a dip at small sigma must not hide the break.

Worked number: crossings 0.02 and 0.03: geometric mean 0.0245, log spread 0.287, t(1) = 12.7: interval 0.0019 to 0.32.
Two seeds say little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from srdd.runs.experiments.paired_tests import half_width

NOT_REACHED, BELOW = "not reached", "below the smallest sigma"


def crossing(points: Sequence[tuple[float, float]], value: Callable[[float], float], steps: int) -> float | str:
    """The sigma where `value` crosses 0, to a factor 2^(1/2^steps) of a grid of doublings.

    `points` are (sigma, value) by rising sigma; nan counts as beyond the limit. NOT_REACHED when no point is beyond,
    BELOW when even an eighth of the smallest sigma is.
    """
    beyond = [not v < 0 for _, v in points]
    if True not in beyond:
        return NOT_REACHED
    first = beyond.index(True)
    high = points[first][0]
    low = points[first - 1][0] if first else high / 8
    if not first and not value(low) < 0:
        return BELOW
    for _ in range(steps):
        middle = math.sqrt(low * high)
        if value(middle) < 0:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def geometric(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Geometric mean and 95 % interval of one crossing per seed; no interval of one seed."""
    logs = [math.log(value) for value in values]
    middle = fmean(logs)
    if len(logs) < 2:
        return math.exp(middle), None
    wide = half_width(logs)
    return math.exp(middle), (math.exp(middle - wide), math.exp(middle + wide))
