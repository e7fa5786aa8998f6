"""What changed between two reports, and what drifts over several: per layer and per zone, largest change first.

Not here: which reports may be compared and the standard errors of changes (pairing.py), verdicts (gate.py), tables.
A change is new minus base in the metric's own unit. A zone's value is the mean over its layers, each counting the same;
its standard error is the jackknife of that mean, so that layers that rise and fall together do not count as
independent.

Worked number: SQNR of two layers 20 and 20 dB before, 20 and 17 dB after: changes -3 (layer 1, first) and 0; the zone
"0-1" changed by -1.5. Three reports with 20, 19, 18 dB drift by -1 dB a report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from srdd.analysis.comparison.costs import by_cost, cost_pairs, cost_spec_of, shared_mode
from srdd.analysis.comparison.pairing import Pair, pairs, within_noise
from srdd.analysis.series import choose_kinds, choose_spec
from srdd.core.layers import span, thirds
from srdd.core.metrics import MAIN, RANKED, Metric, any_metric
from srdd.core.uncertainty import jackknife
from srdd.documents.comparison import Comparison, Difference, Drift, DriftTable
from srdd.documents.parts import KINDS, Kind, Place
from srdd.documents.report import Report
from srdd.errors import ReportError, SettingError

_Row = TypeVar("_Row", Difference, Drift)


@dataclass(frozen=True)
class _Group:
    """Pairs whose mean is compared; a layer is a group of one."""

    name: str
    layers: list[int]
    members: list[Pair]

    def values(self, metric: Metric) -> tuple[float, float]:
        columns = zip(*(pair.values(metric.name) for pair in self.members), strict=True)
        base, new = (fmean(column) for column in columns)
        return base, new

    def replicates(self, metric: Metric) -> list[float]:
        rows = [pair.replicates(metric) for pair in self.members]
        same = len({len(row) for row in rows}) == 1
        return [fmean(column) for column in zip(*rows, strict=True)] if same else []

    def error(self, metric: Metric) -> float:
        if len(self.members) == 1:
            return self.members[0].error(metric)
        if replicates := self.replicates(metric):
            return jackknife(replicates)
        if all(pair.is_given(metric) for pair in self.members):  # at most this, if layers rise and fall together
            return fmean(pair.error(metric) for pair in self.members)
        return math.nan

    def degrees(self, metric: Metric) -> int:
        replicates = self.replicates(metric)
        return len(replicates) - 1 if replicates else min(pair.degrees(metric) for pair in self.members)


def compare(
    base: Report,
    new: Report,
    kind: Place,
    spec: str,
    metric: Metric | str,
    *,
    new_spec: str | None = None,
    zones: Mapping[str, Sequence[int]] | None = None,
) -> Comparison:
    """The differences of one metric; a cost is of whole layers, whatever the kind.

    `zones` maps names to layers; by default thirds of the depth.

    Call `comparability.comparable` first: reports of other models or texts are not refused here. Raises SettingError
    for a kind, format or metric that a report has not, ReportError for reports with nothing in common.
    """
    metric = _metric_of(metric)
    if by_cost(metric, base, new):
        specs = (cost_spec_of(base, spec), cost_spec_of(new, new_spec or spec))
        return compare_pairs(cost_pairs(base, new, *specs), metric, zones)
    known = _kind_of(base, kind)
    spec, new_spec = _spec_of(base, kind, spec), _spec_of(new, kind, new_spec or spec)
    return compare_pairs(pairs(base, new, known, spec, new_spec), metric, zones)


def compare_pairs(
    paired: Sequence[Pair], metric: Metric, zones: Mapping[str, Sequence[int]] | None = None
) -> Comparison:
    """As `compare`, for pairs already made: merging layers takes longer than computing any metric of them."""
    if not paired:
        raise ReportError("the two reports have no layer and no site in common; compare two scans of one model")
    layers, outside, groups = _grouped(paired, zones)
    return Comparison(
        kind=paired[0].kind,
        base_format=paired[0].spec,
        new_format=paired[0].new_spec,
        mode=paired[0].mode,
        metric=metric.name,
        unit=metric.unit,
        layers=_sorted([_difference(group, metric) for group in layers]),
        outside=_sorted([_difference(group, metric) for group in outside]),
        zones=_sorted([_difference(group, metric) for group in groups]),
    )


def largest_first(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Those with the largest change beyond noise first, else with the largest; equals in the order given."""

    def size(comparison: Comparison) -> tuple[float, float]:
        changes = [(abs(row.change), row.within_noise) for row in comparison.measured]
        beyond = max((change for change, noise in changes if not noise), default=0.0)
        return beyond, max((change for change, _ in changes), default=0.0)

    return sorted(comparisons, key=size, reverse=True)


def compare_main(base: Report, new: Report, kind: Kind, spec: str, new_spec: str) -> list[Comparison]:
    """The main metrics of one kind and format, each as `compare` gives it."""
    found = pairs(base, new, kind, spec, new_spec)
    return [compare_pairs(found, RANKED[name]) for name in MAIN]


