"""Means and standard errors over units of text: of a plain mean, and of metrics by the jackknife.

Weights have no such error, and a maximum has none: what a text not seen would hold at most is not told by leaving one
out. Not here: which sequences are one unit (units.py).

With U units and m_u the metric of all tallies but those of unit u: se = sqrt((U - 1) / U * sum (m_u - mean m)^2)
(Efron and Tibshirani 1993, ch. 11), to be read with U - 1 degrees of freedom. It works for ratios of sums, where
averaging metrics of units would not, and for units of unequal size: the sums above and below the line are drawn
together, a unit at a time. Weights by size (Busing, Meijer and van der Leeden 1999) take what stands in one unit for
independent, and give documents of unequal length errors that are too small.

Worked numbers: bias of three one-element sequences with e = 0, 1, 2 has m_u = 1.5, 1, 0.5 and se = 1/sqrt(3) = 0.577,
the textbook error of a mean. If the first two are of one document, m_u = 2, 0.5 and se = 0.75.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean
from typing import TypeVar

from srdd.core.blocks import Blocks, all_added, without, worst_of
from srdd.core.metrics import METRICS, Metric
from srdd.core.tally import IS_MAX, Tally

T = TypeVar("T")


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean of one number per unit (or seed), at least one, and its standard error; nan of a single number."""
    mean, count = fmean(values), len(values)
    if count < 2:
        return mean, math.nan
    # as statistics.stdev, which works with fractions and takes fifty times as long
    return mean, math.sqrt(math.fsum([(value - mean) ** 2 for value in values]) / (count - 1) / count)


def by_unit(values: Sequence[float], unit_of: Sequence[int] | None) -> list[float]:
    """One number per unit from one per sequence: their mean is that of all, their `mean_and_error` the jackknife's.

    They are centred pseudo-values, sums and differences of which are those of the values; differences of two runs are
    paired by them. `unit_of` is the unit of every sequence; None: each is its own, and stays as it is.
    """
    if unit_of is None:
        return list(values)
    mean, without = fmean(values), means_without_each(values, unit_of)
    if not without:
        return [mean]
    middle = fmean(without)
    return [mean + (len(without) - 1) * (middle - one) for one in without]


def means_without_each(values: Sequence[float], unit_of: Sequence[int] | None) -> list[float]:
    """The mean with the first, the second, ... unit left out; empty with fewer than two."""
    units = range(len(values)) if unit_of is None else unit_of
    count = len(set(units))
    if count < 2:
        return []
    members = [0] * count
    for unit in units:
        members[unit] += 1
    sums = _all_but_each(sums_by_unit(values, unit_of), is_max=False)
    return [of / (len(values) - left_out) for of, left_out in zip(sums, members, strict=True)]


def sums_by_unit(values: Sequence[float], unit_of: Sequence[int] | None) -> list[float]:
    """One sum per unit from one number per sequence."""
    return list(values) if unit_of is None else [math.fsum(of) for of in _members(values, unit_of)]


def tallies_by_unit(sequences: Sequence[Tally], unit_of: Sequence[int] | None) -> list[Tally]:
    """One tally per unit from one per sequence."""
    return list(sequences) if unit_of is None else [total(of) for of in _members(sequences, unit_of)]


def _members(values: Sequence[T], unit_of: Sequence[int]) -> list[list[T]]:
    units: list[list[T]] = [[] for _ in range(max(unit_of) + 1)]
    for value, unit in zip(values, unit_of, strict=True):
        units[unit].append(value)
    return units


def total(sequences: Sequence[Tally]) -> Tally:
    """The tallies of all sequences merged. Sums are rounded once (fsum), so that no order changes a bit."""
    if not sequences:
        return Tally()
    blocks = total_blocks([tally.blocks for tally in sequences])
    return Tally.from_vector(total_vector([tally.vector() for tally in sequences]), blocks)


def total_blocks(parts: Sequence[Blocks]) -> Blocks:
    """The counts of all parts together."""
    sqnr, scales, worst = ([getattr(part, name) for part in parts] for name in ("sqnr", "scales", "worst"))
    return Blocks(all_added(sqnr), all_added(scales), worst_of(worst))


def total_vector(vectors: Sequence[Sequence[float]]) -> list[float]:
    """The same for sums as lists, at least one."""
    columns = zip(*vectors, strict=True)
    return [max(column) if is_max else math.fsum(column) for column, is_max in zip(columns, IS_MAX, strict=True)]


def standard_error(metric: Metric, without: Sequence[Tally]) -> float:
    """The jackknife standard error of one metric from `leave_one_out`; nan of a maximum, an undefined one, or U < 2."""
    return math.nan if metric.of_maximum else jackknife([metric.of(tally) for tally in without])


def jackknife(replicates: Sequence[float]) -> float:
    """The standard error from a number's values with each unit left out; nan with fewer than two or not finite."""
    count = len(replicates)
    if count < 2 or not all(math.isfinite(value) for value in replicates):
        return math.nan
    mean = math.fsum(replicates) / count
    return math.sqrt((count - 1) / count * math.fsum((m - mean) ** 2 for m in replicates))


def standard_errors(units: Sequence[Tally]) -> dict[str, float]:
    """The jackknife standard error of every metric; nan with fewer than two units or an undefined metric."""
    without = leave_one_out(units)
    return {metric.name: standard_error(metric, without) for metric in METRICS}


def leave_one_out(units: Sequence[Tally]) -> list[Tally]:
    """All units merged but the first, but the second, ...; empty with fewer than two."""
    if len(units) < 2:
        return []
    columns = list(zip(*(tally.vector() for tally in units), strict=True))
    rows = [_all_but_each(column, is_max) for column, is_max in zip(columns, IS_MAX, strict=True)]
    whole = total_blocks([tally.blocks for tally in units])
    blocks = [without(whole, tally.blocks) for tally in units]
    return [Tally.from_vector(vector, left) for vector, left in zip(zip(*rows, strict=True), blocks, strict=True)]


def _all_but_each(column: Sequence[float], is_max: bool) -> list[float]:
    """From the sums before and after each one: subtracting it from the total would cancel badly."""
    before = accumulate(column[:-1], max if is_max else None, initial=0.0)
    after = list(accumulate(column[:0:-1], max if is_max else None, initial=0.0))[::-1]
    if is_max:
        return [max(b, a) for b, a in zip(before, after, strict=True)]
    return [b + a for b, a in zip(before, after, strict=True)]
