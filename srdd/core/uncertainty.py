"""Means and standard errors over calibration sequences: of a plain mean, and of metrics by the jackknife.

Weights have no such error. Sequences are the unit because tokens of one text are not independent.

With S sequences and m_i the metric of all tallies but the i-th: se = sqrt((S - 1) / S * sum (m_i - mean m)^2)
(Efron and Tibshirani 1993, ch. 11). It works for ratios of sums, where averaging per-sequence metrics would not.
Worked number: bias of three one-element sequences with e = 0, 1, 2 has m_i = 1.5, 1, 0.5 and se = 1/sqrt(3) = 0.577,
the textbook error of a mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean, stdev

from srdd.core.metrics import METRICS, Metric
from srdd.core.tally import IS_MAX, Tally


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean of one number per sequence (or seed), at least one, and its standard error; nan of a single number."""
    return fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def total(sequences: Sequence[Tally]) -> Tally:
    """The tallies of all sequences merged. Sums are rounded once (fsum), so that no order changes a bit."""
    return Tally.from_vector(total_vector([tally.vector() for tally in sequences])) if sequences else Tally()


def total_vector(vectors: Sequence[Sequence[float]]) -> list[float]:
    """The same for sums as lists, at least one."""
    columns = zip(*vectors, strict=True)
    return [max(column) if is_max else math.fsum(column) for column, is_max in zip(columns, IS_MAX, strict=True)]


def standard_error(metric: Metric, without: Sequence[Tally]) -> float:
    """The jackknife standard error of one metric from `leave_one_out`; nan where the metric is undefined or S < 2."""
    return jackknife([metric.of(tally) for tally in without])


def jackknife(replicates: Sequence[float]) -> float:
    """The standard error from a number's values with each sequence left out; nan with fewer than two or not finite."""
    count = len(replicates)
    if count < 2 or not all(math.isfinite(value) for value in replicates):
        return math.nan
    mean = math.fsum(replicates) / count
    return math.sqrt((count - 1) / count * math.fsum((m - mean) ** 2 for m in replicates))


def standard_errors(sequences: Sequence[Tally]) -> dict[str, float]:
    """The jackknife standard error of every metric; nan with fewer than two sequences or an undefined metric."""
    without = leave_one_out(sequences)
    return {metric.name: standard_error(metric, without) for metric in METRICS}


def leave_one_out(sequences: Sequence[Tally]) -> list[Tally]:
    """All sequences merged but the first, but the second, ...; empty with fewer than two."""
    if len(sequences) < 2:
        return []
    columns = list(zip(*(tally.vector() for tally in sequences), strict=True))
    rows = [_all_but_each(column, is_max) for column, is_max in zip(columns, IS_MAX, strict=True)]
    return [Tally.from_vector(vector) for vector in zip(*rows, strict=True)]


def _all_but_each(column: Sequence[float], is_max: bool) -> list[float]:
    """From the sums before and after each one: subtracting it from the total would cancel badly."""
    before = accumulate(column[:-1], max if is_max else None, initial=0.0)
    after = list(accumulate(column[:0:-1], max if is_max else None, initial=0.0))[::-1]
    if is_max:
        return [max(b, a) for b, a in zip(before, after, strict=True)]
    return [b + a for b, a in zip(before, after, strict=True)]
