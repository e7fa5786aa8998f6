"""One metric along the layers of a model: what zones, multipliers and advice are made from.

Not here: sums and metrics (srdd.core). A series has a number for every layer or does not exist: a layer that lacks
one is an error that names it, never a silent default.

Worked number: sqnr_db 20 as an error is 10^(-20/20) = 0.1, the ratio of noise to signal in amplitude; relative_error
0.1 is 0.1 itself. `errors` gives every metric in this form, larger is worse, so that ratios of layers mean something.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from srdd.analysis.layer_costs import Numbers, Priced, cost_specs, main_cost, needs_costs, priced_layers
from srdd.analysis.sensitivities import by_layer
from srdd.core.formats import parse
from srdd.core.metrics import COSTS, NOISE_SENSITIVITY, Metric, as_error, choose_metric
from srdd.core.modes import Mode, mode_title
from srdd.documents.parts import KINDS, Calibration, Kind, MadeFrom, Model, Place
from srdd.documents.report import Report
from srdd.documents.rin import Target
from srdd.documents.schema import Site
from srdd.documents.summary import layer_rows
from srdd.errors import NoEffectError, ReportError, SettingError, setting

Made = TypeVar("Made", bound=MadeFrom)
_STATISTIC = "relative_error"  # ranks where no cost is known


@dataclass(frozen=True)
class Series:
    """`measurements[i]` belongs to layer `layers[i]`; layers ascend and may have gaps."""

    kind: Place
    spec: str
    metric: Metric
    layers: tuple[int, ...]
    measurements: tuple[Numbers, ...]
    depth: int  # layers of the whole model, measured or not
    mode: Mode | None = None  # of a cost
    documents: tuple[int, ...] = ()  # of every calibration sequence the document it is from; empty: not known

    @property
    def values(self) -> list[float]:
        """The metric of every layer, in its own unit."""
        return [m.value(self.metric.name) for m in self.measurements]

    @property
    def standard_errors(self) -> list[float]:
        """Over units of text; nan where a layer has none (weights, version 0)."""
        return [m.error(self.metric.name) for m in self.measurements]

    @property
    def errors(self) -> list[float]:
        """The values as errors: positive, larger is worse, on a scale where a ratio means something."""
        return [as_error(self.metric, value) for value in self.values]

    @property
    def title(self) -> str:
        """ "predicted_kl of layers under mxfp4:even W4A4", "relative_error of output sites under mxfp4:even"."""
        if not self.spec:
            return f"{self.metric.name} of layers"
        of = "layers" if self.mode else f"{self.kind} sites"
        mode = f" {mode_title(self.mode, self.spec)}" if self.mode else ""
        return f"{self.metric.name} of {of} under {self.spec}{mode}"

    def made(self, kind: type[Made], model: Model, report_sha256: str = "", **more: Any) -> Made:
        """The provenance of a document that is made from this series of a report."""
        metric, mode = self.metric.name, self.mode
        return kind.of(
            model, spec=self.spec, kind=self.kind, metric=metric, report_sha256=report_sha256, mode=mode, **more
        )


def choose_kinds(report: Report, kind: str | None) -> list[Kind]:
    """The kinds of site a report has, or the one asked for, also in the plural ("outputs").

    Raises SettingError when the report lacks it, ReportError for a report without sites.
    """
    present = [known for known in KINDS if any(site.kind == known for site in report.sites)]
    if not present:
        raise ReportError("the report is empty: it has no sites; scan again")
    kinds = present if kind is None else [known for known in present if known == kind.rstrip("s")]
    if not kinds:
        raise SettingError("kind", kind, f"the report has {', '.join(present)}")
    return kinds


def choose_kind(report: Report, kind: str | None) -> Kind:
    """The kind asked for, else outputs (what a layer passes on), inputs, weights. Raises as `choose_kinds`."""
    kinds = choose_kinds(report, kind)
    return next(known for known in reversed(KINDS) if known in kinds)


def choose_specs(report: Report, formats: str | None) -> list[str]:
    """The formats of a report, or those of a comma list. Raises SettingError when the report lacks one."""
    return _specs(report, formats, "formats")


def choose_spec(report: Report, spec: str | None) -> str:
    """The format asked for, else the report's first. Raises SettingError when the report lacks it."""
    return _specs(report, spec, "spec")[0]


def _specs(report: Report, formats: str | None, name: str) -> list[str]:
    known = report.settings.formats
    if formats is None:
        return known
    specs = []
    for text in formats.split(","):
        spec = text if text in known else parse(text).spec
        if spec not in known:
            raise SettingError(name, text, f"the report has {', '.join(known)}")
        specs.append(spec)
    return specs


