"""What in a layer is to blame for its cost: its weights, its inputs, or both.

By the share of the weights in the costs of weights alone and inputs alone; where only one of the two was measured, in
the cost of both together.

Not here: what a layer costs (layer_costs.py) and words around it.

Worked number: weights alone at 0.03 nats and both at 0.18: 17 % are the weights', under a third: the inputs are to
blame. Where inputs alone are known, at 0.02, it is 0.03 of 0.05: both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from srdd.analysis.costs import cost_of
from srdd.core.modes import Mode
from srdd.documents.costs import Costs

Blame = Literal["weights", "inputs", "both", ""]
BLAME = 2 / 3  # the share of weights, or of inputs, from which they alone are to blame
_SLACK = 1e-9  # a third is no third in binary


def blame(costs: Costs, spec: str, layer: int, mode: Mode) -> Blame:
    """What is to blame under a format, "" where it is not known or only one of them is quantized in this mode."""
    if mode != "both":
        return ""
    alone: dict[Mode, float] = {}
    for row in costs.layers:
        if (row.layer, row.format) == (layer, spec) and (cost := cost_of(row)):
            alone[row.mode] = cost[1].value
    return blame_of(alone)


def blame_of(alone: Mapping[Mode, float]) -> Blame:
    """The same from costs by mode, of whatever they are."""
    share = _share(alone.get("weight"), alone.get("input"), alone.get("both", 0.0))
    if math.isnan(share):
        return ""
    return "weights" if share >= BLAME - _SLACK else "inputs" if share <= 1 - BLAME + _SLACK else "both"


def _share(weight: float | None, inputs: float | None, both: float) -> float:
    """Of the weights; nan where it is not known."""
    if weight is not None and inputs is not None:
        both = weight + inputs
    if both <= 0:
        return math.nan
    if weight is not None:
        return weight / both
    return math.nan if inputs is None else 1 - inputs / both
