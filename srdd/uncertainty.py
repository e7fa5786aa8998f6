"""Standard errors of metrics over calibration sequences, by the jackknife.

Not here: errors of weights, which have none. Sequences are the unit because tokens of one text are not independent.

With S sequences and m_i the metric of all tallies but the i-th: se = sqrt((S - 1) / S * sum (m_i - mean m)^2)
(Efron and Tibshirani 1993, ch. 11). It works for ratios of sums, where averaging per-sequence metrics would not.
Worked number: bias of three one-element sequences with e = 0, 1, 2 has m_i = 1.5, 1, 0.5 and se = 1/sqrt(3) = 0.577,
the textbook error of a mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from srdd.metrics import METRICS
from srdd.tally import IS_MAX, Tally


def total(sequences: Sequence[Tally]) -> Tally:
    """The tallies of all sequences merged, in order; the order fixes the last bit."""
    return sum(sequences, Tally())


def standard_errors(sequences: Sequence[Tally]) -> dict[str, float]:
    """The jackknife standard error of every metric; nan with fewer than two sequences or an undefined metric."""
    count = len(sequences)
    if count < 2:
        return {metric.name: math.nan for metric in METRICS}
    without = _leave_one_out(sequences)
    errors = {}
    for metric in METRICS:
        replicates = [metric.of(tally) for tally in without]
        if not all(math.isfinite(value) for value in replicates):
            errors[metric.name] = math.nan
            continue
        mean = math.fsum(replicates) / count
        errors[metric.name] = math.sqrt((count - 1) / count * math.fsum((m - mean) ** 2 for m in replicates))
    return errors


def _leave_one_out(sequences: Sequence[Tally]) -> list[Tally]:
    """Merge all but each one. Sums by subtraction would cancel badly, so prefix and suffix merges are used."""
    columns = list(zip(*(tally.vector() for tally in sequences), strict=True))
    rows = [_all_but_each(column, is_max) for column, is_max in zip(columns, IS_MAX, strict=True)]
    return [Tally.from_vector(vector) for vector in zip(*rows, strict=True)]


def _all_but_each(column: Sequence[float], is_max: bool) -> list[float]:
    before, after = [0.0], [0.0]
    for value in column[:-1]:
        before.append(max(before[-1], value) if is_max else before[-1] + value)
    for value in reversed(column[1:]):
        after.append(max(after[-1], value) if is_max else after[-1] + value)
    after.reverse()
    return [max(b, a) if is_max else b + a for b, a in zip(before, after, strict=True)]
