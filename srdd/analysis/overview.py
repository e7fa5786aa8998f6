"""What a stranger asks of a report first: what is wrong, in which layers, and how sure is that.

Not here: the rules (advice.py, causes.py, zones.py), layout and markup, and what to do next, since that is a command
to type (srdd.exporters). A flagged layer is "firm" when it lies beyond a limit by more than two of its standard errors;
weights have no such error, they are measured whole.

Worked number: a limit of 33.2 % and a layer at 34.0 +- 0.3 %: 0.8 is more than 2 x 0.3, the layer is firm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from srdd.analysis.advice import advise
from srdd.analysis.bundle import Bundle
from srdd.analysis.causes import cause
from srdd.analysis.cost_advice import dearest_parts
from srdd.analysis.first_look import FoundZones, main_metric, sentences
from srdd.analysis.layer_costs import has_costs
from srdd.analysis.rankings import agreement, worst
from srdd.analysis.series import cost_series
from srdd.core.gaussian import gaussian_metrics
from srdd.core.metrics import BY_NAME, MAIN
from srdd.documents.advice import Advice, Flagged
from srdd.documents.parts import Kind
from srdd.documents.report import Report
from srdd.documents.schema import Layer
from srdd.errors import OptionError, ReportError

KIND_TITLES: dict[Kind, str] = {"weight": "weights", "input": "Linear inputs", "output": "decoder-layer outputs"}
TOP = 10
FIRM = 2.0  # standard errors
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
    advice: Advice | None = None
    ranked_by: str | None = None  # the cost; None: errors


def overview(bundle: Bundle, kind: Kind, spec: str, zones: FoundZones | None = None) -> Overview:
    """The answers, from the report's own numbers."""
    report = bundle.report
    layers = [layer for layer in report.layers if layer.kind == kind and spec in layer.formats]
    if has_costs(report, spec) and not report.has_errors:
        return _by_cost(report, kind, spec, layers, zones)
    advice, why_not = _advice(report, kind, spec)
    flagged = {row.layer: row for row in advice.flagged} if advice else {}
    ranked: Sequence[Layer] = worst(layers, spec, main_metric(layers, spec, BY_NAME), TOP)
    if flagged:
        rows = {layer.layer: layer for layer in layers}
        ranked = [rows[number] for number in list(flagged)[:TOP]]
    limits = advice.limits if advice else {}
    listed = [_worst(layer, spec, flagged.get(layer.layer), limits) for layer in ranked]
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
        worst_are_flagged=bool(flagged),
        sure=[*_errors(report, kind, layers, spec, flagged, limits), *_rankings(layers, spec), *sentences(zones)],
        advice=advice,
    )


def _by_cost(report: Report, kind: Kind, spec: str, layers: Sequence[Layer], zones: FoundZones | None) -> Overview:
    """The answers by what layers cost; the errors of the kind stand beside."""
    advice, series = advise(report, spec=spec, against="cost"), cost_series(report, spec)
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
    count = len(report.costs.settings.calibration.sequence_hashes) if report.costs else 0
    sure = [f"± is one standard error over {count} calibration sequences."] if count > 1 else []
    return Overview(
        kind=kind,
        spec=spec,
        verdict=advice.verdict,
        headline=COST_WORDS[advice.verdict],
        sentence=f"{sentence}.",
        limits=[],
        worst=listed,
        worst_are_flagged=False,
        sure=[*sure, *_rankings(layers, spec), *sentences(zones)],
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


def _worst(layer: Layer, spec: str, flagged: Flagged | None, limits: dict[str, float]) -> WorstLayer:
    measured = layer.formats[spec]
    values = {name: (measured.value(name), _error(layer, spec, name)) for name in MAIN}
    text = cause(spec, measured) if measured.tally is not None else "not measured"
    return WorstLayer(
        layer=layer.layer,
        values=values,
        beyond=list(flagged.beyond) if flagged else [],
        firm=_firm(layer, spec, flagged, limits) if flagged else None,
        cause=text,
        action=flagged.action if flagged else "none",
    )


def _error(layer: Layer, spec: str, name: str) -> float:
    measured = layer.formats[spec]
    return measured.error(name) if measured.sequences else math.nan


def _firm(layer: Layer, spec: str, flagged: Flagged, limits: dict[str, float]) -> bool | None:
    errors = {name: _error(layer, spec, name) for name in flagged.beyond}
    if not any(math.isfinite(error) for error in errors.values()):
        return None
    return any(abs(value - limits[name]) > FIRM * errors[name] for name, value in flagged.beyond.items())


def _errors(
    report: Report,
    kind: Kind,
    layers: Sequence[Layer],
    spec: str,
    flagged: dict[int, Flagged],
    limits: dict[str, float],
) -> list[str]:
    if kind == "weight":
        return ["Weights are measured whole: their numbers have no sampling error."]
    count = len(report.settings.calibration.sequence_hashes) if report.settings.calibration else 0
    if count < 2 or not any(layer.formats[spec].sequences for layer in layers):
        return ["No standard errors: they need two sequences or more, and a report with sums."]
    text = f"± is one standard error over {count} calibration sequences"
    few = "; with so few it is rough itself, scan more with --samples" if count < 8 else ""
    firm = [_firm(layer, spec, flagged[layer.layer], limits) for layer in layers if layer.layer in flagged]
    if not firm:
        return [f"{text}{few}."]
    beyond = f"{sum(map(bool, firm))} of {len(firm)} flagged layers are beyond a limit by more than {FIRM:g} of them"
    return [f"{text}{few}.", f"{beyond}."]


def _rankings(layers: Sequence[Layer], spec: str) -> list[str]:
    rankings = agreement(layers, spec, TOP)
    return [rankings.sentence()] if rankings else []
