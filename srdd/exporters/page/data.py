"""What the page holds: every number of a report in columns, ready to be shown and never computed again in the browser.

Not here: markup and figures (exporters/). A column has one entry per row; rows are the sites in the report's order,
then, for places in the heatmap that hold several sites (experts), their merged sums. None: no number; "exact":
infinite. Provenance is left out, so that two scans of the same thing make the same page.

Worked number: a report with 362 sites of which none share a place has 362 rows; values["mxfp4:even"]["sqnr_db"][7] is
the metric of site 7, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from srdd.analysis.bundle import Bundle, Choices
from srdd.analysis.causes import noise_shares
from srdd.analysis.facts import facts, warnings
from srdd.analysis.overview import (
    KIND_TITLES,
    FoundZones,
    bits_of,
    main_metric,
    overview,
    zones_of,
)
from srdd.analysis.series import choose_kind, choose_kinds, choose_specs, series_of
from srdd.analysis.strategies import Choices as StrategyChoices
from srdd.analysis.strategies import plan
from srdd.core.gaussian import gaussian_metrics
from srdd.core.metrics import BY_NAME, MAIN, RANKED, choose_metric
from srdd.core.tally import FIELDS
from srdd.documents.report import Report
from srdd.documents.schema import Kind, Layer
from srdd.errors import OptionError, ReportError
from srdd.exporters.page.columns import columns, error_columns, error_of, number, tallies, value_of
from srdd.exporters.page.costs import costs
from srdd.exporters.page.noise import experiment_data, probe_data
from srdd.exporters.page.sites import heatmap_cells, outliers, site_columns


def build(bundle: Bundle, choices: Choices, srdd_version: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The page's data, and the sums behind it, which a page needs only when somebody asks for them."""
    report = bundle.report
    kind, spec = choose_kind(report, choices.site), choose_specs(report, choices.quant)[0]
    kinds = choose_kinds(report, None)
    metric = choose_metric(choices.metric).name if choices.metric else None
    rows = {k: [layer for layer in report.layers if layer.kind == k] for k in kinds}
    metric = metric or main_metric([x for x in rows[kind] if spec in x.formats], spec)
    zones = zones_of(bundle, kind, spec, metric)
    cells, merged = heatmap_cells(report.sites)
    measured = [site.formats for site in report.sites] + merged
    formats = report.settings.formats
    data = {
        "document": "srdd-page",
        "schema_version": 1,
        "srdd": srdd_version,
        "title": choices.title or f"srdd: {report.model.id}",
        "model": report.model.model_dump(),
        "facts": facts(report),
        "warnings": warnings(bundle, kinds),
        "start": {"kind": kind, "format": spec, "metric": metric},
        "kinds": [{"name": k, "title": KIND_TITLES[k]} for k in kinds],
        "formats": [
            {"spec": s, "bits": bits_of(s), "gaussian": {n: number(v) for n, v in (gaussian_metrics(s) or {}).items()}}
            for s in formats
        ],
        "metrics": [
            {"name": m.name, "unit": m.unit, "better": m.better, "meaning": m.meaning, "main": m.name in MAIN}
            for m in RANKED.values()
        ],
        "overview": {k: {s: _overview(bundle, k, s, zones if k == kind and s == spec else None) for s in formats}
                     for k in kinds},
        "summary": [row.model_dump() for row in report.summary],
        "layers": {k: _layers(rows[k], formats) for k in kinds},
        "baseline": _baseline(bundle.baseline, kinds, formats),
        "zones": _zones(zones),
        "multipliers": _multipliers(bundle, kind, spec, metric),
        "impact": costs(bundle.impact),
        "probe": probe_data(bundle.probe, report),
        "experiment": experiment_data(bundle.experiment, report),
        "sites": site_columns(report.sites),
        "cells": cells,
        "outliers": {k: {s: outliers(cells, measured, k, s) for s in formats} for k in kinds},
        "values": {s: columns(measured, s) for s in formats},
        "errors": {s: error_columns(measured, s) for s in formats},
    }  # fmt: skip
    sums = {"fields": list(FIELDS), "tallies": {s: tallies(measured, s) for s in formats}}
    return data, sums


def _overview(bundle: Bundle, kind: Kind, spec: str, zones: FoundZones | None) -> dict[str, Any] | None:
    if not any(layer.kind == kind and spec in layer.formats for layer in bundle.report.layers):
        return None
    found = overview(bundle, kind, spec, zones)
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
        "flagged": len(found.advice.flagged) if found.advice else 0,
        "sure": found.sure,
        "steps": [asdict(step) for step in found.steps],
        "formats": candidates,
    }


def _layers(rows: Sequence[Layer], formats: Sequence[str]) -> dict[str, Any]:
    """Metrics with standard errors and the split of the noise, one entry per layer."""
    values: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    noise: dict[str, Any] = {}
    for spec in formats:
        measured = [row.formats.get(spec) for row in rows]
        values[spec] = {name: [value_of(m, name) for m in measured] for name in RANKED}
        values[spec] = {name: column for name, column in values[spec].items() if any(v is not None for v in column)}
        errors[spec] = {name: [error_of(m, name) for m in measured] for name in BY_NAME}
        errors[spec] = {name: column for name, column in errors[spec].items() if any(v is not None for v in column)}
        shares = [noise_shares(m) if m is not None and m.tally is not None else {} for m in measured]
        noise[spec] = {part: [share.get(part) for share in shares] for part in ("clipping", "underflow", "rounding")}
    return {"layers": [row.layer for row in rows], "values": values, "errors": errors, "noise": noise}


def _baseline(base: Report | None, kinds: Sequence[Kind], formats: Sequence[str]) -> dict[str, Any] | None:
    if base is None:
        return None
    rows = {kind: [row for row in base.layers if row.kind == kind] for kind in kinds}
    shared = [spec for spec in formats if spec in base.settings.formats]
    return {"model": base.model.id, "layers": {k: _layers(rows[k], shared) for k in kinds if rows[k]}}


def _zones(found: FoundZones | None) -> dict[str, Any] | None:
    if found is None:
        return None
    zones = [
        {"name": z.name, "layers": z.layers, "span": z.span, "label": z.label, "ratio": z.ratio, "worst": z.worst_layer}
        for z in found.zones
    ]
    return {"source": found.source, "zones": zones, "cuts": [cut.model_dump() for cut in found.cuts]}


def _multipliers(bundle: Bundle, kind: Kind, spec: str, metric: str) -> dict[str, Any] | None:
    """Those given, else those of `srdd multipliers` without options."""
    given = bundle.multipliers
    if given is not None:
        made = given.provenance
        source = f"given: strategy {made.strategy}, {made.metric} of {made.site} sites under {made.quant}"
        start, end = given.schedule.sigma_start, given.schedule.sigma_end
        source += f"; sigma {start:g} to {end:g} in {given.schedule.num_stages} stages"
        return {
            "source": source,
            "layers": list(given.layer_multipliers),
            "values": list(given.layer_multipliers.values()),
        }
    sites = [site for site in bundle.report.sites if site.kind == kind]
    try:
        found = plan(series_of(sites, bundle.report, kind, spec, RANKED[metric]), "variable", StrategyChoices())
    except (OptionError, ReportError):
        return None
    source = f"strategy variable: {metric} of {kind} sites under {spec}, each layer's over the mean"
    return {
        "source": source,
        "layers": list(found.layer_multipliers),
        "values": list(found.layer_multipliers.values()),
    }
