"""The costliest Linears and fusion groups of a report, in one order for the terminal, the page and Markdown.

Not here: measuring (srdd.runs.impact) and layout. The mode that ranks is "both" where it was measured. Linears are
ordered by predicted KL, or by the error of their own output where none was predicted; groups by measured KL where they
were swapped.

Worked number: q, k and v predicted at 0.001, 0.002 and 0.003 nats stand below their group's 0.009: their errors add up.
"""

from __future__ import annotations

from srdd.core.modes import Mode
from srdd.documents.costs import Cost, Costs, GroupCost, LayerCost, LinearCost, Ratio, WholeCost

MODE_NAMES: dict[Mode, str] = {"weight": "W", "input": "A", "both": "W+A"}


def main_mode(costs: Costs, spec: str) -> Mode:
    """The mode by which costs of a format are ordered: "both" where it was measured, else the last there is."""
    rows: list[WholeCost | LayerCost] = [*costs.whole, *costs.layers]
    measured = {row.mode for row in rows if row.format == spec}
    modes = [mode for mode in costs.settings.modes if mode in measured] or costs.settings.modes
    return "both" if "both" in modes or not modes else modes[-1]


def cost_of(row: LayerCost) -> tuple[str, Cost | Ratio] | None:
    """What a layer costs and what that is: predicted KL, else measured, else the error of the last layer's output."""
    known: list[tuple[str, Cost | Ratio | None]] = [
        ("predicted KL", row.predicted_kl),
        ("measured KL", row.measured_kl),
        ("predicted KL", row.predicted_kl_own),
        ("error of the last layer's output", row.measured_error),
    ]
    return next(((name, cost) for name, cost in known if cost is not None), None)


def linears(costs: Costs, spec: str, top: int) -> tuple[list[LinearCost], int, str]:
    """The costliest under a format, out of how many, and what they are ordered by."""
    mode = main_mode(costs, spec)
    rows = [row for row in costs.linears if row.format == spec]
    predicted = any(row.predicted_kl for row in rows)

    def cost(row: LinearCost) -> float:
        given = row.predicted_kl.get(mode) if predicted else row.output_error.get(mode)
        return given.value if given is not None else 0.0

    by = "predicted KL" if predicted else "output error"
    return sorted(rows, key=lambda row: -cost(row))[:top], len(rows), f"{by} ({MODE_NAMES[mode]})"


def groups(costs: Costs, spec: str, top: int) -> tuple[list[GroupCost], int, str]:
    """The costliest under a format, out of how many, and what they are ordered by."""
    mode = main_mode(costs, spec)
    swapped = [row for row in costs.groups if row.format == spec and mode in row.measured_kl]
    rows = swapped or [row for row in costs.groups if row.format == spec and mode in row.predicted_kl]
    rows = sorted(rows, key=lambda row: -(row.measured_kl if swapped else row.predicted_kl)[mode].value)
    return rows[:top], len(rows), f"{'measured' if swapped else 'predicted'} KL ({MODE_NAMES[mode]})"
