"""Student's t: how many standard errors a difference must have before chance is no longer an excuse.

Standard errors come from few documents, and many layers are looked at: a level of 5 % for the whole family of tests is
5 % / tests for each (Bonferroni), whatever depends on what.

Not here: standard errors (uncertainty.py) and verdicts. Written out because scipy takes longer to import than a whole
check; tests hold it equal to scipy's.

Worked number: one test at 5 %, 15 degrees of freedom, one side: 1.753; one of 1,000 tests: 5.239. Of a normal
distribution 1.645 and 3.891.
"""

from __future__ import annotations

import math
from functools import cache

FAMILY_LEVEL = 0.05  # the chance that a family of tests finds anything where nothing is


@cache
def critical(degrees: int, tests: int = 1, level: float = FAMILY_LEVEL) -> float:
    """Standard errors that one of `tests` one-sided tests must exceed; inf without degrees of freedom."""
    if degrees < 1:
        return math.inf
    wanted = level / max(tests, 1)
    low, high = 0.0, 1.0
    while tail(high, degrees) > wanted:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, degrees) > wanted else (low, middle)
    return high


def tail(t: float, degrees: int) -> float:
    """P(T > t) for t >= 0: half of the regularized incomplete beta function (Abramowitz and Stegun 26.7.1, 26.5.27)."""
    return 0.5 * _beta(degrees / (degrees + t * t), degrees / 2, 0.5)


def _beta(x: float, a: float, b: float) -> float:
    """I_x(a, b) by the continued fraction of Abramowitz and Stegun 26.5.8, where it converges fast, or its mirror."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(front) / a * _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """By Lentz's method (Thompson and Barnett 1986)."""
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    value = d
    for m in range(1, 400):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
