"""Weights that are all zero or all the same value: what no error statistic tells, because it is quantized well.

Not here: shares of zeros, which are metrics (zero_ratio).

Worked number: 4 values of 0.5 have sum_x 2 and sum_x2 1: 4 * 1 = 2^2, so they are all the same.
"""

from __future__ import annotations

from srdd.core.tally import Tally

_ALIKE = 1e-12  # of n * sum_x2, which float64 sums round by


def dead_text(tally: Tally) -> str:
    """ "all zero" or "one value throughout"; "" for what lives."""
    if tally.n < 2 or tally.excluded:
        return ""
    if not tally.nonzero:
        return "all zero"
    spread = tally.n * tally.sum_x2 - tally.sum_x**2
    return "one value throughout" if spread <= _ALIKE * tally.n * tally.sum_x2 else ""
