"""What the page holds: every number of a report in columns, ready to show; the browser computes none again.

A column has one entry per row. Rows are the sites in the report's order, many in one place (experts) as one, then one
for each place in the heatmap that holds a few sites, with their merged sums. Provenance is left out, so that two scans
of the same thing make the same page.

Not here: markup (srdd.exporters.report.html) and figures (*.js).

Worked number: a report with 362 sites of which none share a place has 362 rows; values["mxfp4:even"]["sqnr_db"][7] is
the metric of site 7, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from srdd.analysis.bundle import Bundle, View
from srdd.analysis.causes import noise_shares
from srdd.analysis.facts import facts, warnings
from srdd.analysis.first_look import FoundZones, made_of, shown_metric, zones_of
from srdd.analysis.layer_costs import has_costs
from srdd.analysis.multipliers import find_multipliers
from srdd.analysis.noise_advice import EQUAL_DAMAGE
from srdd.analysis.overview import KIND_TITLES, overview
from srdd.analysis.sensitivities import has_sensitivities
from srdd.analysis.series import choose_kind, choose_kinds, choose_spec
from srdd.analysis.strategies import STRATEGIES
from srdd.core.formats import bits_per_value
from srdd.core.gaussian import gaussian_metrics
from srdd.core.metrics import BY_NAME, COSTS, MAIN, NOISE_SENSITIVITY, RANKED
from srdd.core.tally import FIELDS
from srdd.documents.parts import Kind
from srdd.documents.report import Report
from srdd.documents.rin import RinConfig
from srdd.documents.schema import Measurement
from srdd.errors import NoiseError, OptionError, ReportError
from srdd.exporters.dose import dose_lines
from srdd.exporters.next_steps import next_steps
from srdd.exporters.page.columns import error_columns, number, tallies, value_columns
from srdd.exporters.page.cost_columns import cost_columns, cost_summary, site_cost_columns
from srdd.exporters.page.costs import costs
from srdd.exporters.page.noise import experiment_data, probe_data
from srdd.exporters.page.sites import outliers, page_rows

# Of the distribution of blocks the median: each column of all sites is 25 kB
_ON_PAGE = {name: m for name, m in RANKED.items() if not m.of_blocks or name == "block_sqnr_db"}


@dataclass(frozen=True)
class _Start:
    """What the page shows first: the reader's view with every default filled in."""

    kind: Kind
    spec: str
    metric: str
    asked: bool  # for this metric, by name
    zones: FoundZones | None


def build(bundle: Bundle, view: View, srdd_version: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The page's data, and the sums behind it, which a page needs only when somebody asks for them."""
    report, start = bundle.report, _start(bundle, view)
    kinds = choose_kinds(report, None)
    sites, sums = _sites(report, kinds)
    data = {
        "document": "srdd-page",
        "schema_version": 1,
        "srdd": srdd_version,
        "title": view.title or f"srdd: {report.model.id}",
        "model": report.model.model_dump(),
        "facts": facts(report),
        "warnings": warnings(bundle, kinds),
        "start": {"kind": start.kind, "format": start.spec, "metric": start.metric},
        "kinds": [{"name": kind, "title": KIND_TITLES[kind]} for kind in kinds],
        "formats": _formats(report),
        "metrics": _metrics(),
        "overview": _overviews(bundle, start, kinds),
        "summary": [
            *(row.model_dump() for row in report.summary if row.metric in _ON_PAGE),
            *cost_summary(report, kinds),
        ],
        "layers": {kind: _layers(report, kind, report.settings.formats) for kind in kinds},
        "baseline": _baseline(bundle, kinds),
        "zones": _zones(start.zones),
        "multipliers": _multipliers(bundle, start),
        "impact": costs(bundle.costs),
        "probe": probe_data(bundle.probe, report),
        "experiment": experiment_data(bundle.experiment, report),
        **sites,
    }
    return data, sums


def _start(bundle: Bundle, view: View) -> _Start:
    report = bundle.report
    kind, spec = choose_kind(report, view.kind), choose_spec(report, view.formats)
    metric = shown_metric(report, kind, spec, view.metric)
    return _Start(kind, spec, metric, view.metric is not None, zones_of(bundle, kind, spec, metric))


def _formats(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "spec": spec,
            "bits": bits_per_value(spec),
            "gaussian": {name: number(value) for name, value in (gaussian_metrics(spec) or {}).items()},
        }
        for spec in report.settings.formats
    ]


def _metrics() -> list[dict[str, Any]]:
    return [
        {"name": m.name, "unit": m.unit, "better": m.better, "meaning": m.meaning, "main": m.name in MAIN}
        | ({"cost": True} if m in (*COSTS, NOISE_SENSITIVITY) else {})
        for m in _ON_PAGE.values()
    ]


def _overviews(bundle: Bundle, start: _Start, kinds: Sequence[Kind]) -> dict[Kind, dict[str, Any]]:
    """The four answers for every kind and format; the zones that are shown belong to one of them."""
    shown = (start.kind, start.spec)
    return {
        kind: {
            spec: _overview(bundle, kind, spec, start, start.zones if (kind, spec) == shown else None)
            for spec in bundle.report.settings.formats
        }
        for kind in kinds
    }


