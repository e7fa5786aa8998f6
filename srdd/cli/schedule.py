"""`srdd schedule`: the noise of a rin.yaml over a training, step by step, before it is run."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.noise.schedule import Stretch
    from srdd.rin import RinConfig

_ROWS = 40  # a table of more stretches is thinned
_WIDTH, _HEIGHT = 64, 12


def schedule(
    document: Annotated[Path, typer.Argument(help="rin.yaml as `srdd multipliers --out` writes it.")],
    steps: Annotated[int, typer.Option("--steps", help="Optimizer steps of the whole training.")],
    layer: Annotated[int | None, typer.Option("--layer", help="Show the noise of this layer, phases included.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One sigma per step for machines, on stdout.")] = False,
) -> None:
    """Print and plot sigma over the steps of a training.

    Example: srdd schedule rin.yaml --steps 200
    """
    import json

    from srdd import rin
    from srdd.cli import console
    from srdd.errors import OptionError
    from srdd.noise import schedule as course

    config = rin.load(document)
    if steps < 1:
        raise OptionError(f"--steps {steps}: expected 1 or more")
    if layer is not None and layer not in config.layer_multipliers:
        known = f"0 to {max(config.layer_multipliers)}"
        raise OptionError(f"--layer {layer}: {document} has layers {known}")
    factor = [1.0 if layer is None else course.multiplier(config, layer, None, step, steps) for step in range(steps)]
    values = [course.sigma(config.schedule, step, steps) * factor[step] for step in range(steps)]
    if as_json:
        rows = {"total_steps": steps, "layer": layer, "sigma": values}
        console.machine(json.dumps(rows, indent=1) + "\n")
        return
    show(console.people(), config, values, layer)


def show(out: Console, config: RinConfig, values: list[float], layer: int | None) -> None:
    """A table of stretches of equal sigma and a curve."""
    from rich.markup import escape
    from rich.table import Table

    what = "sigma" if layer is None else f"sigma of layer {layer}"
    out.print(f"[bold]{what} over {len(values)} steps, {escape(config.provenance.model)}[/bold]")
    table = Table()
    for name in ("steps", what):
        table.add_column(name, justify="right")
    rows = list(_stretches(values))
    shown = rows if len(rows) <= _ROWS else [*rows[: _ROWS // 2], None, *rows[-_ROWS // 2 :]]
    for row in shown:
        if row is None:
            table.add_row("...", "...")
        else:
            table.add_row(f"{row.first}-{row.last}" if row.last > row.first else str(row.first), _text(row.sigma))
    out.print(table)
    for line in curve(values):
        out.print(line, highlight=False)
    silent = sum(value == 0 for value in values)
    mean = sum(values) / len(values)
    out.print(f"{silent} of {len(values)} steps without noise; mean {what} {mean:.4g}")
    if config.phases and layer is None:
        shares = ", ".join(f"{phase.from_share:.0%}" for phase in config.phases)
        out.print(f"phases change the layers' factors from {shares} of the training on; see them with --layer N")
    if config.relative:
        out.print("relative: sigma counts in units of each weight's own root mean square")


def curve(values: list[float]) -> list[str]:
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


def _text(sigma: float) -> str:
    return "silent" if sigma == 0 else f"{sigma:.4g}"


def _stretches(values: list[float]) -> list[Stretch]:
    from srdd.noise.schedule import Stretch

    rows: list[Stretch] = []
    for step, value in enumerate(values):
        if rows and rows[-1].sigma == value:
            rows[-1] = Stretch(rows[-1].first, step, value)
        else:
            rows.append(Stretch(step, step, value))
    return rows
