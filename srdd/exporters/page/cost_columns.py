"""What layers and sites cost, as further columns of the page's data beside those of metrics.

Not here: the columns of metrics (columns.py), and which rows there are (data.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any

from srdd.analysis.layer_costs import Priced, cost_specs, has_costs, priced_layers
from srdd.analysis.sensitivities import by_layer, has_sensitivities
from srdd.analysis.site_costs import UNPRICED, site_costs
from srdd.core.metrics import COSTS, NOISE_SENSITIVITY, Metric
from srdd.documents.parts import Kind
from srdd.documents.report import Report
from srdd.exporters.page.columns import Columns, number


def cost_columns(report: Report, spec: str, layers: Sequence[int]) -> tuple[Columns, Columns]:
    """Values and standard errors of the layers by the name of the cost; empty without costs of this format."""
    values: Columns = {}
    errors: Columns = {}
    if has_costs(report, spec):
        rows, _ = priced_layers(report, spec)
        values, errors = _columns([rows.get(layer, UNPRICED) for layer in layers])
    if has_sensitivities(report):
        traces = {layer: Priced({NOISE_SENSITIVITY.name: cost}) for layer, cost in by_layer(report).items()}
        noise = _columns([traces.get(layer, UNPRICED) for layer in layers], (NOISE_SENSITIVITY,))
        values, errors = values | noise[0], errors | noise[1]
    return values, errors


def cost_summary(report: Report, kinds: Sequence[Kind]) -> list[dict[str, Any]]:
    """What the layers cost, in the form of the report's summary: one row a format, cost and kind, the same for all."""
    rows: list[dict[str, Any]] = []
    for spec in cost_specs(report):
        layers = priced_layers(report, spec)[0].values()
        for cost in COSTS:
            values = [row.value(cost.name) for row in layers if math.isfinite(row.value(cost.name))]
            if values:
                spread = {"min": min(values), "max": max(values), "mean": fmean(values), "std": pstdev(values)}
                none: dict[str, Any] = {"gaussian": None, "threshold": None, "over_threshold": [], "unusual": []}
                rows += [{"kind": kind, "format": spec, "metric": cost.name, **spread, **none} for kind in kinds]
    return rows


def site_cost_columns(report: Report, spec: str, sources: Sequence[int | None]) -> tuple[Columns, Columns]:
    """The same for rows by the site of the report behind each; rows of several sites have none."""
    known = site_costs(report, spec)
    return _columns([UNPRICED if source is None else known[source] for source in sources])


def _columns(rows: Sequence[Priced], metrics: Sequence[Metric] = COSTS) -> tuple[Columns, Columns]:
    values: Columns = {cost.name: [number(row.value(cost.name)) for row in rows] for cost in metrics}
    errors: Columns = {cost.name: [number(row.error(cost.name)) for row in rows] for cost in metrics}
    return _filled(values), _filled(errors)


def _filled(columns: Columns) -> Columns:
    return {name: column for name, column in columns.items() if any(value is not None for value in column)}
