"""What `--json` says of a report: short enough for a script, whole enough to decide by.

Not here: the report itself, which has every site and sum.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srdd.analysis.stored import Errors
    from srdd.documents.adapter import AdapterPart
    from srdd.documents.report import Report
    from srdd.documents.schema import Measurement

_COSTS = ("predicted_kl", "measured_kl", "loss", "entropy", "kl", "top1")


def summary(
    report: Report, kinds: Collection[str] | None = None, specs: Collection[str] | None = None
) -> dict[str, object]:
    """The rows of the summary, every layer's metrics, what layers, groups and the whole cost, and the warnings.

    `kinds` and `specs` leave out what stands in neither.
    """
    specs = report.settings.formats if specs is None else specs
    kinds = report.settings.kinds if kinds is None else kinds
    return {
        "model": report.model.id,
        "warnings": report.warnings,
        "rows": [row.model_dump(mode="json") for row in report.summary if row.kind in kinds and row.format in specs],
        "layers": [
            {
                "kind": layer.kind,
                "layer": layer.layer,
                "formats": {
                    spec: _measured(measurement) for spec, measurement in layer.formats.items() if spec in specs
                },
            }
            for layer in report.layers
            if layer.kind in kinds
        ],
        **({} if report.adapter is None else {"adapter": _adapter(report.adapter)}),
        "costs": None if report.costs is None else _costs(report),
        "keep": [] if report.costs is None else _keep(report),
        **_stored(report),
    }


def _adapter(part: AdapterPart) -> dict[str, Any]:
    """What it is, and how much of it survives, by role and for every weight."""
    from srdd.exporters.terminal.adapter import by_role

    return {**part.model_dump(mode="json"), "roles": [row.model_dump(mode="json") for row in by_role(part)]}


def _stored(report: Report) -> dict[str, Any]:
    """Of a packed checkpoint beside its original: how much better its codes are than rounding anew; else nothing."""
    from srdd.analysis.stored import stored_facts

    facts = stored_facts(report)
    if facts is None:
        return {}
    forms = [
        {
            "stored": form.stored,
            "fresh": form.fresh,
            "weights": form.errors.weights,
            **_decibels(form.errors),
            "roles": {role: _decibels(errors) for role, errors in form.roles},
            "much_worse": {name: gain if math.isfinite(gain) else None for name, gain in form.much_worse},
            "much_better": form.much_better,
        }
        for form in facts.forms
    ]
    costs = facts.costs
    return {"stored": {"forms": forms, "kl_difference": costs and {"value": costs.difference, "error": costs.error}}}


def _decibels(errors: Errors) -> dict[str, float | None]:
    """None for what is not finite: an exact copy, or nothing measured."""
    found = {"stored_db": errors.stored_db, "fresh_db": errors.fresh_db, "gain_db": errors.gain_db}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _measured(measurement: Measurement) -> dict[str, Any]:
    """Metrics, errors and flags, as a report writes them, without the sums."""
    return measurement.model_dump(mode="json", include={"metrics", "standard_errors", "flags"})


def _costs(report: Report) -> dict[str, Any]:
    """Values with their errors; the numbers of single sequences, which pairing needs, stay in the report."""
    assert report.costs is not None
    costs = report.costs.model_dump(mode="json", include={"clean", "whole", "layers", "groups", "sensitivities"})
    rows = [*([costs["clean"]] if costs["clean"] else []), *costs["whole"], *costs["layers"]]
    for cost in (row[name] for row in rows for name in _COSTS if row.get(name) is not None):
        cost.pop("sequences", None)
    for row in costs["sensitivities"]:
        row["trace"].pop("sequences", None)
    for group in costs["groups"]:
        for cost in (*group["predicted_kl"].values(), *group["measured_kl"].values()):
            cost.pop("sequences", None)
    return costs


def _keep(report: Report) -> list[dict[str, object]]:
    """What the first screen says is to be done, with the whole names of the groups."""
    from srdd.analysis.screen import screen

    facts = screen(report)
    return [
        {
            "why": one.why,
            "base": one.base,
            "higher": one.found.higher if one.found else None,
            "groups": [group.name for group in one.found.kept(one.kept)] if one.found else [],
            "bits": one.bits,
            "kl": {"value": one.kl, "error": one.error},
        }
        for one in (facts.choices if facts else ())
    ]
