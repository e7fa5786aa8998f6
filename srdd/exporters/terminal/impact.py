"""What quantization costs: the whole model, its layers, the costliest Linears and fusion groups.

KL is in nats per token; ± is the standard error over sequences.

Not here: numbers, and which Linears and groups are the costliest (srdd.analysis.costs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.analysis.costs import MODE_NAMES, groups, linears, main_mode
from srdd.core.metrics import significant

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.documents.impact import Estimate, Impact, LayerImpact


def show(out: Console, document: Impact, top: int) -> None:
    """Whole model, then layers, then the costliest Linears."""
    for warning in document.warnings:
        out.print(f"[yellow]warning:[/yellow] {escape(warning)}")
    if document.settings.left_out:
        out.print(f"left as they are: {escape(', '.join(document.settings.left_out))}")
    _whole(out, document)
    for spec in document.settings.formats:
        for point in document.settings.points:
            _layers(out, [r for r in document.layers if (r.format, r.point) == (spec, point)])
    _linears(out, document, top)
    _groups(out, document, top)


def _whole(out: Console, document: Impact) -> None:
    if document.reference is None:
        return
    reference = document.reference
    out.print(
        f"reference: loss {_number(reference.loss, 3)}, perplexity {reference.perplexity:.2f}, entropy "
        f"{_number(reference.entropy, 3)}"
    )
    table = Table(title="Whole model, every layer quantized", title_justify="left")
    for heading in ("format", "mode", "loss", "change %", "perplexity", "KL mean", "median", "p99", "max", "top-1 %"):
        table.add_column(heading, justify="left" if heading in ("format", "mode") else "right", no_wrap=True)
    for row in document.whole:
        table.add_row(
            row.format,
            MODE_NAMES[row.point],
            f"{row.loss.value:.3f}",
            _number(row.loss_change, 1, 100),
            f"{row.perplexity:.2f}",
            _kl(row.kl),
            significant(row.kl_median),
            significant(row.kl_p99),
            significant(row.kl_max),
            _number(row.top1, 1, 100),
        )
    out.print(table)
    for row in document.whole:
        if row.no_effect:
            out.print(f"[yellow]no effect:[/yellow] {row.format}, {MODE_NAMES[row.point]} changed nothing at all")
        parts = [
            f"{name} {value:.2f}"
            for name, value in (("measured", row.additivity), ("predicted", row.additivity_predicted))
            if value is not None
        ]
        if parts:
            added = f"single layers add up to {', '.join(parts)} of the KL of all"
            out.print(f"{row.format} {MODE_NAMES[row.point]}: {added}")


def _layers(out: Console, rows: list[LayerImpact]) -> None:
    if not rows:
        return
    what = f"{rows[0].format} {MODE_NAMES[rows[0].point]}"
    title = f"Layers, {what}: relative error of the output, and KL of this layer alone"
    table = Table(title=title, title_justify="left", padding=(0, 1, 0, 0))
    columns = {
        "predicted KL": [r.predicted_kl for r in rows],
        "joint": [r.predicted_kl_joint for r in rows],
        "Linears": [r.predicted_kl_modules for r in rows],
        "measured (swap)": [r.swap_kl for r in rows],
        "last output %": [r.swap_error if r.swap_kl is None else None for r in rows],
        "Gaussian noise": [r.noise_kl for r in rows],
    }
    shown = [name for name, values in columns.items() if any(value is not None for value in values)]
    for heading in ("layer", "isolated %", "cumulative %", "growth", *shown):
        table.add_column(heading, justify="right", no_wrap=True)
    for index, row in enumerate(rows):
        costs = ["-" if (value := columns[name][index]) is None else _cost(name, value) for name in shown]
        growth = "-" if row.growth is None else f"{row.growth:.2f}"
        isolated, cumulative = _number(row.isolated, 1, 100), _number(row.cumulative, 1, 100)
        table.add_row(str(row.layer), isolated, cumulative, growth, *costs)
    out.print(table)


def _linears(out: Console, document: Impact, top: int) -> None:
    for spec in document.settings.formats:
        rows, _, by = linears(document, spec, top)
        taken = f"{document.settings.rows} tokens a sequence" if document.settings.rows else "all tokens"
        title = f"Linears, {spec}: the {len(rows)} costliest by {by}; errors on {taken}"
        table = Table(title=title, title_justify="left")
        for heading in ("module", "output error % W", "A", "W+A", "interaction", "predicted KL W", "A", "W+A"):
            table.add_column(heading, justify="left" if heading == "module" else "right")
        for row in rows:
            errors = [f"{100 * row.output_error[p].value:.1f}" for p in MODE_NAMES]
            kls = [significant(row.predicted_kl[p].value) if p in row.predicted_kl else "-" for p in MODE_NAMES]
            table.add_row(escape(row.module), *errors, f"{row.interaction:+.2f}", *kls)
        out.print(table)


def _groups(out: Console, document: Impact, top: int) -> None:
    for spec in document.group_swaps:
        rows, _ = groups(document, spec, top)
        point = MODE_NAMES[main_mode(document)]
        title = f"Fusion groups, {spec} {point}: the {len(rows)} costliest when quantized alone"
        table = Table(title=title, title_justify="left")
        for heading in ("group", "measured KL", "sum of its Linears' predictions"):
            table.add_column(heading, justify="left" if heading == "group" else "right")
        for row in rows:
            predicted = "-" if row.predicted is None else significant(row.predicted)
            table.add_row(escape(row.name), _kl(row.measured), predicted)
        out.print(table)


def _cost(name: str, estimate: Estimate) -> str:
    if name in ("joint", "Linears"):  # side results: their errors are in the document, the table stays readable
        return significant(estimate.value)
    return _number(estimate, 1, 100) if name.endswith("%") else _kl(estimate)


def _kl(estimate: Estimate) -> str:
    return significant(estimate.value, estimate.error)


def _number(estimate: Estimate, digits: int, times: float = 1) -> str:
    text = f"{times * estimate.value:.{digits}f}"
    return text if estimate.error is None else f"{text} ± {times * estimate.error:.{digits}f}"
