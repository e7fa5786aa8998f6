"""The noise over a training: a table of stretches of equal sigma, and a curve.

Not here: sigma at a step (srdd.documents.schedule).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.documents.schedule import Stretch

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.documents.rin import RinConfig

_ROWS = 40  # a longer table shows its first and last stretches
_WIDTH, _HEIGHT = 64, 12  # of the curve, in characters


def show(out: Console, config: RinConfig, values: list[float], layer: int | None) -> None:
    """`values` holds sigma at every step: that of `layer`, or with None that of the schedule itself."""
    what = "sigma" if layer is None else f"sigma of layer {layer}"
    out.print(f"[bold]{what} over {len(values)} steps, {escape(config.provenance.model)}[/bold]")
    table = Table()
    for name in ("steps", what):
        table.add_column(name, justify="right")
    rows = _stretches(values)
    shown = rows if len(rows) <= _ROWS else [*rows[: _ROWS // 2], None, *rows[-_ROWS // 2 :]]
    for row in shown:
        if row is None:
            table.add_row("...", "...")
        else:
            table.add_row(f"{row.first}-{row.last}" if row.last > row.first else str(row.first), _text(row.sigma))
    out.print(table)
    for line in _curve(values):
        out.print(line, highlight=False)
    silent = sum(value == 0 for value in values)
    mean = sum(values) / len(values)
    out.print(f"{silent} of {len(values)} steps without noise; mean {what} {mean:.4g}")
    if config.phases and layer is None:
        shares = ", ".join(f"{phase.from_share:.0%}" for phase in config.phases)
        out.print(f"phases change the layers' factors from {shares} of the training on; see them with --layer N")
    if config.relative:
        out.print("relative: sigma counts in units of each weight's own root mean square")


def _stretches(values: list[float]) -> list[Stretch]:
    """Consecutive steps of one sigma."""
    rows: list[Stretch] = []
    for step, value in enumerate(values):
        if rows and rows[-1].sigma == value:
            rows[-1] = Stretch(rows[-1].first, step, value)
        else:
            rows.append(Stretch(step, step, value))
    return rows


def _text(sigma: float) -> str:
    return "silent" if sigma == 0 else f"{sigma:.4g}"


def _curve(values: list[float]) -> list[str]:
    """A plot in characters: columns are steps (the largest of each bin), rows are sigma from 0 up."""
    starts = [i * len(values) // _WIDTH for i in range(_WIDTH + 1)]
    bins = [max(values[a : max(b, a + 1)]) for a, b in pairwise(starts)]
    top = max(values) or 1.0
    lines = []
    for row in range(_HEIGHT, 0, -1):
        eighths = [round(8 * _HEIGHT * value / top) - 8 * (row - 1) for value in bins]
        label = f"{top * row / _HEIGHT:8.3g}" if row in (_HEIGHT, _HEIGHT // 2) else " " * 8
        lines.append(f"{label} │" + "".join(" ▁▂▃▄▅▆▇█"[min(8, max(0, e))] for e in eighths))
    lines.append(f"{'0':>8} └" + "─" * _WIDTH)
    lines.append(f"{'':10}0{f'{len(values) - 1}':>{_WIDTH - 1}}")
    return lines
