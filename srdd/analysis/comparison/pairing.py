"""Two reports side by side: which measurement of one belongs to which of the other, and the error of its change.

Not here: costs (costs.py), whether two reports may be compared (comparability.py), tables (changes.py) and limits
(gate.py).

The error of a change is that of the difference, not of two numbers: both reports saw the same sequences, and a hard
text is hard for both. So the same sequence is left out of both (jackknife of the difference, srdd.core.uncertainty).
Worked number: relative errors of two equal sequences 0.3, 0.5 before and 0.4, 0.6 after are 0.4 and 0.5, each with
standard error 0.1. The change is +0.1 in either sequence: its error is 0, where sqrt(0.1^2 + 0.1^2) would say 0.14.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from srdd.analysis.comparison.recalled import Recalled, RecalledReport
from srdd.core.student import critical
from srdd.core.uncertainty import jackknife
from srdd.documents.parts import Calibration, Kind, Place, same_sequences
from srdd.documents.schema import Measurement
from srdd.documents.summary import layer_rows

if TYPE_CHECKING:
    from srdd.analysis.layer_costs import Numbers
    from srdd.core.metrics import Metric
    from srdd.core.modes import Mode
    from srdd.documents.report import Report


By = Literal["layer", "module"]
_MANY = 10**6


@dataclass(frozen=True)
class Pair:
    """One decoder layer, or one site, in both reports."""

    kind: Place
    spec: str  # in the base
    new_spec: str
    layer: int | None
    name: str  # "layer 7" or the module's name
    base: Numbers
    new: Numbers
    order: tuple[int, ...] | None  # where the new report holds the base's units of text; None: they are not the same
    mode: Mode | None = None  # of costs
    scatter: float = 0.0  # of costs: the share of them that changed weights may move by nothing (srdd.core.position)

    def values(self, metric: str) -> tuple[float, float]:
        """Base and new; nan where not measured, +inf where exact."""
        return self.base.value(metric), self.new.value(metric)

    def change(self, metric: str) -> float:
        """New minus base; two exact copies differ by 0."""
        base, new = self.values(metric)
        return 0.0 if base == new else new - base

    def is_given(self, metric: Metric) -> bool:
        """True when a side knows the metric's error and no values by sequence, as the costs of version 1."""
        return any(
            not side.without_each(metric) and math.isfinite(side.error(metric.name)) for side in (self.base, self.new)
        )

    def replicates(self, metric: Metric, times: float = 1.0) -> list[float]:
        """The change with the first, the second, ... sequence left out of both; empty when not paired or not finite.

        Of a limit in percent it is new minus so many times the base.
        """
        before, after = self.base.without_each(metric), self.new.without_each(metric)
        if self.order is None or not len(self.order) == len(before) == len(after):
            return []
        changes = [after[place] - times * before[i] for i, place in enumerate(self.order)]
        return changes if all(map(math.isfinite, changes)) else []  # without the one sequence it is exact or undefined

    def error(self, metric: Metric, times: float = 1.0) -> float:
        """The standard error of the change, or of new minus `times` base; nan where there is none (weights, version 0).

        That of two samples where sequences are not the same, or not known one by one.
        """
        if replicates := self.replicates(metric, times):
            return jackknife(replicates)
        error = self.new.error(metric.name)
        before = error if self._forgot(metric) else self.base.error(metric.name)
        return math.hypot(times * before, error)

    def degrees(self, metric: Metric) -> int:
        """Degrees of freedom of that error: units left out less one; of two samples the smaller one's."""
        if replicates := self.replicates(metric):
            return len(replicates) - 1
        sides = (self.new,) if self._forgot(metric) else (self.base, self.new)
        counts = [len(side.without_each(metric)) for side in sides]
        return max(min(counts) - 1, 1) if all(counts) else _MANY  # errors that came as such, from who knows how many

    def _forgot(self, metric: Metric) -> bool:
        """True when a slim baseline kept the value and not its scatter, which is then taken to be the new report's."""
        return isinstance(self.base, Recalled) and not self.base.without_each(metric)


def within_noise(change: float, error: float, degrees: int) -> bool:
    """True when a change is no larger than chance makes one in twenty of; never without an error."""
    return not math.isnan(error) and abs(change) < critical(degrees, level=0.025) * error


def pairs(
    base: Report, new: Report, kind: Kind, spec: str, new_spec: str | None = None, *, by: By = "layer"
) -> list[Pair]:
    """Every layer of one kind that both have, merged over its sites, then every site outside the layers they share.

    By module: every site that both have, in the order of the report, none merged.
    """
    other = new_spec or spec
    a, b = measured(base, kind, spec, by), measured(new, kind, other, by)
    order = sequence_order(base.settings.calibration, new.settings.calibration)
    return [Pair(kind, spec, other, *key, before, b[key], order) for key, before in a.items() if key in b]


def measured(report: Report, kind: Kind, spec: str, by: By) -> dict[tuple[int | None, str], Measurement]:
    """Of one report by layer and name: every site, or every layer and the sites outside them."""
    if by == "module":
        return {
            (site.layer, site.name): site.formats[spec]
            for site in report.sites
            if site.kind == kind and spec in site.formats
        }
    if isinstance(report, RecalledReport):
        return _recalled(report, kind, spec)
    sites = [
        site.model_copy(update={"formats": {spec: site.formats[spec]}})
        for site in report.sites
        if site.kind == kind and spec in site.formats
    ]
    rows: dict[tuple[int | None, str], Measurement] = {
        (row.layer, f"layer {row.layer}"): row.formats[spec] for row in layer_rows(sites)
    }
    return {**rows, **{(None, site.name): site.formats[spec] for site in sites if site.layer is None}}


def _recalled(report: RecalledReport, kind: Kind, spec: str) -> dict[tuple[int | None, str], Measurement]:
    """Whole layers as they were kept, or the layer's only site."""
    sites = [site for site in report.sites if site.kind == kind and spec in site.formats]
    kept = report.by_layer.get((kind, spec))
    by_layer: dict[int, Measurement] = {site.layer: site.formats[spec] for site in sites if site.layer is not None}
    by_layer = by_layer if kept is None else {**kept}
    outside: dict[tuple[int | None, str], Measurement] = {
        (None, site.name): site.formats[spec] for site in sites if site.layer is None
    }
    return {**{(layer, f"layer {layer}"): row for layer, row in sorted(by_layer.items())}, **outside}


def sequence_order(a: Calibration | None, b: Calibration | None) -> tuple[int, ...] | None:
    """Where b holds the units of a, texts or single sequences; None where they are not the same."""
    if a is None or b is None or not same_sequences(a, b):
        return None
    places = {name: place for place, name in enumerate(b.unit_names)}
    return tuple(places[name] for name in a.unit_names) if places.keys() == set(a.unit_names) else None
