"""Reads the per-layer JSON of the first SRDD scripts as version 0: metrics without tallies.

Those scripts measured decoder-layer outputs only, averaged decibels over prompts, computed in bfloat16 and called
values near the maximum "saturation". Nothing is repaired: their saturation is left out, and the report says what its
numbers are. They are good enough for zones, multipliers and compare.
"""

from __future__ import annotations

import math
from typing import Any

from srdd.core.verdicts import CLASSIC
from srdd.documents.parts import Estimate, Model, Note
from srdd.documents.schema import Coverage, Measurement, Settings, Site
from srdd.errors import ReportError

BACKEND = "first SRDD scripts"  # by which a report of version 0 is known, also after it was saved anew
_CARRIED = ("sqnr_db", "relative_error", "deadzone_ratio")


def upgrade(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields of a Report from `{"config": ..., "report": {"per_layer": [...]}}`. Raises ReportError."""
    rows = document["report"].get("per_layer")
    if not isinstance(rows, list) or not rows:
        raise ReportError(f"{name}: found a report without version and without rows in report.per_layer[]")
    given = document.get("config")
    config: dict[str, Any] = given if isinstance(given, dict) else {}
    quant = str(config.get("quant_type") or "mxfp4")
    spec = f"{quant}:floor"  # the only rule those scripts had
    sites = [_site(row, index, spec, name) for index, row in enumerate(rows)]
    if len({site.layer for site in sites}) != len(sites):
        raise ReportError(f"{name}: report.per_layer[] names a layer_id twice")
    path = str(config.get("model_path") or "unknown")
    return {
        "model": Model(
            id=path.rstrip("/").rsplit("/", 1)[-1], layer_count=config.get("num_layers") or len(rows), parameter_count=0
        ),
        "settings": Settings(
            formats=[spec],
            kinds=["output"],
            device="unknown",
            dtype="bfloat16",
            backend=BACKEND,
            backend_reason="loaded from their JSON",
            thresholds=dict(CLASSIC),
            versions={},
        ),
        "coverage": Coverage(parameters=0, measured=0),
        "sites": sorted(sites, key=lambda site: site.layer or 0),
        "warnings": [
            Note.of(
                "version 0",
                "metrics without sums or errors, averaged over a few short prompts; "
                "its saturation was the share of values near the maximum, not of clipped ones, and is left out",
            )
        ],
    }


def _site(row: Any, index: int, spec: str, name: str) -> Site:
    place = f"{name}: report.per_layer[{index}]"
    if not isinstance(row, dict) or not isinstance(row.get("layer_id"), int) or row["layer_id"] < 0:
        raise ReportError(f"{place} has no layer_id (a whole number from 0)")
    metrics: dict[str, Estimate] = {}
    for key in _CARRIED:
        value = row.get(key)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise ReportError(f"{place}: {key} is {value!r}, expected a finite number")
        metrics[key] = Estimate(value=value)
    if not metrics:
        raise ReportError(f"{place} holds none of {', '.join(_CARRIED)}")
    layer = row["layer_id"]
    return Site(
        kind="output",
        name=f"layers.{layer}",
        role="decoder_layer",
        layer=layer,
        formats={spec: Measurement(given=metrics)},
    )
