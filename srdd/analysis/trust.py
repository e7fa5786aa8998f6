"""How well the number that ranks layers tells what they cost, on this model, in one line.

Not here: rank correlations with intervals of everything that was measured (validation.py).

Worked number: relative errors 0.2, 0.3, 0.4 beside predicted KLs 0.3, 0.2, 0.1: Spearman -1, so errors mislead there.
"""

from __future__ import annotations

import math

from srdd.analysis.layer_costs import Priced, cost_specs, priced_layers
from srdd.analysis.rankings import spearman
from srdd.analysis.series import Series
from srdd.core.metrics import COSTS, NOISE_SENSITIVITY
from srdd.documents.report import Report

SPEARMAN = "0.91 on SmolLM2"  # predicted against measured KL of layers; classic scores have 0.37 and less there
_OF_NOISE = "tells what noise costs, to second order: within 3 % up to 8 % of the norms' rms on SmolLM2, untested here"
_FEWEST = 5  # layers; with fewer, the order is a matter of chance


def trust_in(report: Report, series: Series) -> str | None:
    """The line for the metric of a series; None where no costs are known, of which every command warns anyway."""
    name = series.metric.name
    if not cost_specs(report):
        return None
    if series.metric == NOISE_SENSITIVITY:
        return f"{name} {_OF_NOISE}"
    if series.spec not in cost_specs(report):
        return f"{name} was not compared with costs: none are known under {series.spec}"
    rows = priced_layers(report, series.spec, series.mode)[0]
    wanted = COSTS[1] if any(row.costs.get(COSTS[1].name) for row in rows.values()) else COSTS[0]
    if series.metric == wanted:
        return (
            f"{name} is the cost itself" if wanted == COSTS[1] else f"{name} against measured KL: Spearman {SPEARMAN}"
        )
    found = _correlation(series, rows, wanted.name)
    what = f"the {wanted.name.replace('_kl', ' KL')} of single layers"
    if math.isnan(found):
        return f"{name} could not be compared with {what} (fewer than {_FEWEST} layers know both, or all are alike)"
    return f"{name} against {what} here: Spearman {found:.2f}"


def _correlation(series: Series, rows: dict[int, Priced], cost: str) -> float:
    """Over the layers that know both; nan for too few."""
    errors = dict(zip(series.layers, series.errors, strict=True))
    pairs = [(errors[at], rows[at].value(cost)) for at in errors if at in rows and math.isfinite(rows[at].value(cost))]
    return spearman(*zip(*pairs, strict=True)) if len(pairs) >= _FEWEST else math.nan