def drift(
    reports: Sequence[Report],
    kind: Place,
    spec: str,
    metric: Metric | str,
    *,
    zones: Mapping[str, Sequence[int]] | None = None,
) -> DriftTable:
    """The drift of one metric over reports in the order given, two or more of them. Raises as `compare`."""
    if len(reports) < 2:
        raise SettingError("reports", len(reports), "a drift needs two or more")
    metric, mode = _metric_of(metric), None
    if by_cost(metric, *reports):
        spec = {cost_spec_of(report, spec) for report in reports}.pop()
        mode = shared_mode(reports, [spec] * len(reports))
        paired = [cost_pairs(reports[0], report, spec, mode=mode) for report in reports]
        kind = "layer"
    else:
        spec = {_spec_of(report, kind, spec) for report in reports}.pop()
        paired = [pairs(reports[0], report, _kind_of(report, kind), spec) for report in reports]
    steps = [_grouped(each, zones) for each in paired]
    layers, outside, groups = (
        _sorted([_drift(list(column), metric) for column in zip(*part, strict=True)])
        for part in zip(*steps, strict=True)
    )
    return DriftTable(
        kind=kind,
        format=spec,
        mode=mode,
        metric=metric.name,
        unit=metric.unit,
        layers=layers,
        outside=outside,
        zones=groups,
    )


def _spec_of(report: Report, kind: Place, spec: str) -> str:
    """The format's name as the report has it, "mxfp4:even" for "mxfp4". Raises SettingError."""
    _kind_of(report, kind)
    return choose_spec(report, spec)


def _kind_of(report: Report, kind: Place) -> Kind:
    """The kind, of which the report has sites. Raises SettingError."""
    if kind == "layer" or kind not in KINDS or kind not in choose_kinds(report, kind):
        raise SettingError("kind", kind, f"expected one of {', '.join(KINDS)}")
    return kind


def _metric_of(metric: Metric | str) -> Metric:
    return metric if isinstance(metric, Metric) else any_metric(metric)


def _grouped(
    paired: Sequence[Pair], zones: Mapping[str, Sequence[int]] | None
) -> tuple[list[_Group], list[_Group], list[_Group]]:
    """Layers, sites outside them, and zones. Raises SettingError for a zone that holds no layer."""
    by_layer = {pair.layer: pair for pair in paired if pair.layer is not None}
    layers = [_Group(pair.name, [layer], [pair]) for layer, pair in by_layer.items()]
    outside = [_Group(pair.name, [], [pair]) for pair in paired if pair.layer is None]
    groups = []
    for name, wanted in (thirds(list(by_layer)) if zones is None else zones).items():
        held = [layer for layer in wanted if layer in by_layer]
        if not held:
            raise SettingError("zones", name, f"holds no layer; compared are {span(list(by_layer)) or 'none'}")
        groups.append(
            _Group(f"{name} ({span(held)})" if name != span(held) else name, held, [by_layer[i] for i in held])
        )
    return layers, outside, groups


def _difference(group: _Group, metric: Metric) -> Difference:
    base, new = group.values(metric)
    change = 0.0 if base == new else new - base
    error = group.error(metric)
    return Difference(
        name=group.name,
        layers=group.layers,
        base=base,
        new=new,
        change=change,
        standard_error=error,
        within_noise=within_noise(change, error, group.degrees(metric)),
        worse=worse(metric, change),
    )


def _drift(steps: Sequence[_Group], metric: Metric) -> Drift:
    """`steps[i]` pairs the first report with report i, so that the first pairs with itself."""
    values = [group.values(metric)[1] for group in steps]
    middle = (len(values) - 1) / 2
    weights = [place - middle for place in range(len(values))]
    scale = math.fsum(w * w for w in weights)
    rows = [group.replicates(metric) for group in steps]
    slopes = []
    if len({len(row) for row in rows}) == 1:  # the slope of the changes since the first is that of the values
        slopes = [
            math.fsum(w * c for w, c in zip(weights, col, strict=True)) / scale for col in zip(*rows, strict=True)
        ]
    change = 0.0 if values[0] == values[-1] else values[-1] - values[0]
    error = steps[-1].error(metric)
    finite = all(map(math.isfinite, values))
    return Drift(
        name=steps[0].name,
        layers=steps[0].layers,
        values=values,
        change=change,
        standard_error=error,
        slope=math.fsum(w * v for w, v in zip(weights, values, strict=True)) / scale if finite else math.nan,
        slope_error=jackknife(slopes),
        within_noise=within_noise(change, error, steps[-1].degrees(metric)),
        worse=worse(metric, change),
    )


def worse(metric: Metric, change: float) -> bool | None:
    """Whether a change is for the worse; None when there is none or the metric has no better side."""
    if metric.better is None or math.isnan(change) or change == 0:
        return None
    return (change < 0) == (metric.better == "up")


def _sorted(rows: list[_Row]) -> list[_Row]:
    return sorted(rows, key=lambda row: math.inf if math.isnan(row.change) else -abs(row.change))


def error_notes(names: Sequence[str], reports: Sequence[Report]) -> list[str]:
    """Every error a report warns of (NaN or infinite values), with the report's name, each once."""
    texts = [
        f"{name}: {note}"
        for name, report in zip(names, reports, strict=True)
        for note in report.warnings
        if note.level == "error"
    ]
    return list(dict.fromkeys(texts))
