"""The costliest Linears and fusion groups of an impact document, in one order for the terminal, the page and Markdown.

Not here: measuring (impact/) and layout. Linears rank by predicted KL, without one by the error of their own output.

Worked number: q, k and v predicted at 0.001, 0.002 and 0.003 nats stand beside 0.006 of their group, measured together.
"""

from __future__ import annotations

from dataclasses import dataclass

from srdd.core.modes import Mode
from srdd.documents.impact import Estimate, Impact, LinearImpact

POINT_NAMES: dict[Mode, str] = {"weight": "W", "input": "A", "both": "W+A"}


@dataclass(frozen=True)
class GroupCost:
    """A fusion group quantized alone, and what its Linears' predictions add up to (None: not predicted)."""

    name: str
    measured: Estimate
    predicted: float | None


def main_point(document: Impact) -> Mode:
    """Where formats act in the order of what is costly."""
    points = document.settings.points
    return "both" if "both" in points or not points else points[0]


def linears(document: Impact, spec: str, top: int) -> tuple[list[LinearImpact], int, str]:
    """The costliest under a format, out of how many, and what they are ordered by."""
    point = main_point(document)
    rows = [row for row in document.linears if row.format == spec]
    by = "predicted KL" if rows and rows[0].predicted_kl else "output error"

    def cost(row: LinearImpact) -> float:
        given = (row.predicted_kl or row.output_error).get(point)
        return given.value if given is not None else 0.0

    return sorted(rows, key=lambda row: -cost(row))[:top], len(rows), f"{by} ({POINT_NAMES[point]})"


def groups(document: Impact, spec: str, top: int) -> tuple[list[GroupCost], int]:
    """The costliest measured groups under a format, out of how many."""
    point = main_point(document)
    predicted = document.groups.get(spec, {}) | {
        row.module: {p: e.value for p, e in row.predicted_kl.items()}
        for row in document.linears
        if row.format == spec and row.group is None and row.predicted_kl
    }
    measured = {name: found[point] for name, found in document.group_swaps.get(spec, {}).items() if point in found}
    ranked = sorted(measured, key=lambda name: -measured[name].value)
    rows = [GroupCost(name, measured[name], predicted.get(name, {}).get(point)) for name in ranked[:top]]
    return rows, len(ranked)
