"""The costliest Linears and fusion groups of an impact document, in one order for the terminal, the page and Markdown.

Not here: measuring (srdd.runs.impact) and layout. Linears are ordered by predicted KL, or by the error of their own
output where none was predicted.

Worked number: q, k and v predicted at 0.001, 0.002 and 0.003 nats stand beside 0.006 of their group, measured together.
"""

from __future__ import annotations

from dataclasses import dataclass

from srdd.core.modes import Mode
from srdd.documents.impact import Estimate, Impact, LinearImpact

MODE_NAMES: dict[Mode, str] = {"weight": "W", "input": "A", "both": "W+A"}


@dataclass(frozen=True)
class GroupCost:
    """A fusion group quantized alone, and what its Linears' predictions add up to (None: not predicted)."""

    name: str
    measured: Estimate
    predicted: float | None


def main_mode(document: Impact) -> Mode:
    """The mode by which costs are ordered: "both" where it was measured."""
    modes = document.settings.points
    return "both" if "both" in modes or not modes else modes[0]


def linears(document: Impact, spec: str, top: int) -> tuple[list[LinearImpact], int, str]:
    """The costliest under a format, out of how many, and what they are ordered by."""
    mode = main_mode(document)
    rows = [row for row in document.linears if row.format == spec]
    by = "predicted KL" if rows and rows[0].predicted_kl else "output error"

    def cost(row: LinearImpact) -> float:
        given = (row.predicted_kl or row.output_error).get(mode)
        return given.value if given is not None else 0.0

    return sorted(rows, key=lambda row: -cost(row))[:top], len(rows), f"{by} ({MODE_NAMES[mode]})"


def groups(document: Impact, spec: str, top: int) -> tuple[list[GroupCost], int]:
    """The costliest measured groups under a format, out of how many."""
    mode = main_mode(document)
    predicted = document.groups.get(spec, {}) | {
        row.module: {p: e.value for p, e in row.predicted_kl.items()}
        for row in document.linears
        if row.format == spec and row.group is None and row.predicted_kl
    }
    swaps = document.group_swaps.get(spec, {})
    measured = {name: by_mode[mode] for name, by_mode in swaps.items() if mode in by_mode}
    ranked = sorted(measured, key=lambda name: -measured[name].value)
    rows = [GroupCost(name, measured[name], predicted.get(name, {}).get(mode)) for name in ranked[:top]]
    return rows, len(ranked)
