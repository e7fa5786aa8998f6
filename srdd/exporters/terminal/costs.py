"""What quantization costs: the whole model, its layers, the costliest Linears and fusion groups.

KL is in nats per token; ± is the standard error over sequences. What stochastic rounding draws is a mean over draws,
and its spread, the standard deviation over draws, stands apart.

Not here: numbers, and which Linears and groups are the costliest (srdd.analysis.costs).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.analysis.costs import MODE_NAMES, groups, linears, main_mode
from srdd.core.metrics import significant

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.documents.costs import Cost, Costs, LayerCost, Ratio, WholeCost
    from srdd.documents.report import Report

_QUANTILES = {"0.5": "median", "0.99": "p99", "1": "max"}


def show(out: Console, report: Report, top: int) -> None:
    """Warnings, whole model, then layers, then the costliest Linears and groups of a report that has costs."""
    for warning in report.warnings:
        out.print(f"[yellow]warning:[/yellow] {escape(warning)}")
    if report.costs is not None:
        tables(out, report.costs, top)


def tables(out: Console, costs: Costs, top: int) -> None:
    if costs.settings.left_out:
        out.print(f"left as they are: {escape(', '.join(costs.settings.left_out))}")
    _whole(out, costs)
    for spec in costs.settings.formats:
        for mode in costs.settings.modes:
            _layers(out, [r for r in costs.layers if (r.format, r.mode) == (spec, mode)])
    for spec in costs.settings.formats:
        _linears(out, costs, spec, top)
    for spec in costs.settings.formats:
        _groups(out, costs, spec, top)


def _whole(out: Console, costs: Costs) -> None:
    if costs.clean is None:
        return
    clean = costs.clean
    out.print(
        f"reference: loss {_number(clean.loss, 3)}, perplexity {clean.perplexity:.2f}, entropy "
        f"{_number(clean.entropy, 3)}"
    )
    table = Table(title="Whole model, every layer quantized", title_justify="left")
    headings = ("format", "mode", "loss", "change %", "perplexity", "KL mean", *_QUANTILES.values(), "top-1 %")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("format", "mode") else "right", no_wrap=True)
    for row in costs.whole:
        change = costs.loss_change(row)
        table.add_row(
            row.format,
            MODE_NAMES[row.mode],
            f"{row.loss.value:.3f}",
            "-" if change is None else _number(change, 1, 100),
            f"{row.perplexity:.2f}",
            _kl(row.kl),
            *("-" if (value := row.kl_quantiles.get(q)) is None else significant(value) for q in _QUANTILES),  # type: ignore[call-overload]
            _number(row.top1, 1, 100),
        )
    out.print(table)
    for row in costs.whole:
        if (said := _over_draws(costs, row)) is not None:
            out.print(said)
        if row.no_effect:
            out.print(f"[yellow]no effect:[/yellow] {row.format}, {MODE_NAMES[row.mode]} changed nothing at all")
        sums = {"measured": costs.additivity(row, measured=True), "predicted": costs.additivity(row)}
        parts = [f"{name} {value:.2f}" for name, value in sums.items() if value is not None]
        if parts:
            added = f"single layers add up to {', '.join(parts)} of the KL of all"
            out.print(f"{row.format} {MODE_NAMES[row.mode]}: {added}")


def _over_draws(costs: Costs, row: WholeCost) -> str | None:
    """How far draws of stochastic rounding move the whole model's numbers, and how sure their mean is."""
    if row.kl.draws is None:
        return None
    what, count = f"{row.format} {MODE_NAMES[row.mode]}", len(row.kl.draws)
    if row.kl.spread is None:
        return f"{what}: of one draw of stochastic rounding, others may differ"
    change = costs.loss_change(row)
    spreads = {"KL": significant(row.kl.spread)}
    if change is not None and change.spread is not None:
        spreads["change of loss"] = f"{100 * change.spread:.1f} %"
    if row.top1.spread is not None:
        spreads["top-1"] = f"{100 * row.top1.spread:.1f} %"
    listed = ", ".join(f"{name} {spread}" for name, spread in spreads.items())
    sure = significant(row.kl.spread / math.sqrt(count))
    said = f"means over {count} draws of stochastic rounding, which scatter by {listed} (standard deviation)"
    return f"{what}: {said}; other {count} draws would move the mean KL by {sure} or so"


