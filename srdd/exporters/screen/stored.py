"""The first screen of a packed checkpoint scanned against its original: is it better or worse than rounding to nearest?

Not here: the facts (srdd.analysis.stored), and other screens (classic.py, srdd.exporters.terminal.screen).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from srdd.analysis.screen import notes_of
from srdd.analysis.short_names import name_of
from srdd.analysis.stored import MUCH_DB, CostBeside, Errors, Form, Stored
from srdd.core.metrics import BY_NAME, significant
from srdd.exporters.screen.layout import Paper
from srdd.exporters.typed import typed_model

if TYPE_CHECKING:
    from srdd.documents.report import Report

_ROLES, _NAMED = 9, 3


def render_stored(paper: Paper, report: Report, facts: Stored, where: str) -> tuple[str, ...]:
    """Everything below the header; `where` is what commands need to find the report. Returns the notes that remain."""
    paper.add()
    for place, form in enumerate(facts.forms):
        name = f"{name_of(form.stored)}: " if len(facts.forms) > 1 else ""
        paper.section("VERDICT" if not place else "", name + verdict(form))
    paper.add()
    if facts.costs is not None:
        _costs(paper, report, facts.costs)
        paper.section("", cost_verdict(facts))
        paper.add()
    rows = [(form, role, errors) for form in facts.forms for role, errors in form.roles]
    rows.sort(key=lambda row: row[2].gain_db if not math.isnan(row[2].gain_db) else math.inf)
    cells = [["WHERE", "weights", "stored", "anew", "gain"]]
    for form, role, errors in rows[:_ROLES]:
        cells.append(
            [
                f"  {role}" + (f" ({name_of(form.stored)})" if len(facts.forms) > 1 else ""),
                str(errors.weights),
                _db(errors.stored_db),
                _db(errors.fresh_db) if form.fresh is not None else "-",
                gain_text(errors) if form.fresh is not None else "-",
            ]
        )
    paper.columns(cells, indent=0)
    if len(rows) > _ROLES:
        paper.add(f"  and {len(rows) - _ROLES} more kinds of weight: srdd show{where} --stats")
    paper.add()
    again = f"srdd scan {typed_model(report.model)} --reference ORIGINAL"
    commands = [f"srdd show{where} --stats", f"srdd report{where}"]
    paper.items("NEXT", commands if report.costs is not None else [again, *commands], " · ")
    if report.costs is None:
        bent = "codecs that bend errors to cancel (GPTQ) have larger errors of weights and may cost less"
        paper.section("TRUST", f"{bent}: the cost decides, and was not measured")
    else:
        paper.section("TRUST", "the cost decides: errors of weights alone predict damage poorly")
    return notes_of(report)


def verdict(form: Form) -> str:
    """ "stored codes: 20.31 dB, round-to-nearest 20.45 dB (worse by 0.14 dB); 1 of 210 weights is worse by ..."."""
    errors = form.errors
    if form.fresh is None:
        return f"stored codes: {_db(errors.stored_db)}; no format here rounds as they are stored"
    start = f"stored codes: {_db(errors.stored_db)}, round-to-nearest {_db(errors.fresh_db)} ({_word(errors)})"
    count = len(form.much_worse)
    better = f"; {form.much_better} better by more than that" if form.much_better else ""
    if not count:
        none = f"none of {errors.weights} weights is worse by more than {MUCH_DB} dB"
        return f"{start}; {none}{better}"
    named = ", ".join(f"{name} ({gain:+.2f})" for name, gain in form.much_worse[:_NAMED])
    more = " ..." if count > _NAMED else ""
    said = f"{count} of {errors.weights} weights {'is' if count == 1 else 'are'} worse by more than {MUCH_DB} dB"
    return f"{start}; {said}: {named}{more}{better}"


def gain_text(errors: Errors) -> str:
    """With its sign; "0.00 dB" where the two are the same, as far as two digits tell."""
    gain = errors.gain_db
    return "-" if not math.isfinite(gain) else "0.00 dB" if abs(gain) < 0.005 else f"{gain:+.2f} dB"


def _word(errors: Errors) -> str:
    gain = errors.gain_db
    if gain == 0:
        return "the same"
    if not math.isfinite(gain):
        return "not comparable" if math.isnan(gain) else "without error" if gain > 0 else "the other without error"
    text = f"{abs(gain):.2f}"
    said = f"{text} dB" if float(text) else f"{abs(gain):.1g} dB"
    return f"{'better' if gain > 0 else 'worse'} by {said}"


def cost_verdict(facts: Stored) -> str:
    """Which costs less, and whether that is firm."""
    costs = facts.costs
    assert costs is not None, "they were measured"
    if costs.difference == 0:
        return "the stored codes cost what rounding anew costs"
    if not costs.firm:
        both = significant(costs.difference, costs.error)
        return f"which costs less is not firm: stored minus anew is {both} nats a token"
    word = "less" if costs.difference < 0 else "more"
    by = significant(abs(costs.difference), costs.error)
    said = f"the stored codes cost {word} than rounding anew: by {by} nats a token"
    if facts.errors_and_cost_disagree:
        said += f", although their errors are {'larger' if costs.difference < 0 else 'smaller'}: the cost decides"
    return said


def _costs(paper: Paper, report: Report, costs: CostBeside) -> None:
    clean = report.costs.clean if report.costs is not None else None
    cells = [["COST", "loss", "KL nats/token", "same token"]]
    names = {costs.stored.format: "  as stored", costs.fresh.format: "  rounded anew"}
    for row in report.costs.whole if report.costs is not None else ():
        top1 = significant(100 * row.top1.value, None if row.top1.error is None else 100 * row.top1.error)
        loss = f"{row.loss.value:.2f}"
        cells.append(
            [
                names.get(row.format, f"  {name_of(row.format)} anew"),
                loss if clean is None else f"{clean.loss.value:.2f} -> {loss}",
                "no effect" if row.no_effect else significant(row.kl.value, row.kl.error),
                f"{top1} %",
            ]
        )
    paper.columns(cells, indent=0)


def _db(value: float) -> str:
    return "exact" if value == math.inf else f"{BY_NAME['sqnr_db'].text(value)} dB"
