"""A slim baseline as the gate reads a report: sites and costs with the numbers that it kept.

What it kept is rounded to the worse side, what it did not keep is unknown (nan), and the gate says of a limit that it
holds for nothing there.

Not here: what a slim baseline keeps (slim.py), and the file (srdd.documents.baseline).

Worked number: a deadzone of 0.1 and zeros of 0.02 are zeros of 0.02 + 0.1 * 0.98 = 0.118 after quantization.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import Field

from srdd.analysis.comparison.marks import Mark
from srdd.core.layers import parse_layers
from srdd.core.metrics import Metric
from srdd.core.uncertainty import jackknife, mean_and_error
from srdd.documents.baseline import STEPS_IN_1, Baseline, Columns, LayerRows, SlimCosts
from srdd.documents.costs import Cost, Costs, LayerCost, WholeCost
from srdd.documents.packed import split, unpack
from srdd.documents.parts import Kind
from srdd.documents.report import Report
from srdd.documents.schema import Coverage, Measurement, Site

# What follows from what was kept.
_FOLLOW: dict[str, tuple[tuple[str, ...], Callable[..., float]]] = {
    "relative_rms": (("sqnr_db",), lambda db: 10 ** (-db / 20)),
    "zero_ratio_after": (("zero_ratio", "deadzone_ratio"), lambda zero, dead: zero + dead * (1 - zero)),
}


class Recalled(Measurement):
    """One row of a table: a measurement without sums."""

    columns: Columns
    row: int
    rows: int  # of the table
    steps_in_1: int  # of its relative error
    rms: float | None = None

    def value(self, metric: str) -> float:
        if metric in _FOLLOW:
            names, formula = _FOLLOW[metric]
            return formula(*map(self.value, names))
        if metric == "rms":
            return math.nan if self.rms is None else self.rms
        kept = self.columns.steps(metric, self.row)
        if kept is None:
            return math.nan
        in_1 = self.steps_in_1 if metric == "relative_error" else STEPS_IN_1.get(metric, 1)
        return math.inf if kept == "exact" else kept / in_1

    def error(self, metric: str) -> float:
        return jackknife(self._without(metric))

    def without_each(self, metric: Metric) -> list[float]:
        return self._without(metric.name)

    def sequence_count(self, metric: Metric) -> int:
        return 0

    @property
    def counts_blocks(self) -> bool:
        """Whether the median of blocks was kept."""
        return "block_sqnr_db" in self.columns.values

    def _without(self, metric: str) -> list[float]:
        if metric in _FOLLOW:
            names, formula = _FOLLOW[metric]
            columns = [self._without(name) for name in names]
            return [formula(*row) for row in zip(*columns, strict=True)] if all(columns) else []
        words = self.columns.words(metric, self.rows)
        return unpack(words[self.row], self.value(metric)) if words and words[self.row] else []


class RecalledSite(Site):
    """A site with the mark that tells whether it changed, and what of it was dead."""

    mark: Mark | None = None
    dead: tuple[int, str] = (0, "")


class RecalledReport(Report):
    """What the gate reads. Whole layers are rows of their own: nothing here can be merged."""

    by_layer: dict[tuple[Kind, str], dict[int, Recalled]] = Field(default_factory=dict)
    regrouped: bool = False

    @property
    def has_sums(self) -> bool:
        return True  # sites have their own names, as those of every report with sums


@dataclass(frozen=True)
class _Known:
    mark: Mark
    dead: tuple[int, str]


def recall(baseline: Baseline) -> RecalledReport:
    """The slim baseline as a report."""
    marks = _marks(baseline)
    sites: dict[tuple[Kind, int | None, str], RecalledSite] = {}
    by_layer: dict[tuple[Kind, str], dict[int, Recalled]] = {}
    for table in baseline.tables:
        places = table.places
        for row, (layer, name) in enumerate(places):
            known = marks.get((table.kind, name))
            formats = {
                spec: Recalled.model_construct(
                    given={},  # what is not given here takes long: each default is asked how it is called
                    columns=columns,
                    row=row,
                    rows=len(places),
                    steps_in_1=baseline.error_steps.get(spec, STEPS_IN_1["relative_error"]),
                    rms=columns.rms[row] if columns.rms else known.mark.rms if known else None,
                )
                for spec, columns in table.formats.items()
            }
            if table.by == "layer":
                for spec, kept in formats.items():
                    by_layer.setdefault((table.kind, spec), {})[layer or 0] = kept
                continue
            site = RecalledSite.model_construct(
                kind=table.kind,
                name=name,
                role="",
                members=[],
                shape=[],
                notes=[],
                layer=layer,
                formats={},
                mark=known.mark if known else None,
                dead=known.dead if known else (0, ""),
            )
            sites.setdefault((table.kind, layer, name), site).formats.update(formats)
    return RecalledReport.model_construct(
        model=baseline.model,
        settings=baseline.settings,
        coverage=Coverage(parameters=0, measured=0, uncovered=baseline.uncovered),
        sites=list(sites.values()),
        costs=None if baseline.costs is None else _costs(baseline.costs),
        by_layer=by_layer,
        regrouped=baseline.regrouped,
    )


def _marks(baseline: Baseline) -> dict[tuple[Kind, str], _Known]:
    found: dict[tuple[Kind, str], _Known] = {}
    for table in baseline.marks:
        digests = (table.digests or "").split(" ")
        for row, (_, name) in enumerate(table.places):
            rms = table.rms[row] if table.rms else None
            mark = Mark(
                table.sum_x[row],
                table.sum_abs_x[row],
                table.sum_x4[row] if table.sum_x4 else None,
                rms,
                table.format,
                digests[row] if table.digests else "",
                table.worst[row] if table.worst else None,
                table.order[row] if table.order else None,
            )
            found[table.kind, name] = _Known(mark, table.dead.get(str(row), (0, "")))
    return found


def _costs(slim: SlimCosts) -> Costs:
    return Costs.model_construct(
        settings=slim.settings,
        whole=[
            WholeCost.model_construct(
                format=row.format,
                mode=row.mode,
                no_effect=row.no_effect,
                kl=_cost(row.kl[0], row.kl[1:]),
                loss=_cost(row.loss[0], row.loss[1:]),
                top1=_cost(row.top1[0], row.top1[1:]),
            )
            for row in slim.whole
        ],
        layers=[row for table in slim.layers for row in _layers(table)],
    )


def _layers(table: LayerRows) -> list[LayerCost]:
    rows, words = [], split(table.each, len(table.values))
    for layer, value, word in zip(parse_layers(table.layers), table.values, words, strict=True):
        without = unpack(word, value) if word else []
        middle = math.fsum(without) / len(without) if without else 0.0
        # one number a unit, of which the mean without each is what was kept
        units = [value + (len(without) - 1) * (middle - one) for one in without]
        row = LayerCost(layer=layer, format=table.format, mode=table.mode)
        rows.append(row.model_copy(update={table.cost: _cost(value, units)}))
    return rows


def _cost(value: float, units: Sequence[float]) -> Cost:
    error = mean_and_error(units)[1] if len(units) > 1 else math.nan
    return Cost.model_construct(
        value=value, error=None if math.isnan(error) else error, sequences=list(units) or None, unit_of=None
    )
