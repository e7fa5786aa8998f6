"""How much of a LoRA adapter survives quantization: a table of a few lines for each format, a line for each role.

`size` is the adapter's norm beside the changed weight's; dB are those of the changed weight, with the adapter apart and
with it merged.

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
    what = f"Adapter [bold]{escape(part.id)}[/bold], measured {part.form}."
    out.print(f"{what}\nWhat of it arrives in a merged and then quantized weight:")
    rows = by_role(part)
    for spec in dict.fromkeys(row.format for row in rows):
        table = Table(title=spec, title_justify="left")
        table.add_column("role", overflow="fold")
        for heading in ("size %", "survives", "rel.err", "moved %", "apart dB", "merged dB"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            if row.format == spec:
                moved = row.moved / row.n if row.n else None
                share = [_number(row.relative_size, 100), _number(row.survival), _number(row.relative_error)]
                decibels = [_number(row.sqnr_apart_db), _number(row.sqnr_merged_db)]
                table.add_row(escape(row.name), *share, _number(moved, 100), *decibels)
        out.print(table)


def _number(value: float | None, times: float = 1.0) -> str:
    return "-" if value is None else f"{times * value:.2f}"
