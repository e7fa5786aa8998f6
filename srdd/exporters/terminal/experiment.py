"""Tables of an experiment for people: arms, comparisons, one plain sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.exporters.wording import conditions, layers_of, loss_of, measured_loss

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.documents.experiment import Experiment, PairedTest


def show(out: Console, document: Experiment) -> None:
    """Arms with mean ± std over seeds, comparisons with corrected p-values, and the verdict."""
    for warning in document.warnings:
        out.print(f"[yellow]warning:[/yellow] {escape(warning)}")
    settings = document.settings
    table = Table(
        title=f"{escape(document.model.id)}, {settings.format} {settings.mode}, {settings.kind}: "
        f"{measured_loss(settings)}, {len(settings.seeds)} seeds",
        title_justify="left",
    )
    for heading in ("arm", "loss, mean ± std", "noise rms", "layers with noise"):
        table.add_column(heading, justify="right" if "±" in heading or "rms" in heading else "left")
    for arm in document.arms:
        table.add_row(arm.name, loss_of(arm), f"{arm.noise_rms[0]:.3g}" if any(arm.noise_rms) else "-", layers_of(arm))
    out.print(table)
    rows = Table(title="Differences, paired by seed; below 0: the first has the lower loss", title_justify="left")
    for heading in ("comparison", "difference", "95 %", "effect size", "p", "p (Holm)", "verdict"):
        rows.add_column(heading, justify="left" if heading in ("comparison", "verdict") else "right")
    for row in document.comparisons:
        rows.add_row(f"{row.a} - {row.b}", *_numbers(row), row.verdict)
    out.print(rows)
    for line in conditions(settings):
        out.print(line, markup=False)
    out.print(f"[bold]{document.verdict}[/bold] (layers ranked by {escape(settings.ranked_by)})")


def _numbers(row: PairedTest) -> list[str]:
    if row.difference is None:
        return ["-"] * 5
    cells = [f"{row.difference:+.4f}"]
    cells.append("-" if row.interval is None else f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}")
    values = ((row.effect_size, "+.2f"), (row.p, ".2g"), (row.p_holm, ".2g"))
    return [*cells, *("-" if value is None else format(value, spec) for value, spec in values)]
