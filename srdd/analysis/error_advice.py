"""What to do about a format by the errors of its layers, where it is not known what they cost.

Not here: the rule by costs (cost_advice.py), and proof: the error of a tensor is not yet a loss of the model.

Against the format, the default, a layer is beyond a limit when a metric lies outside a margin around what the format
gives on Gaussian data, and flagged when it stands out of the model as well (3.5 robust standard deviations from the
model's own median). Where more than 30 % are beyond, the format is the question, whatever stands out. Against the
classic thresholds, which flag every layer in 4-bit formats, the share of flagged layers decides as in the first
scripts. None: no action. Under 10 %: keep those layers in higher precision. Up to 30 %: higher precision for the worse
half, noise in training for the others. Above: reconsider the format.

Worked number: mxfp4:even gives 22.2 % relative error on Gaussian data, so its limit is 1.5 x 22.2 = 33.2 %; of 30
layers at 30 % and one at 40 % this one is beyond it and stands out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from srdd.analysis.causes import cause, noise_shares
from srdd.analysis.layer_costs import weakness
from srdd.core.formats import bits_per_value
from srdd.core.gaussian import gaussian_metrics
from srdd.core.metrics import BY_NAME, MAIN
from srdd.core.verdicts import CLASSIC, is_unusual, robust_z, violates
from srdd.documents.advice import (
    Action,
    Advice,
    Against,
    Candidate,
    Flagged,
    Verdict,
    WhatIf,
)
from srdd.documents.parts import Kind
from srdd.documents.report import Report
from srdd.documents.schema import Layer, Measurement
from srdd.errors import ReportError, SettingError, setting

FEW, MANY = 0.10, 0.30  # shares of layers
_ACTIONS: dict[Verdict, Action] = {
    "higher_precision": "higher precision",
    "mixed_approach": "higher precision",  # of the worse half
    "reconsider_format": "another format",
}

# How far beyond Gaussian data is too far: a choice, not a finding. It is wide enough that weights close to Gaussian
# (SmolLM2's, random ones) are flagged under no format, and narrow enough that heavy tails are.
_DB_BELOW = 1.0
_TIMES = {"relative_error": 1.5, "deadzone_ratio": 1.5, "saturation_ratio": 1.5}
_POINTS = {"deadzone_ratio": 0.01, "saturation_ratio": 0.01}


def limits_for(spec: str, against: Against, thresholds: Mapping[str, float]) -> dict[str, float]:
    """The limits of one format. Raises SettingError when there is no Gaussian baseline for it."""
    if against == "classic":
        return {**CLASSIC, **thresholds}
    baseline = gaussian_metrics(spec)
    if baseline is None:
        raise SettingError(
            "against", against, f"there is no Gaussian baseline for {spec}; use {setting('against', 'classic')}"
        )
    limits = {"sqnr_db": baseline["sqnr_db"] - _DB_BELOW}
    for name, times in _TIMES.items():
        limits[name] = max(times * baseline[name], baseline[name] + _POINTS.get(name, 0.0))
    return limits


def advise_by_errors(report: Report, kind: Kind, spec: str, against: Against) -> Advice:
    """The advice for one kind of site and format. Raises SettingError, and ReportError where nothing can be judged."""
    layers = [layer for layer in report.layers if layer.kind == kind and spec in layer.formats]
    if not layers:
        raise ReportError(f"the report has no layer with {kind} sites under {spec}; scan with {setting('sites', kind)}")
    if not any(_is_judged(layer, spec) for layer in layers):
        raise ReportError(f"none of {', '.join(MAIN)} is known under {spec}; advice needs a report of `srdd scan`")
    thresholds = report.settings.thresholds
    limits = limits_for(spec, against, thresholds)
    beyond = {layer.layer: metrics for layer in layers if (metrics := _beyond(layer.formats[spec], limits))}
    judged = sum(_is_judged(layer, spec) for layer in layers)
    if against == "classic":
        flagged_of = beyond
        verdict, rule = _classic_verdict(len(beyond), judged)
    else:
        flagged_of = _standing_out(layers, spec, beyond)
        verdict, rule = _verdict(len(beyond), len(flagged_of), judged)
    severity = {layer: _severity(metrics, limits) for layer, metrics in flagged_of.items()}
    ranked = sorted(severity, key=lambda layer: (-severity[layer], layer))
    worse_half = set(ranked[: math.ceil(len(ranked) / 2)])
    specs = [s for s in report.settings.formats if all(s in layer.formats for layer in layers)]
    candidates = [_candidate(layers, s, against, thresholds) for s in specs]
    moderate = [layer for layer in ranked if layer not in worse_half] if verdict == "mixed_approach" else []
    by_number = {layer.layer: layer for layer in layers}
    flagged = []
    for number in ranked:
        action: Action = "noise in training" if number in moderate else _ACTIONS[verdict]
        flagged.append(_flagged(by_number[number], spec, flagged_of[number], severity[number], action, specs))
    return Advice(
        model=report.model.id,
        site=kind,
        quant=spec,
        against=against,
        limits=limits,
        layers=judged,
        verdict=verdict,
        rule=rule,
        flagged=flagged,
        formats=candidates,
        next_format=_next(candidates, spec) if verdict == "reconsider_format" else None,
        notes=[
            *(note for note in report.warnings if note.level in ("version 0", "dead", "error")),
            *_unjudged(layers, spec),
            *weakness(report),
        ],
    )


def _is_judged(layer: Layer, spec: str) -> bool:
    """False where NaN or infinities leave nothing to judge; such a layer does not count as one that passes."""
    return any(math.isfinite(layer.formats[spec].value(name)) for name in MAIN)


def _unjudged(layers: Sequence[Layer], spec: str) -> list[str]:
    unknown = [layer.layer for layer in layers if not _is_judged(layer, spec)]
    return [f"layer(s) {', '.join(map(str, unknown))} hold no finite metric and are not judged"] if unknown else []


def _beyond(measured: Measurement, limits: Mapping[str, float]) -> dict[str, float]:
    """The main metrics beyond their limits. An undefined value cannot be judged and is beyond none."""
    values = {name: measured.value(name) for name in MAIN}
    return {name: value for name, value in values.items() if violates(BY_NAME[name], value, limits[name])}


def _severity(beyond: Mapping[str, float], limits: Mapping[str, float]) -> float:
    def times(name: str, value: float) -> float:
        if BY_NAME[name].unit == "dB":
            return float(10 ** ((limits[name] - value) / 20))
        return value / limits[name] if limits[name] > 0 else math.inf

    return min(max(times(name, value) for name, value in beyond.items()), 1e6)


def _standing_out(
    layers: Sequence[Layer], spec: str, beyond: Mapping[int, dict[str, float]]
) -> dict[int, dict[str, float]]:
    """Those beyond a limit by a metric in which they are unusual for this model."""
    unusual: dict[int, dict[str, float]] = {}
    for name in MAIN:
        metric = BY_NAME[name]
        z = robust_z(metric, {str(layer.layer): layer.formats[spec].value(name) for layer in layers})
        for number, metrics in beyond.items():
            if name in metrics and is_unusual(metric, z.get(str(number), 0.0)):
                unusual[number] = metrics
    return unusual


def _verdict(beyond: int, flagged: int, layers: int) -> tuple[Verdict, str]:
    said = f"{beyond} of {layers} layers ({beyond / layers:.0%}) are beyond what the format gives on Gaussian data"
    if beyond == 0:
        return "no_action", f"{said}: no action"
    said += f", {flagged or 'none'} of them stand{'s' * (flagged < 2)} out of the model"
    if beyond / layers > MANY:
        return "reconsider_format", f"{said}; that is above {MANY:.0%}: reconsider the format"
    return (
        ("higher_precision", f"{said}: keep those in higher precision")
        if flagged
        else ("no_action", f"{said}: no action")
    )


def _classic_verdict(flagged: int, layers: int) -> tuple[Verdict, str]:
    share = flagged / layers
    said = f"{flagged} of {layers} layers ({share:.0%}) are beyond a limit"
    if flagged == 0:
        return "no_action", f"{said}: no action"
    if share < FEW:
        return "higher_precision", f"{said}, under {FEW:.0%}: keep those in higher precision"
    if share <= MANY:
        return (
            "mixed_approach",
            f"{said}, {FEW:.0%} to {MANY:.0%}: higher precision for the worse half, noise in training for the others",
        )
    return "reconsider_format", f"{said}, above {MANY:.0%}: reconsider the format"


def _flagged(
    layer: Layer,
    spec: str,
    beyond: Mapping[str, float],
    severity: float,
    action: Action,
    specs: Sequence[str],
) -> Flagged:
    measured = layer.formats[spec]
    known = measured.tally is not None
    gains = [
        WhatIf(
            format=other,
            gain_db=layer.formats[other].value("sqnr_db") - measured.value("sqnr_db"),
            bits_per_value=bits_per_value(other),
        )
        for other in specs
        if other != spec and math.isfinite(layer.formats[other].value("sqnr_db") - measured.value("sqnr_db"))
    ]
    gains.sort(key=lambda gain: -(gain.gain_db or 0.0))
    return Flagged(
        layer=layer.layer,
        beyond=dict(beyond),
        severity=severity,
        action=action,
        cause=cause(spec, measured) if known else "not measured: the report holds metrics without sums",
        noise_shares=noise_shares(measured) if known else {},
        crest=measured.value("crest") if known else None,
        kurtosis=measured.value("kurtosis") if known else None,
        what_if=gains,
    )


def _candidate(layers: Sequence[Layer], spec: str, against: Against, thresholds: Mapping[str, float]) -> Candidate:
    try:
        limits = limits_for(spec, against, thresholds)
    except SettingError:
        limits = limits_for(spec, "classic", thresholds)
    flagged = sum(bool(_beyond(layer.formats[spec], limits)) for layer in layers)
    judged = sum(_is_judged(layer, spec) for layer in layers)
    sqnrs = [value for layer in layers if math.isfinite(value := layer.formats[spec].value("sqnr_db"))]
    return Candidate(
        format=spec,
        bits_per_value=bits_per_value(spec),
        sqnr_db=fmean(sqnrs) if sqnrs else None,
        flagged=flagged,
        layers=judged,
        passes=judged > 0 and flagged / judged < FEW,
    )


def _next(candidates: Sequence[Candidate], spec: str) -> str | None:
    """The format of fewest bits that passes and is better than this one; None when none was measured."""
    mine = next(c for c in candidates if c.format == spec)
    better = [c for c in candidates if c.passes and c.format != spec and (c.sqnr_db or 0) > (mine.sqnr_db or -math.inf)]
    ranked = sorted(better, key=lambda c: (c.bits_per_value or math.inf, -(c.sqnr_db or 0)))
    return ranked[0].format if ranked else None
