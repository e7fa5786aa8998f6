"""What a reader sees first of a report: the metric that ranks, the zones by it, and what they were made from.

Not here: verdicts (overview.py) and how zones are found (zones.py).

Worked number: a report with costs of mxfp4 is looked at by predicted_kl of its layers, one without by relative_error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from srdd.analysis.bundle import Bundle
from srdd.analysis.layer_costs import Numbers, has_costs, priced_layers
from srdd.analysis.sensitivities import has_sensitivities
from srdd.analysis.series import Series, cost_series, noise_series, series_of
from srdd.analysis.zone_words import grade_of, one_zone_words, outlier_words
from srdd.analysis.zones import survey
from srdd.core.metrics import BY_NAME, COSTS, NOISE_SENSITIVITY, RANKED, Metric, choose_metric
from srdd.core.modes import mode_title
from srdd.documents.parts import Kind, MadeFrom
from srdd.documents.report import Report
from srdd.documents.schema import Layer
from srdd.documents.zones import Cut, OutlierLayer, Ramp, Zone
from srdd.errors import OptionError, ReportError, SettingError


@dataclass(frozen=True)
class FoundZones:
    """Zones to show, and what they were found from."""

    zones: list[Zone]
    cuts: list[Cut] = field(default_factory=list)
    source: str = ""
    metric: str = ""
    outliers: list[OutlierLayer] = field(default_factory=list)
    ramp: Ramp | None = None


def made_of(made: MadeFrom) -> str:
    """What a document was made from: "predicted_kl of layers under mxfp4:even W4A4"."""
    of = "layers" if made.mode else f"{made.site} sites"
    return f"{made.metric} of {of} under {made.quant}" + (f" {mode_title(made.mode, made.quant)}" if made.mode else "")


def zones_of(bundle: Bundle, kind: Kind, spec: str, metric: str) -> FoundZones | None:
    """The zones given, else those `srdd zones` finds; None where a layer has no number."""
    if bundle.zones is not None:
        made = bundle.zones.provenance
        source = f"given: {made_of(made)}, scheme {made.scheme}"
        given = bundle.zones
        return FoundZones(given.zones, given.cuts, source, made.metric, given.outliers, given.ramp)
    try:
        series = series_by(bundle.report, kind, spec, metric)
        found = survey(series)
    except (OptionError, ReportError):
        return None
    source = f"found from {series.title}"
    return FoundZones(found.zones, found.cuts, source, metric, found.outliers, found.ramp)


def series_by(report: Report, kind: Kind, spec: str, metric: str) -> Series:
    """One metric of the layers: a cost, or an error of sites of a kind. Raises SettingError, ReportError."""
    if RANKED[metric] in COSTS and has_costs(report, spec):
        return cost_series(report, spec, metric)
    if RANKED[metric] == NOISE_SENSITIVITY:
        return noise_series(report)
    sites = [site for site in report.sites if site.kind == kind]
    return series_of(sites, report, kind, spec, RANKED[metric])


def layer_numbers(report: Report, kind: Kind, spec: str, metric: Metric) -> dict[int, Numbers]:
    """What is known of every layer by which a metric is told: its costs, or the sites of a kind."""
    if metric in COSTS and has_costs(report, spec):
        return {**priced_layers(report, spec)[0]}
    if metric == NOISE_SENSITIVITY and has_sensitivities(report):
        series = noise_series(report)
        return dict(zip(series.layers, series.measurements, strict=True))
    return {row.layer: row.formats[spec] for row in report.layers if row.kind == kind and spec in row.formats}


def first_metric(report: Report, kind: Kind, spec: str) -> str:
    """The metric to look at first: what layers cost, else relative error or the first that has a number."""
    if has_costs(report, spec):
        return cost_series(report, spec).metric.name
    return main_metric([layer for layer in report.layers if layer.kind == kind and spec in layer.formats], spec)


def shown_metric(report: Report, kind: Kind, spec: str, asked: str | None) -> str:
    """The metric that a reader named, else the first one. Raises SettingError for one that no layer has."""
    if asked is None:
        return first_metric(report, kind, spec)
    metric = choose_metric(asked)
    rows = layer_numbers(report, kind, spec, metric).values()
    if not any(math.isfinite(row.value(metric.name)) for row in rows):
        raise SettingError("metric", metric.name, f"no layer has it under {spec} in these documents")
    return metric.name


def main_metric(layers: Sequence[Layer], spec: str, among: Iterable[str] = RANKED) -> str:
    """The metric to look at first: relative error, or in a report without it the first that has a number."""
    order = ["relative_error", "predicted_kl", "measured_kl", *BY_NAME]
    known = (m for m in order if m in among and any(math.isfinite(x.formats[spec].value(m)) for x in layers))
    return next((name for name in known if RANKED[name].better), "relative_error")


def sentences(shown: FoundZones | None) -> list[str]:
    """The zones and how far their cuts can be trusted."""
    if shown is None:
        return []
    outliers = [_sentence(text) for text in outlier_words(shown.outliers, RANKED[shown.metric])]
    if len(shown.zones) == 1:
        return [one_zone_words(shown.ramp, RANKED[shown.metric]), *outliers]
    texts = [f"{zone.name} ({zone.span}) {zone.label}" for zone in shown.zones]
    lines = [f"Zones: {', '.join(texts)}; {shown.source}."]
    grades: dict[str, list[str]] = {}
    for cut in shown.cuts:
        grade = grade_of(cut)
        told = {"weak": "weak, do not build on it", "not known": "firm or not is not known"}.get(grade, grade)
        grades.setdefault(told, []).append(f"{cut.before_layer} (found again in {cut.stability:.0%})")
    if grades:
        said = "; ".join(f"{grade}: before layer {', '.join(places)}" for grade, places in grades.items())
        lines.append(f"Cuts, {shown.cuts[0].method}: {said}.")
    return lines + outliers


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
