"""How much of a LoRA adapter survives quantization, by role and format: a table of a few lines.

Not here: what the numbers mean (srdd.core.adapters) and single weights, which stand in the report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.documents.adapter import AdapterPart, Survival, joined

if TYPE_CHECKING:
    from rich.console import Console


def by_role(part: AdapterPart) -> list[Survival]:
    """The rows of every format: each role, ratios of sums, and all of them."""
    rows = []
    for spec in dict.fromkeys(row.format for row in part.survival):
        mine = [row for row in part.survival if row.format == spec]
        roles = dict.fromkeys(row.role for row in mine)
        rows += [joined((row for row in mine if row.role == role), role) for role in roles]
        rows += [joined(mine, "all")] if len(roles) > 1 else []
    return rows


def show(out: Console, part: AdapterPart) -> None:
    """The table under a line that says what it is of."""
    if not part.survival:
        return
    out.print(
        f"Adapter [bold]{escape(part.id)}[/bold], measured {part.form}. What arrives of it where "
        f"{'the merged weight is' if part.form == 'merged' else 'it would be merged and then'} quantized:"
    )
    table = Table()
    table.add_column("format", no_wrap=True)
    table.add_column("role", no_wrap=True, overflow="fold")
    for heading in ("size %", "survives", "rel.err", "moved %", "apart dB", "merged dB"):
        table.add_column(heading, justify="right")
    before = ""
    for row in by_role(part):
        spec, before = (row.format if row.format != before else ""), row.format
        table.add_row(
            spec,
            escape(row.name),
            _number(row.relative_size, 100),
            _number(row.survival),
            _number(row.relative_error),
            _number(row.moved / row.n if row.n else None, 100),
            _number(row.sqnr_apart_db),
            _number(row.sqnr_merged_db),
        )
    out.print(table)


def _number(value: float | None, times: float = 1.0) -> str:
    return "-" if value is None else f"{times * value:.2f}"
