"""What the first screen says of a report: verdicts, where the cost sits, what to do about it, how firm that is.

Not here: words, columns and commands (srdd.exporters.terminal.screen).

Worked number: of layers at 0.18, 0.13 and 0.02 the first carries 55 %, and with weights alone at
0.03 of its 0.18 its inputs are to blame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from srdd.analysis.blame import Blame, blame
from srdd.analysis.choices import Choice, choices_of
from srdd.analysis.costs import cost_of, main_mode
from srdd.analysis.keep import carrying
from srdd.analysis.layer_costs import cost_specs
from srdd.analysis.rankings import spearman
from srdd.analysis.verdicts import FIRM, Verdict, verdict_of
from srdd.core.modes import Mode
from srdd.core.uncertainty import mean_and_error
from srdd.documents.costs import Cost, Costs, GroupCost, LayerCost, Ratio
from srdd.documents.report import Report

SHOWN, DEAREST = 4, 2  # layers; groups of one


@dataclass(frozen=True)
class CostlyLayer:
    """A layer with its dearest fusion groups, and what in it is to blame: weights, inputs, both, or not known."""

    layer: int
    cost: float
    share: float
    groups: tuple[GroupCost, ...]
    blame: Blame


@dataclass(frozen=True)
class Where:
    """The costliest layers of one format."""

    spec: str
    mode: Mode
    by: str
    rows: tuple[CostlyLayer, ...]
    layers: int
    rest: float  # of all layers not in rows
    groups: int
    half: int  # groups that carry half of the cost of all


@dataclass(frozen=True)
class Firmness:
    """How many leading layers stand in a firm order, each more than two standard errors above the next."""

    layers: int
    above: float  # the cost of the last of them
    units: int  # of text, that the errors rest on
    measured: float | None  # rank correlation with the KL measured here


@dataclass(frozen=True)
class Screen:
    """All facts of one report with costs."""

    clean: Cost | None  # the loss of the model as it is
    verdicts: tuple[Verdict, ...]
    where: Where | None
    choices: tuple[Choice, ...]
    firmness: Firmness | None
    notes: tuple[str, ...] = field(default_factory=tuple)


def screen(report: Report) -> Screen | None:
    """The facts; None for a report without costs."""
    costs = report.costs
    if costs is None:
        return None
    verdicts = tuple(verdict_of(row) for row in costs.whole)
    clean = None if costs.clean is None else costs.clean.loss
    spec = main_format(report, costs)
    if spec is None:
        return Screen(clean, verdicts, None, (), None, notes_of(report))
    mode = main_mode(costs, spec)
    ranked = ranked_layers(costs, spec, mode)
    return Screen(
        clean=clean,
        verdicts=verdicts,
        where=_where(costs, spec, mode, ranked),
        choices=choices_of(costs, spec, mode, verdicts),
        firmness=_firmness(ranked),
        notes=notes_of(report),
    )


def main_format(report: Report, costs: Costs) -> str | None:
    """The format that ranks everywhere: the first with costs of layers, those that change nothing last."""
    found = cost_specs(report) or [row.format for row in costs.layers if cost_of(row)]
    return found[0] if found else None


def ranked_layers(costs: Costs, spec: str, mode: Mode) -> list[tuple[LayerCost, str, Cost | Ratio]]:
    """The layers, costliest first; those that know what most of them know."""
    found = [(row, *cost) for row in costs.layers if (row.format, row.mode) == (spec, mode) and (cost := cost_of(row))]
    names = [name for _, name, _ in found]
    by = max(dict.fromkeys(names), key=names.count, default="")
    return sorted((f for f in found if f[1] == by), key=lambda f: (-f[2].value, f[0].layer))


def _where(costs: Costs, spec: str, mode: Mode, ranked: Sequence[tuple[LayerCost, str, Cost | Ratio]]) -> Where | None:
    if not ranked:
        return None
    total = math.fsum(cost.value for _, _, cost in ranked)
    groups = [g for g in costs.groups if g.format == spec and mode in g.predicted_kl]
    rows = [
        CostlyLayer(
            layer=row.layer,
            cost=cost.value,
            share=cost.value / total if total > 0 else 0.0,
            groups=_dearest([g for g in groups if g.layer == row.layer], mode),
            blame=blame(costs, spec, row.layer, mode),
        )
        for row, _, cost in ranked[:SHOWN]
    ]
    return Where(
        spec=spec,
        mode=mode,
        by=ranked[0][1],
        rows=tuple(rows),
        layers=len(ranked),
        rest=math.fsum(cost.value for _, _, cost in ranked[SHOWN:]),
        groups=len(groups),
        half=carrying([g.predicted_kl[mode].value for g in groups]),
    )


def _dearest(groups: Sequence[GroupCost], mode: Mode) -> tuple[GroupCost, ...]:
    """The fewest that carry half of the layer, at most two."""
    ranked = sorted(groups, key=lambda g: (-g.predicted_kl[mode].value, g.name))
    return tuple(ranked[: min(carrying([g.predicted_kl[mode].value for g in ranked]), DEAREST)])


def _firmness(ranked: Sequence[tuple[LayerCost, str, Cost | Ratio]]) -> Firmness | None:
    if not ranked:
        return None
    pairs = [(row.measured_kl.value, cost.value) for row, _, cost in ranked if row.measured_kl and row.predicted_kl]
    correlation = spearman(*zip(*pairs, strict=True)) if len(pairs) >= 5 else math.nan
    series = [cost.by_unit if isinstance(cost, Cost) else [] for _, _, cost in ranked]
    firm = 0
    while firm + 1 < len(series) and _above(series[firm], series[firm + 1]):
        firm += 1
    return Firmness(
        layers=len(ranked) if firm + 1 == len(series) and firm else firm,
        above=ranked[firm][2].value,
        units=min(map(len, series)),
        measured=None if math.isnan(correlation) else correlation,
    )


def _above(upper: Sequence[float], lower: Sequence[float]) -> bool:
    """Paired by unit of text: is the difference more than two of its standard errors?"""
    if len(upper) != len(lower) or len(upper) < 2:
        return False
    mean, error = mean_and_error([a - b for a, b in zip(upper, lower, strict=True)])
    return mean > FIRM * error


def notes_of(report: Report) -> tuple[str, ...]:
    """Gravest first: what the costs leave out, then the report's own warnings."""
    own = [str(note) for note in sorted(report.warnings, key=lambda note: note.level not in ("dead", "error"))]
    if report.costs is None or not report.costs.unpriced:
        return tuple(own)
    rows = report.costs.unpriced
    count, parameters = len(rows), sum(row.parameters for row in rows)
    share = (
        f", {parameters / report.model.parameter_count:.1%} of the parameters" if report.model.parameter_count else ""
    )
    said = f"{count} module{'s' if count > 1 else ''} without a cost{share}: {rows[0].reason}"
    grave = [text for text in own if text.startswith("ERROR")]
    return (*grave, said, *(text for text in own if text not in grave))