def _overview(bundle: Bundle, kind: Kind, spec: str, start: _Start, zones: FoundZones | None) -> dict[str, Any] | None:
    if not any(layer.kind == kind and spec in layer.formats for layer in bundle.report.layers):
        return None
    found = overview(bundle, kind, spec, zones, start.metric if start.asked else None)
    rows = [
        {
            "layer": row.layer,
            "values": {name: [number(value), number(error)] for name, (value, error) in row.values.items()},
            "beyond": row.beyond,
            "firm": row.firm,
            "cause": row.cause,
            "action": row.action,
        }
        for row in found.worst
    ]
    candidates = [row.model_dump() for row in found.advice.formats] if found.advice else []
    return {
        "verdict": found.verdict,
        "headline": found.headline,
        "sentence": found.sentence,
        "limits": found.limits,
        "worst": rows,
        "ranked_by": found.ranked_by,
        "ordered_by": found.ordered_by,
        "flagged": len(found.advice.flagged) if found.advice and found.worst_are_flagged else 0,
        "sure": found.sure,
        "steps": [asdict(step) for step in next_steps(bundle, found)],
        "formats": candidates,
    }


def _layers(report: Report, kind: Kind, formats: Sequence[str]) -> dict[str, Any]:
    """Metrics with standard errors and the split of the noise, one entry per layer."""
    layers = [layer for layer in report.layers if layer.kind == kind]
    rows = {spec: [layer.formats.get(spec) for layer in layers] for spec in formats}
    costs = {spec: cost_columns(report, spec, [layer.layer for layer in layers]) for spec in formats}
    return {
        "layers": [layer.layer for layer in layers],
        "values": {spec: value_columns(rows[spec], _ON_PAGE) | costs[spec][0] for spec in formats},
        "errors": {spec: error_columns(rows[spec], BY_NAME) | costs[spec][1] for spec in formats},
        "noise": {spec: _noise_columns(rows[spec]) for spec in formats},
    }


def _noise_columns(rows: Sequence[Measurement | None]) -> dict[str, list[float | None]]:
    shares = [noise_shares(row) if row is not None and row.tally is not None else {} for row in rows]
    return {part: [share.get(part) for share in shares] for part in ("clipping", "underflow", "rounding")}


def _baseline(bundle: Bundle, kinds: Sequence[Kind]) -> dict[str, Any] | None:
    base = bundle.baseline
    if base is None:
        return None
    held = {layer.kind for layer in base.layers}
    shared = [spec for spec in bundle.report.settings.formats if spec in base.settings.formats]
    return {"model": base.model.id, "layers": {kind: _layers(base, kind, shared) for kind in kinds if kind in held}}


def _zones(found: FoundZones | None) -> dict[str, Any] | None:
    if found is None:
        return None
    zones = [
        {"name": z.name, "layers": z.layers, "span": z.span, "label": z.label, "ratio": z.ratio, "worst": z.worst_layer}
        for z in found.zones
    ]
    return {"source": found.source, "zones": zones, "cuts": [cut.model_dump() for cut in found.cuts]}


def _multipliers(bundle: Bundle, start: _Start) -> dict[str, Any] | None:
    """Those given, else the recommended ones: of equal damage where sensitivities are known, else of the ranking."""
    given = bundle.multipliers
    if given is not None:
        return _noise(given, f"given: strategy {given.provenance.strategy}, {made_of(given.provenance)}")
    report, metric = bundle.report, RANKED[start.metric]
    try:
        if not start.asked and has_sensitivities(report):
            config, series = find_multipliers(report, strategy=EQUAL_DAMAGE)
        elif metric == NOISE_SENSITIVITY:
            config, series = find_multipliers(report, metric=metric.name)
        elif metric in COSTS and has_costs(report, start.spec):
            config, series = find_multipliers(report, spec=start.spec, metric=metric.name)
        else:
            config, series = find_multipliers(report, kind=start.kind, spec=start.spec, metric=metric.name)
    except (OptionError, ReportError, NoiseError):
        return None
    strategy = config.provenance.strategy
    return _noise(config, f"strategy {strategy}: {series.title}, {STRATEGIES[strategy].meaning}")


def _noise(config: RinConfig, source: str) -> dict[str, Any]:
    schedule, multipliers = config.schedule, config.layer_multipliers
    return {
        "source": f"{source}; sigma {schedule.sigma_start:g} to {schedule.sigma_end:g}",
        "dose": dose_lines(config),
        "layers": list(multipliers),
        "values": list(multipliers.values()),
    }


def _sites(report: Report, kinds: Sequence[Kind]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every site and place of the heatmap with its numbers, and the sums they come from."""
    formats = report.settings.formats
    found = page_rows(report.sites)
    rows = {spec: [of.get(spec) for of in found.measured] for spec in formats}
    costs = {spec: site_cost_columns(report, spec, found.sources) for spec in formats}
    data = {
        "sites": found.columns,
        "cells": found.cells,
        "crowds": found.crowds,
        "outliers": {kind: {spec: outliers(found.cells, rows[spec], kind) for spec in formats} for kind in kinds},
        "values": {spec: value_columns(rows[spec], _ON_PAGE) | costs[spec][0] for spec in formats},
        "errors": {spec: error_columns(rows[spec], MAIN) | costs[spec][1] for spec in formats},
    }
    return data, {"fields": list(FIELDS), "tallies": {spec: tallies(rows[spec]) for spec in formats}}
