"""What layers cost under one format in one mode, in the form in which every other number of a layer is read.

Not here: which number ranks (series.py) and the costs themselves (srdd.documents.costs). A cost is a mean over
sequences, so its jackknife is that of a mean: without unit u it is the mean over all sequences that are not of u.

Worked number: predicted at 0.1 and 0.3 nats a token on two sequences of two texts: 0.2 ± 0.1, without the first 0.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from srdd.core.metrics import COSTS, Metric
from srdd.core.modes import Mode, choose_mode
from srdd.core.uncertainty import means_without_each
from srdd.documents.costs import Cost, Costs, LayerCost
from srdd.documents.report import Report
from srdd.errors import SettingError, setting

WITHOUT_COSTS = (
    "no costs in this report: error statistics predict damage poorly (rank correlation 0.37 and less on known models); "
    "scan again with costs"
)


class Numbers(Protocol):
    """What is known of a layer or site: values with errors over units of text, as of a `Measurement` or a `Priced`."""

    def value(self, metric: str) -> float:
        """nan where it is not known."""

    def error(self, metric: str) -> float:
        """Its standard error; nan where there is none."""

    def without_each(self, metric: Metric) -> list[float]:
        """The value with the first, the second, ... unit left out; empty with fewer than two."""

    def sequence_count(self, metric: Metric) -> int:
        """The sequences that the value is made from; 0 where they are not known one by one."""

    def resampled(self, metric: Metric, draw: Sequence[int]) -> float:
        """The value over the sequences drawn, each as often as it was: indices below `sequence_count`."""


@dataclass(frozen=True)
class Priced:
    """The costs of one layer or module by name, under one format in one mode."""

    costs: Mapping[str, Cost]

    def value(self, metric: str) -> float:
        return self.costs[metric].value if metric in self.costs else math.nan

    def error(self, metric: str) -> float:
        error = self.costs[metric].error if metric in self.costs else None
        return math.nan if error is None else error

    def draw_error(self, metric: str) -> float:
        """The standard error of a mean over draws of stochastic rounding; 0 where nothing is drawn."""
        cost = self.costs.get(metric)
        if cost is None or not cost.draws or cost.spread is None:
            return 0.0
        return cost.spread / math.sqrt(len(cost.draws))

    def without_each(self, metric: Metric) -> list[float]:
        cost = self.costs.get(metric.name)
        return means_without_each(cost.sequences, cost.unit_of) if cost is not None and cost.sequences else []

    def sequence_count(self, metric: Metric) -> int:
        return len((self.costs[metric.name].sequences if metric.name in self.costs else None) or [])

    def resampled(self, metric: Metric, draw: Sequence[int]) -> float:
        values = self.costs[metric.name].sequences or []
        return math.fsum(values[sequence] for sequence in draw) / len(draw)


def has_costs(report: Report, spec: str | None = None) -> bool:
    """Whether it is known what the layers cost, under a format or at all."""
    return bool(cost_specs(report)) if spec is None else spec in cost_specs(report)


def weakness(report: Report) -> list[str]:
    """What must be said beside a ranking by error statistics; nothing where costs are known."""
    return [] if has_costs(report) else [WITHOUT_COSTS]


def cost_specs(report: Report) -> list[str]:
    """The formats whose layers have a cost, in the report's order; those that change nothing last."""
    costs = report.costs
    if costs is None:
        return []
    priced = {row.format for row in costs.layers if _costs_of(row)}
    idle = {row.format for row in costs.whole if row.no_effect}
    order = list(dict.fromkeys([*report.settings.formats, *costs.settings.formats]))
    return sorted((spec for spec in order if spec in priced), key=lambda spec: spec in idle)


def cost_modes(costs: Costs, spec: str) -> list[Mode]:
    """The modes in which the layers have a cost under a format, in the order of the settings."""
    priced = {row.mode for row in costs.layers if row.format == spec and _costs_of(row)}
    return [mode for mode in costs.settings.modes if mode in priced]


def main_cost(costs: Costs, spec: str, mode: Mode) -> Metric:
    """The cost that ranks: the predicted one, else the measured one."""
    rows = [row for row in costs.layers if (row.format, row.mode) == (spec, mode)]
    return COSTS[0] if any(row.predicted_kl for row in rows) else COSTS[1]


def priced_layers(report: Report, spec: str, mode: str | None = None) -> tuple[dict[int, Priced], Mode]:
    """Every layer's costs in a mode by name (None: weights and inputs where measured), and the mode.

    Raises SettingError for a report without costs of this format or mode.
    """
    if report.costs is None or not has_costs(report, spec):
        known = ", ".join(cost_specs(report))
        if known:
            raise SettingError("spec", spec, f"its cost was not measured; the costs are of {known}")
        raise SettingError("metric", None, "no costs in this report; scan again with costs, or run `srdd impact`")
    chosen = choose_mode(mode, cost_modes(report.costs, spec), spec)
    rows = [row for row in report.costs.layers if (row.format, row.mode) == (spec, chosen)]
    return {row.layer: Priced(_costs_of(row)) for row in sorted(rows, key=lambda row: row.layer)}, chosen


def priced_linears(report: Report, spec: str, mode: Mode) -> dict[tuple[int | None, str], Priced]:
    """Every Linear's predicted KL by layer and module."""
    rows = report.costs.linears if report.costs is not None else []
    return {
        (row.layer, row.module): Priced({COSTS[0].name: row.predicted_kl[mode]})
        for row in rows
        if row.format == spec and mode in row.predicted_kl
    }


def needs_costs(report: Report, metric: Metric) -> None:
    """Raises SettingError when a cost is asked for that the report has not."""
    if not has_costs(report):
        expected = f"no costs in this report; scan again with costs, or choose another {setting('metric')}"
        raise SettingError("metric", metric.name, expected)


def _costs_of(row: LayerCost) -> dict[str, Cost]:
    given = {"predicted_kl": row.predicted_kl, "measured_kl": row.measured_kl}
    return {name: cost for name, cost in given.items() if cost is not None}
