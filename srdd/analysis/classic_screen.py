"""What the first screen says of a report without costs: why there are none, and the worst layers by error statistics.

Not here: reports with costs (screen.py), and words and columns (srdd.exporters.screen.classic).

Worked number: outputs of three layers at 20, 30 and 25 % relative error under mxfp4: layer 1 is the worst, and nobody
knows yet what it costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from srdd.analysis.layer_costs import WITHOUT_COSTS
from srdd.analysis.rankings import worst
from srdd.core.formats import bits_per_value
from srdd.core.metrics import BY_NAME, Metric
from srdd.documents.parts import KINDS, Kind
from srdd.documents.report import Report
from srdd.documents.schema import Layer

SHOWN = 4
_ORDER = ("relative_error", "sqnr_db")
_NO_COSTS = "no costs: "  # what the note of a scan begins with that could not measure them


@dataclass(frozen=True)
class FormatErrors:
    """One format over the layers of one kind; nan where no layer has a number."""

    spec: str
    bits: float | None
    relative_error: float
    sqnr_db: float


@dataclass(frozen=True)
class WorstLayers:
    """The worst layers of one kind under one format."""

    spec: str
    kind: Kind
    metric: Metric
    rows: tuple[Layer, ...]
    layers: int


@dataclass(frozen=True)
class ClassicScreen:
    """All facts of one report without costs."""

    why: str
    formats: tuple[FormatErrors, ...]
    where: WorstLayers | None
    notes: tuple[str, ...]


def classic_screen(report: Report) -> ClassicScreen:
    """The facts, of the layers' outputs, or of inputs or weights where they alone were measured."""
    kind = next((k for k in reversed(KINDS) if any(layer.kind == k for layer in report.layers)), None)
    layers = [layer for layer in report.layers if layer.kind == kind]
    said = next((str(note) for note in report.warnings if note.startswith(_NO_COSTS)), WITHOUT_COSTS)
    return ClassicScreen(
        why=said,
        formats=tuple(_errors(layers, spec) for spec in report.settings.formats),
        where=_where(report, kind, layers) if kind is not None else None,
        notes=tuple(
            str(note) for note in sorted(report.warnings, key=lambda note: note.level != "error") if note != said
        ),
    )


def _errors(layers: list[Layer], spec: str) -> FormatErrors:
    def mean(name: str) -> float:
        values = [layer.formats[spec].value(name) for layer in layers if spec in layer.formats]
        return fmean(known) if (known := [value for value in values if math.isfinite(value)]) else math.nan

    return FormatErrors(spec, bits_per_value(spec), mean("relative_error"), mean("sqnr_db"))


def _where(report: Report, kind: Kind, layers: list[Layer]) -> WorstLayers | None:
    for spec in report.settings.formats:
        mine = [layer for layer in layers if spec in layer.formats]
        for name in _ORDER:
            if ranked := worst(mine, spec, name, SHOWN):
                return WorstLayers(spec, kind, BY_NAME[name], tuple(ranked), len(mine))
    return None
