"""What `--json` says of a report: short enough for a script, whole enough to decide by.

Not here: the report itself, which has every site and sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srdd.documents.report import Report
    from srdd.documents.schema import Measurement

_COSTS = ("predicted_kl", "measured_kl", "loss", "entropy", "kl", "top1")


def summary(report: Report) -> dict[str, object]:
    """The rows of the summary, every layer's metrics, what the layers and the whole cost, and the warnings."""
    return {
        "model": report.model.id,
        "warnings": report.warnings,
        "rows": [row.model_dump(mode="json") for row in report.summary],
        "layers": [
            {
                "kind": layer.kind,
                "layer": layer.layer,
                "formats": {spec: _measured(measurement) for spec, measurement in layer.formats.items()},
            }
            for layer in report.layers
        ],
        "costs": None if report.costs is None else _costs(report),
    }


def _measured(measurement: Measurement) -> dict[str, Any]:
    """Metrics, errors and flags, as a report writes them, without the sums."""
    return measurement.model_dump(mode="json", include={"metrics", "standard_errors", "flags"})


def _costs(report: Report) -> dict[str, Any]:
    """Values with their errors; the numbers of single sequences, which pairing needs, stay in the report."""
    assert report.costs is not None
    costs = report.costs.model_dump(mode="json", include={"clean", "whole", "layers"})
    rows = [*([costs["clean"]] if costs["clean"] else []), *costs["whole"], *costs["layers"]]
    for cost in (row[name] for row in rows for name in _COSTS if row.get(name) is not None):
        cost.pop("sequences", None)
    return costs
