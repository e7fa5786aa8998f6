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

from srdd.core.formats import parse
from srdd.core.metrics import COSTS, Metric, as_error, choose_metric
from srdd.documents.parts import KINDS, Kind, MadeFrom, Model
from srdd.documents.report import Report
from srdd.documents.schema import Measurement, Site
from srdd.documents.summary import layer_rows
from srdd.errors import ReportError, SettingError, setting

Made = TypeVar("Made", bound=MadeFrom)


@dataclass(frozen=True)
class Series:
    """`measurements[i]` belongs to layer `layers[i]`; layers ascend and may have gaps."""

    kind: Kind
    spec: str
    metric: Metric
    layers: tuple[int, ...]
    measurements: tuple[Measurement, ...]
    depth: int  # layers of the whole model, measured or not

    @property
    def values(self) -> list[float]:
        """The metric of every layer, in its own unit."""
        return [m.value(self.metric.name) for m in self.measurements]

    @property
    def standard_errors(self) -> list[float]:
        """Over sequences; nan where a layer has none (weights, version 0)."""
        return [m.error(self.metric.name) for m in self.measurements]

    @property
    def errors(self) -> list[float]:
        """The values as errors: positive, larger is worse, on a scale where a ratio means something."""
        return [as_error(self.metric, value) for value in self.values]

    def made(self, kind: type[Made], model: Model, report_sha256: str = "", **more: Any) -> Made:
        """The provenance of a document that is made from this series of a report."""
        return kind.of(
            model, spec=self.spec, kind=self.kind, metric=self.metric.name, report_sha256=report_sha256, **more
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
    report: Report, kind: str | None = None, spec: str | None = None, metric: str = "relative_error"
) -> Series:
    """The series of one metric: by default of outputs, inputs or weights, the first there is, in the first format.

    Raises SettingError for what the report lacks, ReportError when it has no layers or a layer has no finite number.
    """
    chosen, chosen_spec = choose_kind(report, kind), choose_spec(report, spec)
    sites = [site for site in report.sites if site.kind == chosen]
    return series_of(sites, report, chosen, chosen_spec, choose_metric(metric))


def series_of(sites: Sequence[Site], report: Report, kind: Kind, spec: str, metric: Metric) -> Series:
    """The series of some sites, all of one kind, merged layer by layer. Raises as `layer_series`."""
    bare = [s.model_copy(update={"formats": {spec: s.formats[spec]}}) for s in sites if spec in s.formats]
    rows = layer_rows(bare)
    if not rows:
        raise ReportError(f"the report has no layer with {kind} sites under {spec}; scan with {setting('sites', kind)}")
    values = {row.layer: row.formats[spec].value(metric.name) for row in rows}
    missing = [layer for layer, value in values.items() if not math.isfinite(value)]
    if metric in COSTS and not any(metric.name in site.formats[spec].given for site in bare):
        raise SettingError(
            "metric",
            metric.name,
            "no impact was measured in this report; run `srdd impact` and give what it writes",
        )
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (" ..." if len(missing) > 8 else "")
        absent = all(row.formats[spec].tally is None for row in rows)
        why = "not in this report" if absent else "not finite"
        raise ReportError(
            f"{metric.name} of {kind} under {spec} is {why} for layer(s) {shown}; choose another {setting('metric')}"
        )
    last = max(values)
    return Series(
        kind,
        spec,
        metric,
        tuple(row.layer for row in rows),
        tuple(row.formats[spec] for row in rows),
        max(report.model.layer_count or 0, last + 1),
    )
