"""What a stranger asks of a report first: what is wrong, in which layers, and how sure is that.

Not here: the rules (advice.py, causes.py, zones.py), how sure that is in sentences (how_sure.py), layout and markup,
and what to do next, since that is a command to type (srdd.exporters).

Worked number: of twelve layers at 0.1 to 0.9 nats the ten dearest are listed, the dearest first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from srdd.analysis.advice import advise
from srdd.analysis.bundle import Bundle
from srdd.analysis.causes import cause
from srdd.analysis.cost_advice import dearest_parts
from srdd.analysis.first_look import FoundZones, layer_numbers, main_metric, sentences
from srdd.analysis.how_sure import TOP, error_of, errors, firm_order, is_firm, rankings, trust, units_in_words
from srdd.analysis.layer_costs import Numbers, cost_specs, has_costs
from srdd.analysis.series import cost_series
from srdd.core.gaussian import gaussian_metrics
from srdd.core.metrics import BY_NAME, COSTS, MAIN, RANKED, Metric
from srdd.documents.advice import Advice, Flagged
from srdd.documents.parts import Kind
from srdd.documents.report import Report
from srdd.documents.schema import Layer
from srdd.errors import OptionError, ReportError

KIND_TITLES: dict[Kind, str] = {"weight": "weights", "input": "Linear inputs", "output": "decoder-layer outputs"}
WORDS = {
    "no_action": "No action needed",
    "higher_precision": "A few layers need higher precision",
    "mixed_approach": "Some layers need higher precision or training with noise",
    "reconsider_format": "Reconsider this format: most layers are beyond its limits",
}


# The same by what the layers cost, with a line that says how much
COST_WORDS = {
    "no_action": "It costs next to nothing: no action needed",
    "higher_precision": "A few layers carry half of the cost: keep them in higher precision",
    "reconsider_format": "Reconsider this format: its cost is spread over the layers",
}


@dataclass(frozen=True)
class WorstLayer:
    """A layer at the top of the list: value and standard error of each main metric (nan: none), and why."""

    layer: int
    values: dict[str, tuple[float, float]]
    beyond: list[str]
    firm: bool | None  # None: it is beyond no limit, or has no standard error
    cause: str
    action: str


@dataclass(frozen=True)
class Overview:
    """The answers for one kind of site under one format."""

    kind: Kind
    spec: str
    verdict: str  # a key of WORDS, or "unknown"
    headline: str
    sentence: str
    limits: list[str]
    worst: list[WorstLayer]
    worst_are_flagged: bool
    sure: list[str]
    ordered_by: str  # the metric that orders `worst`; "" by how far beyond a limit
    advice: Advice | None = None
    ranked_by: str | None = None  # the cost; None: errors


def overview(
    bundle: Bundle, kind: Kind, spec: str, zones: FoundZones | None = None, asked: str | None = None
) -> Overview:
    """The answers, from the report's own numbers; by the metric that a reader asked for, where one was."""
    report = bundle.report
    layers = [layer for layer in report.layers if layer.kind == kind and spec in layer.formats]
    of_cost = asked is None or RANKED[asked] in COSTS
    if has_costs(report, spec) and of_cost and not report.has_errors:
        return _by_cost(report, kind, spec, layers, zones, asked)
    advice, why_not = _advice(report, kind, spec)
    flagged = {row.layer: row for row in advice.flagged} if advice else {}
    metric = RANKED[asked or main_metric(layers, spec, BY_NAME)]
    numbers = layer_numbers(report, kind, spec, metric)
    rows = {layer.layer: layer for layer in layers if layer.layer in numbers}
    order = list(flagged) if flagged and asked is None else _worst_first(numbers, metric)
    limits = advice.limits if advice else {}
    listed = [_worst(rows[at], spec, flagged.get(at), limits, metric, numbers[at]) for at in order[:TOP] if at in rows]
    headline = WORDS[advice.verdict] if advice else "No verdict"
    sentence = f"{spec} on {KIND_TITLES[kind]}: {advice.rule if advice else why_not}"
    if advice and advice.next_format:
        sentence += f"; {advice.next_format} passes"
    if report.has_errors:
        headline = "Some tensors hold NaN or infinite values"
        sentence = "Numbers leave the blocks that hold them out: repair those tensors before anything else"
    return Overview(
        kind=kind,
        spec=spec,
        verdict="broken" if report.has_errors else advice.verdict if advice else "unknown",
        headline=headline,
        sentence=f"{sentence}.",
        limits=[limit_text(name, value) for name, value in limits.items()],
        worst=listed,
        worst_are_flagged=bool(flagged) and asked is None,
        sure=[
            *errors(report, kind, layers, spec, flagged, limits),
            *trust(report, kind, spec, metric.name),
            *rankings(layers, spec),
            *sentences(zones),
        ],
        ordered_by="" if flagged and asked is None else metric.name,
        advice=advice,
    )


