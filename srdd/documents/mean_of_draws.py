"""Costs of several draws of stochastic rounding as one: means over draws by sequence, and the value of each draw.

A relative error is the root of the mean square over draws. Quantiles over tokens are means of each draw's, the largest
is the largest of all. What is not drawn is the first's.

Not here: measuring (srdd.runs.impact), and merging parts of a run (merging_costs.py).

Worked number: a KL of 0.1 and 0.3 on two sequences with one draw and of 0.2 and 0.4 with another is 0.15 and 0.35: 0.25
± 0.1, spread over draws 0.071.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import fmean
from typing import Any

from srdd.documents.costs import Cost, Costs, ExpertCost, GroupCost, LayerCost, LinearCost, Ratio, WholeCost
from srdd.documents.merging_costs import interaction_of

Row = WholeCost | LayerCost | GroupCost | LinearCost | ExpertCost
_TABLES = ("whole", "layers", "groups", "linears", "experts")


def mean_of_draws(costs: Sequence[Costs], drawn: Collection[str]) -> Costs:
    """`costs` are of one draw each, on the same sequences; the first holds all formats, the others those in `drawn`."""
    first, *others = costs
    if not drawn:
        return first
    update: dict[str, Any] = {}
    for table in _TABLES:
        again = [{_key(row): row for row in getattr(one, table)} for one in others]
        update[table] = [
            _row([row, *(rows[_key(row)] for rows in again)]) if row.format in drawn else row
            for row in getattr(first, table)
        ]
    return first.model_copy(update=update)


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(getattr(row, name, None) for name in ("layer", "name", "module", "expert", "format", "mode"))


def _row(rows: Sequence[Row]) -> Row:
    fields = type(rows[0]).model_fields
    mean = rows[0].model_copy(update={name: _value(name, [getattr(row, name) for row in rows]) for name in fields})
    if isinstance(mean, LinearCost):
        mean.interaction = interaction_of(mean)
    return mean


def _value(name: str, values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Cost):
        return Cost(value=0, sequences=_means([one.sequences for one in values]), draws=[one.value for one in values])
    if isinstance(first, Ratio):
        above, below = _means([one.above for one in values]), _means([one.below for one in values])
        return Ratio(value=0, above=above, below=below, draws=[one.value for one in values])
    if name in ("predicted_kl", "measured_kl", "output_error") and first is not None:
        return {mode: _value(mode, [one[mode] for one in values]) for mode in first}
    if name == "kl_quantiles":
        return {share: (max if share == "1" else fmean)(one[share] for one in values) for share in first}
    return all(values) if name == "no_effect" else first


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(column) for column in zip(*rows, strict=True)]
