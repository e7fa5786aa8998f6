"""A scan report: who was measured, every format's summary, the worst layers, bars, the modules of one layer.

Not here: numbers. Every figure is read from the report; this file chooses and aligns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.analysis.rankings import agreement, worst
from srdd.analysis.single_blocks import noisiest_block, sqnr_swing_db
from srdd.core.metrics import BY_NAME, MAIN
from srdd.documents.parts import Kind
from srdd.documents.schema import Layer, Measurement, Site, SummaryRow

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.documents.report import Report

_KIND_TITLES = {"weight": "Weights", "input": "Linear inputs", "output": "Decoder-layer outputs"}
_BAR_WIDTH = 40
_MODULE_METRICS = {
    "sqnr_db": "SQNR dB",
    "relative_error": "rel.err %",
    "deadzone_ratio": "zeroed %",
    "saturation_ratio": "clipped %",
    "kurtosis": "kurtosis",
    "crest": "crest",
    "noise_deadzone": "noise by 0 %",
    "noise_clipped": "by clip %",
}


def show(out: Console, report: Report, kinds: Sequence[Kind], specs: Sequence[str], top: int) -> None:
    """The report's head and summaries; the `top` worst layers and bars of one kind under the first format."""
    header(out, report)
    summary(out, report, kinds, specs)
    worst_layers(out, report, _main_kind(kinds), specs[0], top)
    _bars(out, report, _main_kind(kinds), specs[0])


def show_layer(out: Console, report: Report, kinds: Sequence[Kind], spec: str, layer: int | None) -> bool:
    """Every site of one layer (None: those outside the layers) under one format; False when there is none."""
    sites = [s for s in report.sites if s.layer == layer and s.kind in kinds and spec in s.formats]
    if not sites:
        return False
    title = f"Layer {layer}, {spec}" if layer is not None else f"Outside the layers, {spec}"
    table = Table(title=title, title_justify="left")
    table.add_column("kind", no_wrap=True)
    table.add_column("module", no_wrap=True, overflow="fold")
    for heading in _MODULE_METRICS.values():
        table.add_column(heading, justify="right")
    for site in sites:
        also = f" (+ {', '.join(m.rpartition('.')[2] for m in site.members[1:])})" if site.members else ""
        measured = site.formats[spec]
        cells = (BY_NAME[name].text(measured.value(name)) for name in _MODULE_METRICS)
        table.add_row(site.kind, escape(_short_name(site.name, layer) + also), *cells)
    out.print(table)
    _single_blocks(out, sites, spec, layer)
    return True


def _single_blocks(out: Console, sites: Sequence[Site], spec: str, layer: int | None) -> None:
    """The quantiles of single blocks beside how far the SQNR of sums may move by nothing, and the noisiest block."""
    counted = [site for site in sites if site.formats[spec].blocks is not None]
    if not counted:
        return
    table = Table(title="Single blocks; how far the SQNR may swing with the place of the largest values")
    table.title_justify = "left"
    table.add_column("kind", no_wrap=True)
    table.add_column("module", no_wrap=True, overflow="fold")
    for heading in ("median dB", "5 % dB", "1 % dB", "SQNR dB", "swing dB", "noise %"):
        table.add_column(heading, justify="right")
    table.add_column("is in the block at")
    for site in counted:
        measured, found = site.formats[spec], noisiest_block(site, spec)
        names = ("block_sqnr_db", "block_sqnr_p5_db", "block_sqnr_p1_db", "sqnr_db")
        cells = [BY_NAME[name].text(measured.value(name)) for name in names]
        cells.append(BY_NAME["sqnr_db"].text(sqnr_swing_db(measured, spec)))
        share, place = (f"{100 * found.share:.2f}", found.text) if found is not None else ("-", "-")
        table.add_row(site.kind, escape(_short_name(site.name, layer)), *cells, share, place)
    out.print(table)


