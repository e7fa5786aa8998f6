"""What changed between two reports, or drifts over several.

Not here: numbers. Every figure is read from a Comparison or a DriftTable; this file chooses, aligns and colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.core.metrics import MAIN, RANKED, Metric
from srdd.documents.comparison import (
    Comparison,
    ComparisonDocument,
    Difference,
    Drift,
    DriftTable,
)
from srdd.exporters.wording import change_text, value_text

if TYPE_CHECKING:
    from rich.console import Console

_MOST_VALUES = 6  # of a series: more columns than this would not fit, the first and the last stay


def show(out: Console, document: ComparisonDocument, top: int, main: Sequence[Sequence[Comparison]] = ()) -> None:
    """The drift, or the whole model and the first comparison in detail, and `main`, the main metrics of every kind."""
    _header(out, document)
    if document.drift:
        _drift(out, document.drift[0], document.reports, top)
        return
    if document.beginning is not None:
        out.print(escape(document.beginning.text))
    by_cost = document.comparisons[0].mode is not None
    if main and not by_cost:
        _overview(out, main)
    if document.whole:
        _table(out, "The whole model, nats a token", RANKED["predicted_kl"], document.whole)
    _details(out, document.comparisons[0], top)
    if main and by_cost:  # what explains comes after what ranks
        _overview(out, main)


def _header(out: Console, document: ComparisonDocument) -> None:
    """Which reports, which models, and what differs without harm."""
    for place, (name, model) in enumerate(zip(document.reports, document.models, strict=True)):
        role = f"report {place + 1}" if document.drift else "new" if place else "base"
        out.print(f"{role + ':':<{10 if document.drift else 5}} [bold]{escape(model)}[/bold]  {escape(name)}")
    for note in document.notes:
        out.print(f"[yellow]note:[/yellow] {escape(note)}")


def _overview(out: Console, main: Sequence[Sequence[Comparison]]) -> None:
    """Every kind and format: the mean change over layers and the largest change, for the main metrics."""
    table = Table(title="Mean change over layers, and the largest", title_justify="left")
    table.add_column("sites", no_wrap=True)
    table.add_column("format:rule", no_wrap=True)
    for name in MAIN:
        table.add_column(f"{name.removesuffix('_db').replace('_', ' ')}\n{_unit(RANKED[name])}", justify="right")
    for row in main:
        kind, base, new = row[0].kind, row[0].base_format, row[0].new_format
        table.add_row(kind, base if base == new else f"{base}\nto {new}", *map(_overview_cell, row))
    out.print(table)


def _overview_cell(comparison: Comparison) -> str:
    rows = comparison.measured
    if not rows:
        return "-"
    metric, largest = RANKED[comparison.metric], max(rows, key=lambda row: abs(row.change))
    if largest.change == 0:
        return "same"
    return f"{change_text(metric, comparison.mean_change)}\n{_coloured(metric, largest)} {largest.name}"


def _details(out: Console, comparison: Comparison, top: int) -> None:
    """Zones, then layers, largest change first, then sites outside the layers."""
    metric = RANKED[comparison.metric]
    title = f"{metric.name}, {comparison.place}"
    parts = (("Zones", comparison.zones), ("Layers", comparison.layers), ("Outside the layers", comparison.outside))
    for what, rows in parts:
        changed = [row for row in rows if row.change != 0 and not math.isnan(row.change)]
        if changed:
            _table(out, f"{what}: {title}{_of(changed, top)}", metric, changed[:top])
        if what == "Layers" and (same := sum(row.change == 0 for row in rows)):
            which = "all layers are" if same == len(rows) else "1 layer is" if same == 1 else f"{same} layers are"
            out.print(f"{title}: {which} exactly the same.")
        if missing := [row.name for row in rows if math.isnan(row.change)]:
            text = escape(", ".join(missing))
            out.print(f"[yellow]note:[/yellow] {metric.name} is not measured in both reports for {text}")
    changes = [row for row in comparison.measured if row.change != 0]
    if changes and not any(math.isfinite(row.standard_error) for row in changes):
        weights = comparison.kind == "weight"
        reason = "weights are not a sample" if weights else "no calibration sequences are known to be in both reports"
        out.print(f"No standard errors: {reason}.")


def _table(out: Console, title: str, metric: Metric, rows: Sequence[Difference]) -> None:
    out.print(f"[italic]{title}[/italic]")  # as a title of the table it would be wrapped to the table's width
    table = Table()
    table.add_column("", no_wrap=True)
    for heading in ("base", "new", "change"):
        table.add_column(f"{heading} {_unit(metric) if heading == 'change' else metric.unit}".strip(), justify="right")
    table.add_column("")
    for row in rows:
        base, new = value_text(metric, row.base), value_text(metric, row.new)
        table.add_row(escape(row.name), base, new, _coloured(metric, row, error=True), _verdict(row))
    out.print(table)


def _drift(out: Console, table: DriftTable, reports: Sequence[str], top: int) -> None:
    """Zones, then layers, largest drift first: the values, the change from first to last, the slope a report."""
    metric = RANKED[table.metric]
    places = list(range(len(reports)))
    if len(places) > _MOST_VALUES:
        places = [*places[: _MOST_VALUES - 1], places[-1]]
    title = f"{metric.name}{f' {metric.unit}' if metric.unit else ''}, {table.place}"
    parts = (("Zones", table.zones), ("Layers", table.layers), ("Outside the layers", table.outside))
    for what, rows in parts:
        known = [row for row in rows if not math.isnan(row.change)]
        if not known:
            continue
        out.print(f"[italic]{what}: drift of {title}{_of(known, top)}[/italic]")
        shown = Table()
        shown.add_column("", no_wrap=True)
        for index, place in enumerate(places):
            gap = index and place != places[index - 1] + 1
            shown.add_column(f"{'... ' if gap else ''}{place + 1}", justify="right", no_wrap=True)
        shown.add_column(f"first to last {_unit(metric)}".strip(), justify="right", no_wrap=True)
        shown.add_column("slope a report", justify="right", no_wrap=True)
        shown.add_column("")
        for row in known[:top]:
            values = [value_text(metric, row.values[place]) for place in places]
            slope = change_text(metric, row.slope, row.slope_error)
            shown.add_row(escape(row.name), *values, _coloured(metric, row, error=True), slope, _verdict(row))
        out.print(shown)


def _of(rows: Sequence[Difference | Drift], top: int) -> str:
    return f", the {top} largest changes of {len(rows)}" if len(rows) > top else ""


def _unit(metric: Metric) -> str:
    return "% points" if metric.unit == "%" else metric.unit


def _coloured(metric: Metric, row: Difference | Drift, *, error: bool = False) -> str:
    text = change_text(metric, row.change, row.standard_error if error else math.nan)
    colour = None if row.worse is None or row.within_noise else "red" if row.worse else "green"
    return f"[{colour}]{text}[/{colour}]" if colour else text


def _verdict(row: Difference | Drift) -> str:
    if row.change == 0:
        return "same"
    if row.within_noise:
        return "within noise"
    return "" if row.worse is None else "worse" if row.worse else "better"
