"""Do cheap scores predict the damage? Rank correlations with the KL measured part by part, with intervals.

Not here: measuring (srdd.runs.impact). Every score of a layer, or of a fusion group, that is cheaper than a swap gets
its rank correlations (Spearman, Kendall) with the measured KL of quantizing it alone, and a 95 % interval by bootstrap
over the layers or groups (1,000 draws with replacement, percentiles). A model has a few dozen layers, so the intervals
are wide, and say so.

Worked number: a score 1, 2, 3, 4 beside KLs 0.1, 0.2, 0.4, 0.3: Spearman 0.8, Kendall 0.667.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from statistics import fmean, median
from typing import Literal

from srdd.analysis.rankings import kendall, spearman
from srdd.core.modes import MODES, Mode
from srdd.documents.costs import Costs, GroupCost, LayerCost, LinearCost
from srdd.documents.parts import Part
from srdd.documents.report import Report
from srdd.errors import ReportError, setting

_DRAWS, _SEED = 1000, 0
_FEWEST = 5  # layers or groups; below, no correlation means anything
PREDICTS = 0.5  # a score whose interval lies above this is said to predict


class Correlation(Part):
    """One score against the measured KL. `off` is the median of |log2(score / KL)|, for scores that are KLs."""

    score: str
    count: int  # of layers or groups
    spearman: float
    interval: tuple[float, float]
    kendall: float
    off: float | None = None

    @property
    def verdict(self) -> str:
        """predicts, weak, unclear (the interval holds 0: too few layers to tell, or nothing there), or misleads."""
        low, high = self.interval
        if low > PREDICTS:
            return "predicts"
        if high < 0:
            return "misleads"
        return "unclear" if low <= 0 else "weak"


class Validation(Part):
    """All scores of one format in one mode, best first."""

    of: Literal["layers", "fusion groups"]
    format: str
    mode: Mode
    tokens: int
    measured: Literal["KL", "error of the last layer's output"]
    rows: list[Correlation]


def validate(report: Report) -> list[Validation]:
    """One table per format and mode that has measured KLs. Raises ReportError when none has, or too few layers."""
    costs = report.costs
    if costs is None:
        raise ReportError(f"no costs in this report; run `srdd impact` with {setting('attribute', 'both')}")
    tables, too_few = [], 0
    for spec in costs.settings.formats:
        for mode in costs.settings.modes:
            rows = [r for r in costs.layers if (r.format, r.mode) == (spec, mode) and measured_of(r) is not None]
            groups = [g for g in costs.groups if g.format == spec and mode in g.measured_kl]
            if any(measured_of(r) for r in rows):  # else none, or a format without effect
                too_few = too_few or len(rows) * (len(rows) < _FEWEST)
                tables += [_of_layers(costs, spec, mode, rows)] if len(rows) >= _FEWEST else []
            if len(groups) >= _FEWEST and any(g.measured_kl[mode].value for g in groups):
                tables.append(_of_groups(costs, spec, mode, groups))
    if not tables and too_few:
        raise ReportError(f"{too_few} layers are too few for a rank correlation; expected {_FEWEST} or more")
    if not tables:
        raise ReportError(
            f"no measured single-layer cost in this report; run `srdd impact` with {setting('attribute', 'both')}"
        )
    return tables


def _of_layers(costs: Costs, spec: str, mode: Mode, rows: Sequence[LayerCost]) -> Validation:
    return Validation(
        of="layers",
        format=spec,
        mode=mode,
        tokens=costs.settings.calibration.tokens,
        measured="error of the last layer's output" if rows[0].measured_kl is None else "KL",
        rows=_correlations(scores_of(costs, spec, rows), [measured_of(r) or 0.0 for r in rows]),
    )


def _of_groups(costs: Costs, spec: str, mode: Mode, groups: Sequence[GroupCost]) -> Validation:
    linears = [linear for linear in costs.linears if linear.format == spec]
    scores: dict[str, list[float | None]] = {
        "gradient: its Linears' errors, joint": [
            g.predicted_kl[mode].value if mode in g.predicted_kl else None for g in groups
        ],
        "output error of its Linears, mean": [
            _mean_output_error((linear for linear in linears if linear.module in g.members), mode) for g in groups
        ],
        "parameters": [float(g.parameters) for g in groups],
    }
    return Validation(
        of="fusion groups",
        format=spec,
        mode=mode,
        tokens=costs.settings.calibration.tokens,
        measured="KL",
        rows=_correlations(_known(scores), [g.measured_kl[mode].value for g in groups]),
    )


def _correlations(scores: dict[str, list[float]], measured: Sequence[float]) -> list[Correlation]:
    """Best first; a score that is the same everywhere ranks nothing."""
    rows = [
        _correlate(name, values, measured, is_kl=name.startswith("gradient"))
        for name, values in scores.items()
        if len(set(values)) > 1
    ]
    return sorted(rows, key=lambda row: -row.spearman)


def measured_of(layer: LayerCost) -> float | None:
    """The measured cost of quantizing this layer alone: KL, or for a model without a head the last layer's error."""
    cost = layer.measured_kl or layer.measured_error
    return None if cost is None else cost.value


def scores_of(costs: Costs, spec: str, rows: Sequence[LayerCost]) -> dict[str, list[float]]:
    """Every cheap score by name, one value per layer, larger is worse; only those that every layer has."""
    linears = [linear for linear in costs.linears if linear.format == spec]
    scores: dict[str, list[float | None]] = {}
    for name in dict.fromkeys(name for row in rows for name in row.scores):
        scores[f"scan: {name}"] = [row.scores.get(name) for row in rows]
    scores["output error of the layer, isolated"] = [row.isolated.value if row.isolated else None for row in rows]
    for mode in MODES:
        scores[f"output error of its Linears, {mode}, mean"] = [
            _mean_output_error((linear for linear in linears if linear.layer == row.layer), mode) for row in rows
        ]
    for name, field in (
        ("gradient: its Linears' errors, joint", "predicted_kl"),
        ("gradient: layer's own error", "predicted_kl_own"),
        ("gradient: its Linears, summed", "predicted_kl_linears"),
    ):
        found = [getattr(row, field) for row in rows]
        scores[name] = [None if cost is None else cost.value for cost in found]
    return _known(scores)


def _known(scores: dict[str, list[float | None]]) -> dict[str, list[float]]:
    return {name: [v for v in values if v is not None] for name, values in scores.items() if None not in values}


def _mean_output_error(linears: Iterable[LinearCost], mode: Mode) -> float | None:
    errors = [linear.output_error[mode].value for linear in linears if mode in linear.output_error]
    return fmean(errors) if errors else None


def _correlate(name: str, values: Sequence[float], measured: Sequence[float], is_kl: bool) -> Correlation:
    generator = random.Random(_SEED)
    drawn = []
    places = range(len(values))
    for _ in range(_DRAWS):
        sample = generator.choices(places, k=len(values))
        drawn.append(spearman([values[i] for i in sample], [measured[i] for i in sample]))
    kept = sorted(value for value in drawn if math.isfinite(value))
    low, high = kept[int(0.025 * len(kept))], kept[min(int(0.975 * len(kept)), len(kept) - 1)]
    pairs = [(v, m) for v, m in zip(values, measured, strict=True) if v > 0 and m > 0]
    return Correlation(
        score=name,
        count=len(values),
        spearman=spearman(values, measured),
        interval=(low, high),
        kendall=kendall(values, measured),
        off=median(abs(math.log2(v / m)) for v, m in pairs) if is_kl and pairs else None,
    )
