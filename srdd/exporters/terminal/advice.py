"""Advice as tables: the verdict and its rule, the flagged layers, the formats beside each other.

Not here: the rules (srdd.analysis.advice).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.analysis.breaks import source_in_words
from srdd.analysis.short_names import name_of, short_name
from srdd.core.metrics import BY_NAME, RANKED, significant

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.documents.advice import Advice, DearGroup, NoiseAdvice, Remedy, WhatIf


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
    if by_cost:
        _costly(out, advice, top)
    elif advice.flagged:
        _flagged(out, advice, top)
    _formats(out, advice)
    if advice.noise is not None:
        _noise(out, advice.noise)
    if not by_cost:
        out.print(
            "[yellow]note:[/yellow] an error of a tensor is not yet a loss of the model; measure before you decide."
        )


def _limits(out: Console, advice: Advice) -> None:
    signs = {name: "<" if BY_NAME[name].better == "up" else ">" for name in advice.limits}
    limits = [f"{n} {signs[n]} {BY_NAME[n].text(v)} {BY_NAME[n].unit}".strip() for n, v in advice.limits.items()]
    origin = f"a margin around what {advice.quant} gives on Gaussian data" if advice.against == "format" else "classic"
    out.print(f"limits ({origin}): {', '.join(limits)}")


def _costly(out: Console, advice: Advice, top: int) -> None:
    """The dearest groups, the layers that they make dear, and what to keep."""
    if advice.groups:
        count = min(top, len(advice.groups))
        of = f"{len(advice.groups)} fusion groups that carry half of the cost"
        table = Table(title=f"The {count} dearest of {of}", title_justify="left")
        others = [w.format for w in advice.groups[0].what_if]
        saved = [f"saved in {name_of(spec, others)}" for spec in others]
        for heading in ("group", "KL nats/token", "share", *saved, "why"):
            table.add_column(heading)
        for row in advice.groups[:top]:
            kls = {w.format: w.predicted_kl or 0.0 for w in row.what_if}
            table.add_row(
                escape(short_name(row)),
                significant(row.predicted_kl.value, row.predicted_kl.error),
                f"{row.share:.0%}",
                *(significant(row.predicted_kl.value - kls[spec]) if spec in kls else "-" for spec in others),
                escape(_why(row)),
            )
        out.print(table)
    if advice.flagged:
        numbers = ", ".join(str(row.layer) for row in advice.flagged)
        out.print(f"layers that carry half of the cost, dearest first: {numbers}")
    if advice.remedies:
        table = Table(title="What to do: groups to keep in a higher format, or another format", title_justify="left")
        for heading in ("", "bits", "KL nats/token", "then it"):
            table.add_column(heading)
        for one in advice.remedies:
            kl = f"{significant(one.kl.value, one.kl.error)} {'predicted' if one.higher else 'measured'}"
            table.add_row(escape(_remedy(one)), f"{one.bits_per_value:.2f}", kl, VERDICTS[one.word])
        out.print(table)
        out.print("every list of groups in full: --json; how they are found: `srdd show --stats`")


VERDICTS = {
    "free": "is free",
    "small": "costs little",
    "noticeable": "costs noticeably",
    "too much": "costs too much still",
}
_NAMED = 6  # groups of a list


def _remedy(one: Remedy) -> str:
    if one.higher is None:
        return f"{name_of(one.base)} throughout"
    names = [short_name(group) for group in one.keep[:_NAMED]]
    more = f" and {len(one.keep) - _NAMED} more" if len(one.keep) > _NAMED else ""
    return f"{name_of(one.base)}, keep in {name_of(one.higher)}: {', '.join(names)}{more}"


def _why(row: DearGroup) -> str:
    blamed = "weights and inputs" if row.blame == "both" else row.blame
    return ": ".join(part for part in (blamed, row.cause) if part) or "-"


def _noise(out: Console, noise: NoiseAdvice) -> None:
    dose = noise.dose
    parts = [f"start at sigma {noise.sigma_start:g} with `srdd multipliers --strategy {noise.strategy}`"]
    if dose.predicted_kl is not None:
        parts.append(f"predicted to cost {significant(dose.predicted_kl.value, dose.predicted_kl.error)} nats a token")
    if dose.break_sigma is not None:
        interval = dose.break_interval
        between = f" ({interval[0]:.3g} to {interval[1]:.3g})" if interval else ""
        parts.append(f"the model breaks at {dose.break_sigma:.3g}{between}, {source_in_words(dose)}")
    out.print(f"noise in training on {noise.target} weights: {'; '.join(parts)}")


def _flagged(out: Console, advice: Advice, top: int) -> None:
    count = min(top, len(advice.flagged))
    table = Table(title=f"The {count} worst of {len(advice.flagged)} flagged layers", title_justify="left")
    for heading in ("layer", "beyond", "cause", "what if (gain, bits a value)", "action"):
        table.add_column(heading)
    for row in advice.flagged[:top]:
        values = "\n".join(f"{n} {RANKED[n].text(v)} {RANKED[n].unit}".strip() for n, v in row.beyond.items())
        gains = "\n".join(f"{w.format} {_gain(w)}, {_bits(w.bits_per_value)}" for w in row.what_if[:2])
        table.add_row(str(row.layer), values, escape(row.cause), gains or "only one format measured", row.action)
    out.print(table)


def _gain(what_if: WhatIf) -> str:
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