def _layers(out: Console, rows: list[LayerCost]) -> None:
    if not rows:
        return
    what = f"{rows[0].format} {MODE_NAMES[rows[0].mode]}"
    title = f"Layers, {what}: relative error of the output, and KL of this layer alone"
    if any(_spread(cost) for row in rows for cost in (row.predicted_kl, row.measured_kl)):
        title += "; draws: its standard deviation over draws"
    table = Table(title=title, title_justify="left", padding=(0, 1, 0, 0))
    columns: dict[str, list[str | None]] = {
        "isolated %": [_percent(r.isolated) for r in rows],
        "cumulative %": [_percent(r.cumulative) for r in rows],
        "growth": _growths(rows),
        "predicted KL": [_kl(r.predicted_kl) for r in rows],
        "draws": [_spread(r.predicted_kl) for r in rows],
        # side results: their errors are in the document, the table stays readable
        "own output": [significant(r.predicted_kl_own.value) if r.predicted_kl_own else None for r in rows],
        "Linears": [significant(r.predicted_kl_linears.value) if r.predicted_kl_linears else None for r in rows],
        "measured (swap)": [_kl(r.measured_kl) for r in rows],
        "its draws": [_spread(r.measured_kl) for r in rows],
        "last output %": [_percent(r.measured_error) if r.measured_kl is None else None for r in rows],
        "Gaussian noise": [_kl(r.noise_kl) for r in rows],
    }
    shown = {name: cells for name, cells in columns.items() if any(cell is not None for cell in cells)}
    for heading in ("layer", *shown):
        table.add_column(heading, justify="right", no_wrap=True)
    for index, row in enumerate(rows):
        table.add_row(str(row.layer), *(cells[index] or "-" for cells in shown.values()))
    out.print(table)


def _growths(rows: list[LayerCost]) -> list[str | None]:
    """The cumulative error over that of the layer below."""
    errors = [row.cumulative.value if row.cumulative else None for row in rows]
    pairs = zip(errors, [None, *errors], strict=False)
    return [f"{mine / below:.2f}" if mine is not None and below else None for mine, below in pairs]


def _linears(out: Console, costs: Costs, spec: str, top: int) -> None:
    rows, _, by = linears(costs, spec, top)
    if not rows:
        return
    with_errors = any(row.output_error for row in rows)
    taken = costs.settings.tokens_per_sequence
    errors_on = f"; errors on {f'{taken} tokens a sequence' if taken else 'all tokens'}" if with_errors else ""
    table = Table(title=f"Linears, {spec}: the {len(rows)} costliest by {by}{errors_on}", title_justify="left")
    headings = ("output error % W", "A", "W+A", "interaction") if with_errors else ()
    for heading in ("module", *headings, "predicted KL W", "A", "W+A"):
        table.add_column(heading, justify="left" if heading == "module" else "right")
    for row in rows:
        errors = [f"{100 * row.output_error[m].value:.1f}" if m in row.output_error else "-" for m in MODE_NAMES]
        own = [*errors, "-" if row.interaction is None else f"{row.interaction:+.2f}"] if with_errors else []
        kls = [significant(row.predicted_kl[m].value) if m in row.predicted_kl else "-" for m in MODE_NAMES]
        table.add_row(escape(row.module), *own, *kls)
    out.print(table)


def _groups(out: Console, costs: Costs, spec: str, top: int) -> None:
    rows, _, by = groups(costs, spec, top)
    if not rows:
        return
    mode = main_mode(costs, spec)
    table = Table(title=f"Fusion groups, {spec}: the {len(rows)} costliest by {by}", title_justify="left")
    swapped = any(mode in row.measured_kl for row in rows)
    for heading in ("group", *(("measured KL",) if swapped else ()), "predicted KL"):
        table.add_column(heading, justify="left" if heading == "group" else "right")
    for row in rows:
        measured = [_kl(row.measured_kl.get(mode)) or "-"] if swapped else []
        table.add_row(escape(row.name), *measured, _kl(row.predicted_kl.get(mode)) or "-")
    out.print(table)


def _kl(cost: Cost | None) -> str | None:
    return None if cost is None else significant(cost.value, cost.error)


def _spread(cost: Cost | None) -> str | None:
    return None if cost is None or cost.spread is None else significant(cost.spread)


def _percent(ratio: Ratio | None) -> str | None:
    return None if ratio is None else _number(ratio, 1, 100)


def _number(given: Cost | Ratio, digits: int, times: float = 1) -> str:
    text = f"{times * given.value:.{digits}f}"
    return text if given.error is None else f"{text} ± {times * given.error:.{digits}f}"
