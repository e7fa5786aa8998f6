"""How well each score predicts the measured cost: one table for each format and mode.

Not here: the correlations (srdd.analysis.validation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.analysis.validation import Validation

_CLASSIC = ("scan: output relative_error", "scan: output sqnr_db", "scan: input relative_error", "scan: input sqnr_db")


def show(out: Console, table: Validation, model: str) -> None:
    """Scores best first, with what the classic ones are worth."""
    mode = {"weight": "W", "input": "A", "both": "W+A"}[table.mode]
    rows = Table(
        title=f"{escape(model)}, {table.format} {mode}: scores against the measured {table.measured} of "
        f"{table.rows[0].count} single {table.of}, {table.tokens} tokens",
        title_justify="left",
    )
    rows.add_column("score (larger is worse)", no_wrap=True)
    for heading in ("Spearman", "95 %", "Kendall", "median |log2|"):
        rows.add_column(heading, justify="right", no_wrap=True)
    rows.add_column("")
    for row in table.rows:
        rows.add_row(
            row.score,
            f"{row.spearman:.2f}",
            f"{row.interval[0]:.2f} to {row.interval[1]:.2f}",
            f"{row.kendall:.2f}",
            "-" if row.off is None else f"{row.off:.2f}",
            row.verdict,
        )
    out.print(rows)
    best = table.rows[0]
    out.print(f"best: {best.score}, Spearman {best.spearman:.2f} ({best.interval[0]:.2f} to {best.interval[1]:.2f})")
    classic = [row for row in table.rows if row.score in _CLASSIC]
    failing = [row.score.removeprefix("scan: ") for row in classic if row.verdict != "predicts"]
    if failing:
        out.print(f"classic scores not shown to predict the damage here: {', '.join(failing)}")