def header(out: Console, report: Report) -> None:
    """Who was measured, how, and what was left out."""
    model, settings = report.model, report.settings
    facts = [f"{model.layer_count or '?'} layers", f"{model.parameter_count / 1e6:.1f} M parameters"]
    out.print(f"[bold]{escape(model.id)}[/bold]  {escape(model.architecture or '')}, {', '.join(facts)}")
    out.print(f"formats (with scale rule): {', '.join(settings.formats)}")
    if settings.calibration:
        c = settings.calibration
        count = len(c.sequence_hashes)
        out.print(f"tokens: {c.tokens} ({count} sequences of {c.seq_len}) from {escape(c.source)}")
    if settings.selection:
        out.print(f"selected: {escape(settings.selection)}")
    _coverage(out, report)


def _coverage(out: Console, report: Report) -> None:
    """What ran, what the weights cover, and the warnings."""
    settings, coverage = report.settings, report.coverage
    out.print(
        f"device {settings.device}, {settings.dtype}; kernel {settings.backend}: {escape(settings.backend_reason)}"
    )
    if "weight" in settings.kinds and coverage.parameters:
        rest = coverage.parameters - coverage.measured
        out.print(f"weights cover {coverage.share:.1%} of the parameters; {rest:,} left out in {_reasons(report)}")
    for warning in report.warnings:
        out.print(f"[yellow]warning:[/yellow] {escape(warning)}")


def _reasons(report: Report) -> str:
    counts: dict[str, int] = {}
    for row in report.coverage.skipped:
        counts[row.reason.partition(":")[0]] = counts.get(row.reason.partition(":")[0], 0) + 1
    return ", ".join(f"{count} x {reason}" for reason, count in counts.items()) or "nothing"


def _main_kind(kinds: Sequence[Kind]) -> Kind:
    """The kind whose layers are ranked first: outputs say what a layer passes on."""
    return "output" if "output" in kinds else kinds[0]


