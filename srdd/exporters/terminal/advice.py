"""Advice as tables: the verdict and its rule, the flagged layers, the formats beside each other.

Not here: the rules (srdd.analysis.advice).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.core.metrics import BY_NAME

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.documents.advice import Advice


def show(out: Console, advice: Advice, top: int) -> None:
    """Verdict and rule first, then its inputs, the flagged layers, the formats beside each other."""
    out.print(f"[bold]{escape(advice.model)}[/bold]  {advice.site} sites, {advice.quant}")
    for note in advice.notes:
        out.print(f"[yellow]warning:[/yellow] {escape(note)}")
    out.print(f"[bold]{advice.verdict.replace('_', ' ')}[/bold]: {advice.rule}")
    signs = {name: "<" if BY_NAME[name].better == "up" else ">" for name in advice.limits}
    limits = [f"{n} {signs[n]} {BY_NAME[n].text(v)} {BY_NAME[n].unit}".strip() for n, v in advice.limits.items()]
    origin = f"a margin around what {advice.quant} gives on Gaussian data" if advice.against == "format" else "classic"
    out.print(f"limits ({origin}): {', '.join(limits)}")
    if advice.verdict == "reconsider_format":
        _say_next(out, advice)
    if advice.flagged:
        count = min(top, len(advice.flagged))
        table = Table(title=f"The {count} worst of {len(advice.flagged)} flagged layers", title_justify="left")
        for heading in ("layer", "beyond", "cause", "what if (gain, bits a value)", "action"):
            table.add_column(heading)
        for row in advice.flagged[:top]:
            beyond = "\n".join(f"{n} {BY_NAME[n].text(v)} {BY_NAME[n].unit}".strip() for n, v in row.beyond.items())
            gains = "\n".join(f"{w.format} {w.gain_db:+.1f} dB, {_bits(w.bits_per_value)}" for w in row.what_if[:2])
            table.add_row(str(row.layer), beyond, row.cause, gains or "only one format measured", row.action)
        out.print(table)
    table = Table(title="Formats of this report, each against its own limits", title_justify="left")
    for heading in ("format:rule", "bits a value", "mean SQNR dB", "layers beyond", ""):
        table.add_column(heading)
    for c in advice.formats:
        sqnr = "-" if c.sqnr_db is None else f"{c.sqnr_db:.2f}"
        table.add_row(c.format, _bits(c.bits_per_value), sqnr, f"{c.flagged} of {c.layers}", "passes" * c.passes)
    out.print(table)
    if advice.sigma_range is not None:
        low, high = advice.sigma_range
        out.print(f"noise in training (AQN): sigma_start {low:g} to {high:g}; {advice.sigma_source}")
    out.print("[yellow]note:[/yellow] an error of a tensor is not yet a loss of the model; measure before you decide.")


def _say_next(out: Console, advice: Advice) -> None:
    bits = {c.format: c.bits_per_value for c in advice.formats}
    if advice.next_format is not None:
        mine, other = _bits(bits[advice.quant]), _bits(bits[advice.next_format])
        out.print(f"next format that passes: [bold]{advice.next_format}[/bold], {other} bits a value instead of {mine}")
    else:
        out.print("no better format of this report passes; scan more: --quant mxfp4,nvfp4,mxfp6_e2m3,mxfp8")


def _bits(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"