def layer_series(
    report: Report,
    kind: str | None = None,
    spec: str | None = None,
    metric: str | None = None,
    mode: str | None = None,
) -> Series:
    """One number for every layer: what it costs where that is known, else an error statistic.

    Without `metric` that is predicted_kl, and in a report without costs, or of sites of a kind that was asked for,
    relative_error. `mode` is that of a cost, by name or as "w4a4": by default weights and inputs, else the last
    measured. `kind` is that of a statistic: by default outputs, inputs or weights, the first there is.

    Raises SettingError for what the report lacks, NoEffectError for `mode` of a statistic and `kind` of a cost,
    ReportError when the report has no layers or a layer has no finite number.
    """
    if metric == NOISE_SENSITIVITY.name:
        unused = [name for name, value in (("kind", kind), ("spec", spec), ("mode", mode)) if value is not None]
        if unused:
            raise NoEffectError(unused, f"on {metric}, which is the model's own")
        return noise_series(report)
    priced = _ranking_spec(report, kind, spec, metric)
    if priced is not None:
        return cost_series(report, priced, metric, mode)
    if mode is not None:
        raise NoEffectError("mode", f"on {metric or _STATISTIC}, which is no cost")
    chosen, chosen_spec = choose_kind(report, kind), choose_spec(report, spec)
    sites = [site for site in report.sites if site.kind == chosen]
    return series_of(sites, report, chosen, chosen_spec, choose_metric(metric or _STATISTIC))


def _ranking_spec(report: Report, kind: str | None, spec: str | None, metric: str | None) -> str | None:
    """The format under which a cost is meant; None where an error statistic is. Raises as `layer_series`."""
    by_cost = metric is not None and choose_metric(metric) in COSTS
    known = cost_specs(report)
    if not known or (metric is not None and not by_cost) or (metric is None and kind is not None):
        return None
    if kind is not None:
        raise NoEffectError("kind", f"on {metric}, the cost of whole layers; choose a {setting('mode')}")
    if spec is None:
        return known[0]
    chosen = spec if spec in known else parse(spec).spec
    if chosen not in known and (by_cost or chosen not in report.settings.formats):
        raise SettingError("spec", spec, f"the costs are of {', '.join(known)}")
    return chosen if chosen in known else None


def cost_series(report: Report, spec: str, metric: str | None = None, mode: str | None = None) -> Series:
    """The cost of every layer under a format by its full name: predicted_kl, or what `metric` names.

    Raises SettingError for a format or mode without costs, ReportError when a layer lacks this cost.
    """
    rows, chosen = priced_layers(report, spec, mode)
    assert report.costs is not None  # or there were no rows
    cost = main_cost(report.costs, spec, chosen) if metric is None else choose_metric(metric)
    missing = [layer for layer, row in rows.items() if not math.isfinite(row.value(cost.name))]
    if missing:
        where = f"under {spec} {mode_title(chosen, spec)} for layer(s) {_some(missing)}"
        raise ReportError(f"{cost.name} is not known {where}; choose another {setting('metric')}")
    depth = max(report.model.layer_count or 0, max(rows) + 1)
    documents = _documents(report.costs.settings.calibration)
    return Series("layer", spec, cost, tuple(rows), tuple(rows.values()), depth, chosen, documents)


def noise_series(report: Report, target: Target = "rmsnorm", *, relative: bool = False) -> Series:
    """What noise on the weights of every layer costs at sigma 1, twice over: the traces. Raises ReportError."""
    sums = by_layer(report, target, relative=relative)
    return Series(
        kind="layer",
        spec="",
        metric=NOISE_SENSITIVITY,
        layers=tuple(sums),
        measurements=tuple(Priced({NOISE_SENSITIVITY.name: cost}) for cost in sums.values()),
        depth=max(report.model.layer_count or 0, max(sums) + 1),
        documents=_documents(report.costs.settings.calibration) if report.costs is not None else (),
    )


def series_of(sites: Sequence[Site], report: Report, kind: Kind, spec: str, metric: Metric) -> Series:
    """The series of some sites, all of one kind, merged layer by layer. Raises as `layer_series`."""
    bare = [s.model_copy(update={"formats": {spec: s.formats[spec]}}) for s in sites if spec in s.formats]
    rows = layer_rows(bare)
    if not rows:
        raise ReportError(f"the report has no layer with {kind} sites under {spec}; scan with {setting('sites', kind)}")
    values = {row.layer: row.formats[spec].value(metric.name) for row in rows}
    missing = [layer for layer, value in values.items() if not math.isfinite(value)]
    if metric in COSTS and not any(metric.name in site.formats[spec].given for site in bare):
        needs_costs(report, metric)
    if missing:
        absent = all(row.formats[spec].tally is None for row in rows)
        why = "not in this report" if absent else "not finite"
        raise ReportError(
            f"{metric.name} of {kind} under {spec} is {why} for layer(s) {_some(missing)}; "
            f"choose another {setting('metric')}"
        )
    last = max(values)
    return Series(
        kind,
        spec,
        metric,
        tuple(row.layer for row in rows),
        tuple(row.formats[spec] for row in rows),
        max(report.model.layer_count or 0, last + 1),
        documents=_documents(report.settings.calibration),
    )


def _documents(calibration: Calibration | None) -> tuple[int, ...]:
    # where each sequence is a document of its own, or nobody said, there is nothing to tell
    return () if calibration is None else calibration.unit_of or ()


def _some(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers[:8])) + (" ..." if len(layers) > 8 else "")