def _worst_first(numbers: Mapping[int, Numbers], metric: Metric) -> list[int]:
    """The layers that know the metric."""
    known = {at: value for at, row in numbers.items() if math.isfinite(value := row.value(metric.name))}
    return sorted(known, key=lambda at: (known[at] if metric.better == "up" else -known[at], at))


def _by_cost(
    report: Report, kind: Kind, spec: str, layers: Sequence[Layer], zones: FoundZones | None, asked: str | None
) -> Overview:
    """The answers by what layers cost; the errors of the kind stand beside."""
    advice, series = advise(report, spec=spec, against="cost"), cost_series(report, spec, asked)
    flagged = {row.layer: row for row in advice.flagged}
    known = {layer.layer: layer for layer in layers}
    priced = {at: (v, e) for at, v, e in zip(series.layers, series.values, series.standard_errors, strict=True)}
    listed = []
    for number in sorted(priced, key=lambda at: (-priced[at][0], at))[:TOP]:
        row = _worst(known[number], spec, None, {}) if number in known else None
        cost = {series.metric.name: priced[number]}
        listed.append(
            WorstLayer(
                layer=number,
                values={**cost, **(row.values if row else dict.fromkeys(MAIN, (math.nan, math.nan)))},
                beyond=list(cost) if number in flagged else [],
                firm=None,
                cause=dearest_parts(report.costs, number, spec, series.mode) if report.costs and series.mode else "",
                action=flagged[number].action if number in flagged else "none",
            )
        )
    sentence = advice.rule + (f"; {advice.next_format} costs less" if advice.next_format else "")
    paid = report.costs.settings.calibration if report.costs else None
    sure = [f"± is one standard error over {units_in_words(paid)}."] if paid and paid.units > 1 else []
    return Overview(
        kind=kind,
        spec=spec,
        verdict=advice.verdict,
        headline=COST_WORDS[advice.verdict],
        sentence=f"{sentence}.",
        limits=[],
        worst=listed,
        worst_are_flagged=False,
        sure=[
            *sure,
            *(firm_order(report) if spec == cost_specs(report)[0] else ()),
            *trust(report, kind, spec, series.metric.name),
            *rankings(layers, spec),
            *sentences(zones),
        ],
        ordered_by=series.metric.name,
        advice=advice,
        ranked_by=series.title,
    )


def limit_text(name: str, value: float) -> str:
    """ "sqnr_db < 18.03 dB": beyond the limit is on that side."""
    metric = BY_NAME[name]
    return f"{name} {'<' if metric.better == 'up' else '>'} {metric.text(value)} {metric.unit}".strip()


def _advice(report: Report, kind: Kind, spec: str) -> tuple[Advice | None, str]:
    """Advice against the format's own limits, without a baseline against the classic ones; or why there is none."""
    try:
        return advise(report, kind, spec, "format" if gaussian_metrics(spec) else "classic"), ""
    except (OptionError, ReportError) as problem:
        return None, str(problem)


def _worst(
    layer: Layer,
    spec: str,
    flagged: Flagged | None,
    limits: dict[str, float],
    metric: Metric | None = None,
    numbers: Numbers | None = None,
) -> WorstLayer:
    measured = layer.formats[spec]
    values = {name: (measured.value(name), error_of(layer, spec, name)) for name in MAIN}
    if metric is not None and numbers is not None and metric.name not in values:
        values = {metric.name: (numbers.value(metric.name), numbers.error(metric.name)), **values}
    text = cause(spec, measured) if measured.tally is not None else "not measured"
    return WorstLayer(
        layer=layer.layer,
        values=values,
        beyond=list(flagged.beyond) if flagged else [],
        firm=is_firm(layer, spec, flagged, limits) if flagged else None,
        cause=text,
        action=flagged.action if flagged else "none",
    )