def summary(out: Console, report: Report, kinds: Sequence[Kind], specs: Sequence[str]) -> None:
    """One table per kind: every format with its main metrics over the layers, and both verdicts."""
    for kind in kinds:
        rows = [r for r in report.summary if r.kind == kind and r.format in specs and r.metric in MAIN]
        if not rows:
            continue
        layers = [layer for layer in report.layers if layer.kind == kind]
        counts = [_count_measured(layers, row) for row in rows]
        title = f"{_KIND_TITLES[kind]}, {_over(max(counts), len(layers))}"
        table = Table(title=title, title_justify="left")
        table.add_column("format:rule", no_wrap=True)
        table.add_column("metric", no_wrap=True)
        for name in ("min", "mean ± std", "max", "Gaussian"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("classic limit", no_wrap=True)
        table.add_column("unusual for this model")
        for index, row in enumerate(rows):
            last = index + 1 == len(rows) or rows[index + 1].format != row.format
            table.add_row(*_summary_cells(row, counts[index], first=row.metric == MAIN[0]), end_section=last)
        out.print(table)


def _count_measured(layers: Sequence[Layer], row: SummaryRow) -> int:
    """How many layers hold a number, exact copies among them."""
    found = (layer.formats[row.format].value(row.metric) for layer in layers if row.format in layer.formats)
    return sum(not math.isnan(value) for value in found)


def _summary_cells(row: SummaryRow, count: int, *, first: bool) -> tuple[str, ...]:
    metric = BY_NAME[row.metric]
    unit = f" {metric.unit}" if metric.unit else ""
    spread = f"{metric.text(row.mean)} ± {metric.text(row.std)}"
    if row.zero_by_construction:
        classic = "zero by construction"
    elif row.threshold is None:
        classic = "-"
    else:
        sign = "<" if metric.better == "up" else ">"
        classic = f"{len(row.over_threshold)}/{count} {sign} {metric.text(row.threshold)}{unit}"
    return (
        row.format if first else "",
        f"{row.metric}{unit}",
        metric.text(row.min),
        spread,
        metric.text(row.max),
        metric.text(row.gaussian),
        classic,
        _layers(row.unusual),
    )


def _layers(numbers: Sequence[int]) -> str:
    if not numbers:
        return "none"
    return f"layer{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def worst_layers(out: Console, report: Report, kind: Kind, spec: str, top: int) -> None:
    """Two lists side by side, the worst layers by relative error and by SQNR; then whether the two agree."""
    layers = [layer for layer in report.layers if layer.kind == kind and spec in layer.formats]
    by_error = worst(layers, spec, "relative_error", top)
    by_sqnr = worst(layers, spec, "sqnr_db", top)
    count = max(len(by_error), len(by_sqnr))
    if not count:
        return
    missing = len(layers) - sum(not math.isnan(layer.formats[spec].value("relative_error")) for layer in layers)
    title = f"{_KIND_TITLES[kind]}, {spec}: the {count} worst layers by relative error, and by SQNR"
    title += f" ({_without_numbers(missing)})" if missing else ""
    table = Table(title=title, title_justify="left")
    for heading in ("by error:\nlayer", "rel. error %", "SQNR dB"):
        table.add_column(heading, justify="right")
    for heading in ("by SQNR:\nlayer", "SQNR dB", "swing dB", "rel. error %", "zeroed %", "crest"):
        table.add_column(heading, justify="right")
    for index in range(count):
        left = _cells(by_error, index, spec, ("relative_error", "sqnr_db"))
        layer, value, *others = _cells(by_sqnr, index, spec, ("sqnr_db", "relative_error", "deadzone_ratio", "crest"))
        table.add_row(*left, layer, value, _swing(by_sqnr, index, spec), *others)
    out.print(table)
    found = agreement(layers, spec, top)
    if found:
        out.print(found.sentence())


def _cells(ranked: Sequence[Layer], index: int, spec: str, names: Sequence[str]) -> tuple[str, ...]:
    """A layer, the value it is ranked by with its error, and the other values."""
    if index >= len(ranked):
        return ("",) * (1 + len(names))
    layer, (first, *rest) = ranked[index], names
    measured = layer.formats[spec]
    others = (BY_NAME[name].text(measured.value(name)) for name in rest)
    return (str(layer.layer), _with_error(measured, first), *others)


def _swing(ranked: Sequence[Layer], index: int, spec: str) -> str:
    """How far the layer's SQNR may move with the place of its largest values."""
    known = index < len(ranked)
    return BY_NAME["sqnr_db"].text(sqnr_swing_db(ranked[index].formats[spec], spec)) if known else ""


def _with_error(measured: Measurement, name: str) -> str:
    """18.74 ± 0.12 where the standard error over sequences is known."""
    metric = BY_NAME[name]
    error = measured.error(name)
    text = metric.text(measured.value(name))
    return text if math.isnan(error) else f"{text} ± {metric.text(error)}"


def _over(measured: int, layers: int) -> str:
    if measured == layers:
        return f"over {layers} layers"
    return f"over {measured} of {layers} layers ({_without_numbers(layers - measured)})"


def _without_numbers(count: int) -> str:
    return f"{count} {'holds' if count == 1 else 'hold'} no numbers"


def _bars(out: Console, report: Report, kind: Kind, spec: str, metric_name: str = "relative_error") -> None:
    """One bar per layer, from zero to the largest value, the Gaussian baseline named beside the title."""
    metric = BY_NAME[metric_name]
    rows = [(layer.layer, layer.formats[spec].value(metric_name)) for layer in report.layers if layer.kind == kind]
    rows = [(layer, value) for layer, value in rows if math.isfinite(value)]
    largest = max((abs(value) for _, value in rows), default=0.0)
    if largest == 0:
        return
    unusual = next((r.unusual for r in report.summary if (r.kind, r.format, r.metric) == (kind, spec, metric_name)), [])
    unit = f" {metric.unit}" if metric.unit else ""
    out.print(f"{metric_name}{unit} by layer, {_KIND_TITLES[kind].lower()}, {spec}")
    for layer, value in rows:
        filled = "█" * max(round(_BAR_WIDTH * abs(value) / largest), 0)
        colour, mark = ("red", "  unusual") if layer in unusual else ("cyan", "")
        out.print(f"{layer:4d} [{colour}]{filled:<{_BAR_WIDTH}}[/{colour}] {metric.text(value):>7}{mark}")


def _short_name(name: str, layer: int | None) -> str:
    """Inside a layer the common prefix says nothing: model.layers.3.mlp.up_proj -> mlp.up_proj."""
    parts = name.split(".")
    cut = next((i + 1 for i, part in enumerate(parts) if layer is not None and part.isdigit()), 0)
    return ".".join(parts[cut:]) or "output"
