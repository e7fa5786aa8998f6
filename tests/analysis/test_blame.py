"""What in a layer is to blame, and that every command names the same."""

from __future__ import annotations

import pytest
from builders import make_costs
from priced_reports import SPEC, report

from srdd.analysis.advice import advise
from srdd.analysis.blame import blame
from srdd.analysis.screen import screen
from srdd.core.modes import Mode
from srdd.documents.costs import Cost, Costs


def priced(values: dict[Mode, float]) -> Costs:
    """Two layers; the first costs `values` by mode."""
    costs = make_costs({SPEC: [0.3, 0.1]}, modes=tuple(values))
    layers = [
        row.model_copy(update={"predicted_kl": Cost.of([values[row.mode]] * 2)}) if row.layer == 0 else row
        for row in costs.layers
    ]
    return costs.model_copy(update={"layers": layers})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"weight": 0.2, "input": 0.1, "both": 0.9}, "weights"),
        ({"weight": 0.1, "input": 0.2, "both": 0.1}, "inputs"),
        ({"weight": 0.1, "input": 0.1, "both": 0.1}, "both"),
        ({"weight": 0.2, "both": 0.3}, "weights"),
        ({"weight": 0.19, "both": 0.3}, "both"),
        ({"weight": 0.1, "both": 0.3}, "inputs"),
        ({"input": 0.1, "both": 0.3}, "weights"),
        ({"input": 0.2, "both": 0.3}, "inputs"),
        ({"input": 0.15, "both": 0.3}, "both"),
        ({"both": 0.3}, ""),
        ({"weight": 0.0, "input": 0.0, "both": 0.3}, ""),
    ],
)
def test_two_thirds_are_to_blame(values: dict[Mode, float], expected: str) -> None:
    assert blame(priced(values), SPEC, 0, "both") == expected


def test_where_one_thing_is_quantized_nothing_is_said() -> None:
    assert blame(priced({"weight": 0.2, "both": 0.3}), SPEC, 0, "weight") == ""


@pytest.mark.parametrize("weight", [0.03, 0.15, 0.27])
def test_the_first_screen_and_advise_blame_alike(weight: float) -> None:
    document = report(priced({"weight": weight, "both": 0.3}), sites=[])
    facts = screen(document)
    assert facts is not None
    assert facts.where is not None
    shown = {"weights": "weights", "inputs": "inputs", "both": "weights and inputs"}[facts.where.rows[0].blame]
    assert advise(document).flagged[0].cause.endswith(f"; {shown}")
