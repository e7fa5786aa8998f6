"""Advice as tables: the verdict and its rule, the flagged layers, the formats beside each other.

Not here: the rules (srdd.analysis.advice).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.core.metrics import BY_NAME, RANKED, significant

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.documents.advice import Advice, WhatIf


def show(out: Console, advice: Advice, top: int) -> None:
    """Verdict and rule first, then its inputs, the flagged layers, the formats beside each other."""
    by_cost = advice.mode is not None
    of = "what layers cost" if by_cost else f"{advice.site} sites"
    out.print(f"[bold]{escape(advice.model)}[/bold]  {of}, {advice.quant}")
    for note in advice.notes:
        out.print(f"[yellow]warning:[/yellow] {escape(note)}")
    out.print(f"[bold]{advice.verdict.replace('_', ' ')}[/bold]: {advice.rule}")
    if not by_cost:
        _limits(out, advice)
    if advice.verdict == "reconsider_format":
        _say_next(out, advice)
    if advice.flagged:
        _flagged(out, advice, top)
    _formats(out, advice)
    if advice.sigma_range is not None:
        low, high = advice.sigma_range
        out.print(f"noise in training (AQN): sigma_start {low:g} to {high:g}; {advice.sigma_source}")
    if not by_cost:
        out.print(
            "[yellow]note:[/yellow] an error of a tensor is not yet a loss of the model; measure before you decide."
        )


def _limits(out: Console, advice: Advice) -> None:
    signs = {name: "<" if BY_NAME[name].better == "up" else ">" for name in advice.limits}
    limits = [f"{n} {signs[n]} {BY_NAME[n].text(v)} {BY_NAME[n].unit}".strip() for n, v in advice.limits.items()]
    origin = f"a margin around what {advice.quant} gives on Gaussian data" if advice.against == "format" else "classic"
    out.print(f"limits ({origin}): {', '.join(limits)}")


def _flagged(out: Console, advice: Advice, top: int) -> None:
    count = min(top, len(advice.flagged))
    which = "layers that carry half of the cost" if advice.mode else "flagged layers"
    table = Table(title=f"The {count} worst of {len(advice.flagged)} {which}", title_justify="left")
    beyond, gain = ("cost", "KL") if advice.mode else ("beyond", "gain")
    for heading in ("layer", beyond, "cause", f"what if ({gain}, bits a value)", "action"):
        table.add_column(heading)
    for row in advice.flagged[:top]:
        values = "\n".join(f"{n} {RANKED[n].text(v)} {RANKED[n].unit}".strip() for n, v in row.beyond.items())
        gains = "\n".join(f"{w.format} {_gain(w)}, {_bits(w.bits_per_value)}" for w in row.what_if[:2])
        table.add_row(str(row.layer), values, escape(row.cause), gains or "only one format measured", row.action)
    out.print(table)


def _gain(what_if: WhatIf) -> str:
    if what_if.predicted_kl is not None:
        return significant(what_if.predicted_kl)
    return "-" if what_if.gain_db is None else f"{what_if.gain_db:+.1f} dB"


def _formats(out: Console, advice: Advice) -> None:
    if advice.mode is not None:
        table = Table(title="Formats of this report, the whole model", title_justify="left")
        for heading in ("format:rule", "bits a value", "KL nats/token", "layers with half of it"):
            table.add_column(heading)
        for c in advice.formats:
            kl = "-" if c.kl is None else significant(c.kl.value, c.kl.error)
            table.add_row(c.format, _bits(c.bits_per_value), kl, f"{c.flagged} of {c.layers}")
        out.print(table)
        return
    table = Table(title="Formats of this report, each against its own limits", title_justify="left")
    for heading in ("format:rule", "bits a value", "mean SQNR dB", "layers beyond", ""):
        table.add_column(heading)
    for c in advice.formats:
        sqnr = "-" if c.sqnr_db is None else f"{c.sqnr_db:.2f}"
        table.add_row(c.format, _bits(c.bits_per_value), sqnr, f"{c.flagged} of {c.layers}", "passes" * c.passes)
    out.print(table)


def _say_next(out: Console, advice: Advice) -> None:
    bits = {c.format: c.bits_per_value for c in advice.formats}
    if advice.next_format is not None:
        mine, other = _bits(bits[advice.quant]), _bits(bits[advice.next_format])
        out.print(f"next format that passes: [bold]{advice.next_format}[/bold], {other} bits a value instead of {mine}")
    else:
        out.print("no better format of this report passes; scan more: --quant mxfp4,nvfp4,mxfp6_e2m3,mxfp8")


def _bits(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"
