"""A zone map: the table of zones, what the cuts are worth, layers that stick out, and a bar for every layer.

Not here: how they are found (srdd.analysis.zones) and the sentences (srdd.analysis.zone_words).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from srdd.analysis.zone_words import cut_words, one_zone_words, outlier_words
from srdd.core.metrics import MAIN, RANKED

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.analysis.series import Series
    from srdd.documents.zones import Zone, ZoneMap

_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red")
_BAR_WIDTH = 40


def show(out: Console, chart: ZoneMap, series: Series) -> None:
    """The zones, with the series that they were found in drawn in their colours."""
    others = [name for name in MAIN if name in chart.zones[0].metrics and name != series.metric.name]
    table = Table(title="Zones", title_justify="left")
    for heading in ("zone", "layers", "cost" if series.mode else "error"):
        table.add_column(heading, no_wrap=True)
    for heading in ("of mean", "worst layer"):
        table.add_column(heading, justify="right")
    table.add_column(f"{_heading(series.metric.name)}\nmean (min to max)", justify="right", no_wrap=True)
    for name in others:
        table.add_column(f"{_heading(name)}\nmean", justify="right")
    for index, zone in enumerate([*chart.zones, *chart.together]):
        colour = _COLOURS[index % len(_COLOURS)] if index < len(chart.zones) else "default"
        table.add_row(
            f"[{colour}]{zone.name}[/{colour}]",
            zone.span,
            zone.label,
            f"{zone.ratio:.3f}",
            str(zone.worst_layer),
            _spread(zone, series.metric.name),
            *(RANKED[name].text(zone.metrics[name].mean) if name in zone.metrics else "-" for name in others),
        )
    out.print(table)
    if chart.provenance.scheme == "auto" and len(chart.zones) == 1 and chart.provenance.max_zones != 1:
        out.print(one_zone_words(chart.ramp, series.metric))
    for line in (*map(cut_words, chart.cuts), *outlier_words(chart.outliers, series.metric)):
        out.print(line)
    _bars(out, chart, series)


def _heading(name: str) -> str:
    return f"{name.removesuffix('_db').replace('_', ' ')} {RANKED[name].unit}".strip()


def _spread(zone: Zone, name: str) -> str:
    spread, text = zone.metrics[name], RANKED[name].text
    return f"{text(spread.mean)} ({text(spread.min)} to {text(spread.max)})"


def _bars(out: Console, chart: ZoneMap, series: Series) -> None:
    metric = series.metric
    largest = max(map(abs, series.values)) or 1.0
    order = {zone.name: index for index, zone in enumerate(chart.zones)}
    outliers = {outlier.layer for outlier in chart.outliers}
    out.print(f"{metric.name}{f' {metric.unit}' if metric.unit else ''} by layer")
    for layer, value in zip(series.layers, series.values, strict=True):
        index = order[chart.layers[layer]]
        colour = _COLOURS[index % len(_COLOURS)]
        bar = "█" * round(_BAR_WIDTH * abs(value) / largest)
        # the name too: colours are lost in logs and to some eyes
        name = "outlier" if layer in outliers else chart.layers[layer]
        out.print(f"{layer:4d} [{colour}]{bar:<{_BAR_WIDTH}}[/{colour}] {metric.text(value):>7}  {name}")
