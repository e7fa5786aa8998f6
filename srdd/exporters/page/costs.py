"""What an impact document adds to the page: the whole model, layers, and the costliest Linears and fusion groups.

Only the costliest Linears of each format are listed, because a large model has tens of thousands; the page says of how
many: 210 Linears under one format give 30 rows and "of": 210.
"""

from __future__ import annotations

from typing import Any

from srdd.analysis.costs import MODE_NAMES, groups, linears, main_mode
from srdd.documents.impact import Estimate, Impact

COSTLIEST = 30


def costs(document: Impact | None) -> dict[str, Any] | None:
    """Estimates stay {value, error}; a part that was not measured is None."""
    if document is None:
        return None
    data = document.model_dump(mode="json", include={"reference", "whole", "layers", "warnings"})
    data["point"] = MODE_NAMES[main_mode(document)]
    data["linears"] = [part for spec in document.settings.formats if (part := _linears(document, spec))]
    data["groups"] = [part for spec in document.group_swaps if (part := _groups(document, spec))]
    return data


def _linears(document: Impact, spec: str) -> dict[str, Any] | None:
    rows, of, by = linears(document, spec, COSTLIEST)
    if not rows:
        return None
    taken = f"{document.settings.rows} tokens a sequence" if document.settings.rows else "all tokens"
    return {
        "format": spec,
        "by": by,
        "of": of,
        "taken": taken,
        "rows": [
            {
                "module": row.module,
                "errors": [_estimate(row.output_error.get(point)) for point in MODE_NAMES],
                "interaction": row.interaction,
                "kl": [_estimate(row.predicted_kl.get(point)) for point in MODE_NAMES],
            }
            for row in rows
        ],
    }


def _groups(document: Impact, spec: str) -> dict[str, Any] | None:
    rows, of = groups(document, spec, COSTLIEST)
    listed = [{"name": row.name, "measured": _estimate(row.measured), "predicted": row.predicted} for row in rows]
    return {"format": spec, "of": of, "rows": listed} if rows else None


def _estimate(given: Estimate | None) -> dict[str, float | None] | None:
    return None if given is None else {"value": given.value, "error": given.error}
