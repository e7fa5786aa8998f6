"""What costs add to the page: the whole model, layers, and the costliest Linears and fusion groups.

Only the costliest Linears of each format are listed, because a large model has tens of thousands; the page says of how
many: 210 Linears under one format give 30 rows and "of": 210. Values by sequence stay in the report.
"""

from __future__ import annotations

from typing import Any

from srdd.analysis.costs import MODE_NAMES, groups, linears, main_mode
from srdd.documents.costs import Clean, Cost, Costs, LayerCost, Ratio, WholeCost

COSTLIEST = 30
_OF_LAYERS = ("predicted_kl", "measured_kl", "isolated")


def costs(given: Costs | None) -> dict[str, Any] | None:
    """Numbers are {value, error}; a part that was not measured is None."""
    if given is None:
        return None
    specs = given.settings.formats
    return {
        "clean": _clean(given.clean),
        "whole": [_whole(given, row) for row in given.whole],
        "layers": [_layer(row) for row in given.layers],
        "linears": [part for spec in specs if (part := _linears(given, spec))],
        "groups": [part for spec in specs if (part := _groups(given, spec))],
    }


def _clean(row: Clean | None) -> dict[str, Any] | None:
    return None if row is None else {"loss": _estimate(row.loss), "perplexity": row.perplexity}


def _whole(given: Costs, row: WholeCost) -> dict[str, Any]:
    return {
        "format": row.format,
        "mode": row.mode,
        "loss": _estimate(row.loss),
        "loss_change": _estimate(given.loss_change(row)),
        "perplexity": row.perplexity,
        "kl": _estimate(row.kl),
        "kl_p99": row.kl_quantiles.get("0.99"),
        "top1": _estimate(row.top1),
    }


def _layer(row: LayerCost) -> dict[str, Any]:
    numbers = {name: _estimate(getattr(row, name)) for name in _OF_LAYERS}
    return {"layer": row.layer, "format": row.format, "mode": row.mode, **numbers}


def _linears(given: Costs, spec: str) -> dict[str, Any] | None:
    rows, of, by = linears(given, spec, COSTLIEST)
    if not rows:
        return None
    taken = given.settings.tokens_per_sequence
    return {
        "format": spec,
        "by": by,
        "of": of,
        "taken": f"{taken} tokens a sequence" if taken else "all tokens",
        "rows": [
            {
                "module": row.module,
                "errors": [_estimate(row.output_error.get(mode)) for mode in MODE_NAMES],
                "interaction": row.interaction,
                "kl": [_estimate(row.predicted_kl.get(mode)) for mode in MODE_NAMES],
            }
            for row in rows
        ],
    }


def _groups(given: Costs, spec: str) -> dict[str, Any] | None:
    rows, of, by = groups(given, spec, COSTLIEST)
    mode = main_mode(given, spec)
    listed = [
        {
            "name": row.name,
            "measured": _estimate(row.measured_kl.get(mode)),
            "predicted": _estimate(row.predicted_kl.get(mode)),
        }
        for row in rows
    ]
    return {"format": spec, "by": by, "of": of, "rows": listed} if rows else None


def _estimate(given: Cost | Ratio | None) -> dict[str, float | None] | None:
    return None if given is None else {"value": given.value, "error": given.error}
