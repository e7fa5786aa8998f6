"""What to do about a format, by rule, with every input of the rule shown: by costs where known, else by errors.

Not here: the rule by costs (cost_advice.py), a search for the best mix of formats, and proof: the error of a tensor is
not yet a loss of the model. By errors a layer is flagged when a metric is beyond its limit: a margin around what the
format gives on Gaussian data (the default), or the classic thresholds, which flag every layer in 4-bit formats. The
share of flagged layers decides. None: no action. Under 10 %: keep those layers in higher precision. Up to 30 %: higher
precision for the worse half, noise in training for the others. Above: reconsider the format.

Worked number: mxfp4:even gives 22.2 % relative error on Gaussian data, so its limit is 1.5 x 22.2 = 33.2 %; of 30
layers 4 beyond it are 13 %, the mixed approach: 2 kept in higher precision, 2 trained with noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from srdd.analysis.causes import cause, noise_shares
from srdd.analysis.cost_advice import advise_by_cost, priced_spec
from srdd.analysis.layer_costs import has_costs, weakness
from srdd.analysis.series import choose_kind, choose_spec
from srdd.core.formats import bits_per_value
from srdd.core.gaussian import gaussian_metrics
from srdd.core.metrics import BY_NAME, MAIN
from srdd.core.verdicts import CLASSIC, violates
from srdd.documents.advice import (
    Action,
    Advice,
    Against,
    Candidate,
    Flagged,
    Verdict,
    WhatIf,
)
from srdd.documents.parts import KINDS, Kind
from srdd.documents.report import Report
from srdd.documents.schema import Layer, Measurement
from srdd.errors import NoEffectError, ReportError, SettingError, setting

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

# QeRL's two published settings start at 0.01 and 0.05, for NVFP4.
_QERL_SIGMAS, _QERL_FORMAT = (0.01, 0.05), "nvfp4:nvidia"


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


def advise(report: Report, kind: Kind | None = None, spec: str | None = None, against: Against | None = None) -> Advice:
    """The advice under one format of the report, e.g. "mxfp4": by what its layers cost, else by their errors.

    `against` is "cost", the default where costs are known and no kind of site is asked for; "format", the margin around
    Gaussian data; or "classic", the report's thresholds. `kind` is of the sites whose errors are judged. Raises
    SettingError, NoEffectError, and ReportError for a report in which nothing can be judged.
    """
    if kind not in (None, *KINDS):
        raise SettingError("kind", kind, f"expected {', '.join(KINDS)}")
    if against not in (None, "cost", "format", "classic"):
        raise SettingError("against", against, "expected cost, format or classic")
    if against == "cost" or (against is None and kind is None and has_costs(report)):
        if kind is not None:
            raise NoEffectError("kind", f"with {setting('against', 'cost')}, which is of whole layers")
        priced = priced_spec(report, spec, against)
        if priced is not None:
            return advise_by_cost(report, priced)
    judged = choose_kind(report, None) if kind is None else kind
    return _by_errors(report, judged, choose_spec(report, spec), against or "format")


def _by_errors(report: Report, kind: Kind, spec: str, against: Against) -> Advice:
    layers = [layer for layer in report.layers if layer.kind == kind and spec in layer.formats]
    if not layers:
        raise ReportError(f"the report has no layer with {kind} sites under {spec}; scan with {setting('sites', kind)}")
    if not any(_is_judged(layer, spec) for layer in layers):
        raise ReportError(f"none of {', '.join(MAIN)} is known under {spec}; advice needs a report of `srdd scan`")
    thresholds = report.settings.thresholds
    limits = limits_for(spec, against, thresholds)
    beyond = {layer.layer: metrics for layer in layers if (metrics := _beyond(layer.formats[spec], limits))}
    judged = sum(_is_judged(layer, spec) for layer in layers)
    verdict, rule = _verdict(len(beyond), judged)
    severity = {layer: _severity(metrics, limits) for layer, metrics in beyond.items()}
    ranked = sorted(severity, key=lambda layer: (-severity[layer], layer))
    worse_half = set(ranked[: math.ceil(len(ranked) / 2)])
    specs = [s for s in report.settings.formats if all(s in layer.formats for layer in layers)]
    candidates = [_candidate(layers, s, against, thresholds) for s in specs]
    moderate = [layer for layer in ranked if layer not in worse_half] if verdict == "mixed_approach" else []
    by_number = {layer.layer: layer for layer in layers}
    flagged = []
    for number in ranked:
        action: Action = "noise in training" if number in moderate else _ACTIONS[verdict]
        flagged.append(_flagged(by_number[number], spec, beyond[number], severity[number], action, specs))
    sigma_range, sigma_source = _sigma([by_number[number].formats[spec] for number in moderate or by_number])
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
        sigma_range=sigma_range,
        sigma_source=sigma_source,
        notes=[
            *(note for note in report.warnings if note.level in ("version 0", "error")),
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


def _verdict(flagged: int, layers: int) -> tuple[Verdict, str]:
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


def _sigma(measured: Sequence[Measurement]) -> tuple[tuple[float, float] | None, str | None]:
    """A first range of sigma_start in proportion to the measured relative error, and where it comes from."""
    errors = [value for m in measured if math.isfinite(value := m.value("relative_error"))]
    if not errors:
        return None, None
    mean, usual = fmean(errors), (gaussian_metrics(_QERL_FORMAT) or {})["relative_error"]
    low, high = (round(sigma * mean / usual, 4) for sigma in _QERL_SIGMAS)
    source = (
        f"a starting point from one study, not a finding: QeRL's {_QERL_SIGMAS[0]:g} to {_QERL_SIGMAS[1]:g} (NVFP4, "
        f"{usual:.1%} relative error on Gaussian data), in proportion to the {mean:.1%} measured here"
    )
    return (low, high), source
