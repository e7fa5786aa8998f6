"""Reports of twelve layers with costs made by hand, in which costs and errors disagree about the worst layer."""

from __future__ import annotations

from builders import make_costs, make_report, tally

from srdd.documents.costs import Cost, Costs
from srdd.documents.report import Report

SPEC = "mxfp4:even"
KLS = [0.1] * 7 + [0.9, 0.1, 0.1, 0.2, 0.1]  # layer 7 costs most, and its errors are the smallest
WORST = 7


def report(costs: Costs | None, **settings: object) -> Report:
    errors = [0.3] * 12
    errors[WORST] = 0.2
    plain = make_report(
        {"weight": [[tally(error)] for error in errors], "output": [[tally(error)] * 2 for error in errors]}
    )
    return plain.model_copy(update={"costs": costs, **settings})


PRICED = report(make_costs({SPEC: KLS}))
PLAIN = report(None)


def with_layer(kl: list[float], layer: int = WORST) -> Report:
    """The priced report with other values by sequence for one layer, weights and inputs quantized."""
    assert PRICED.costs is not None
    rows = [
        row.model_copy(update={"predicted_kl": Cost.of(kl)}) if (row.layer, row.mode) == (layer, "both") else row
        for row in PRICED.costs.layers
    ]
    return report(PRICED.costs.model_copy(update={"layers": rows}))
