"""Relative noise per layer from measured numbers: the strategies behind `srdd multipliers`.

Not here: the document (srdd.documents.rin), zones (zones.py), how much noise (dose.py), and any promise: the published
gains of guided over uniform noise rest on single runs. A new strategy is a function and a row of STRATEGIES.

Worked number: errors 0.2 and 0.4 have mean 0.3: `variable` gives 0.667 and 1.333; `inverse` 0.3 / 0.2 = 1.5 and 0.75,
brought to mean 1: 1.333 and 0.667; `ceiling` 0.5 and 1. Noise sensitivities 4 and 16 give `equal-damage` 1 / 2 and
1 / 4, in rms 1: 1.265 and 0.632, so that 4 * 1.265^2 = 16 * 0.632^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from srdd.analysis.series import Series
from srdd.analysis.zone_factors import by_layer, by_zone, in_words
from srdd.analysis.zones import find_zones
from srdd.core.layers import span
from srdd.core.metrics import COSTS, NOISE_SENSITIVITY
from srdd.core.near import did_you_mean
from srdd.core.verdicts import violates
from srdd.documents.rin import Phase
from srdd.errors import ConflictError, NoEffectError, ReportError, SettingError

CLAMP = (0.5, 2.0)  # the study's
NO_CLAMP = (0.0, math.inf)


@dataclass(frozen=True)
class StrategyOptions:
    """What a user may set; None: not set. An option that the strategy does not use is an error."""

    normalize: str | None = None
    clamp: tuple[float, float] | None = None
    worst: int | None = None
    above: float | None = None
    scheme: str | None = None
    factors: Mapping[str, float] | None = None  # by zone name, "edges" or label
    phase_at: float | None = None


@dataclass(frozen=True)
class Multipliers:
    """What a strategy decides for every layer. `notes` says it in words, for the document and the terminal."""

    layer_multipliers: dict[int, float]
    phases: list[Phase] = field(default_factory=list)
    lr_multipliers: dict[int, float] | None = None
    scheme: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Strategy:
    """A row of STRATEGIES: what it does, which options it uses, the function, and what else it decides by default."""

    meaning: str
    uses: tuple[str, ...]
    apply: Callable[[Series, StrategyOptions], Multipliers]
    normalize: str | None = None
    clamp: tuple[float, float] = NO_CLAMP
    of_noise: bool = False  # its numbers are noise sensitivities, whatever the ranking


def default_strategy(series: Series) -> str:
    """Less noise where quantization costs more; by error, which is no cost, the study's own rule."""
    return "inverse" if series.metric in (*COSTS, NOISE_SENSITIVITY) else "variable"


def known_strategy(name: str) -> Strategy:
    """The row of a strategy. Raises SettingError for an unknown one."""
    if name not in STRATEGIES:
        raise SettingError(
            "strategy", name, f"expected one of: {', '.join(STRATEGIES)}{did_you_mean(name, STRATEGIES)}"
        )
    return STRATEGIES[name]


def apply_strategy(series: Series, strategy: str, options: StrategyOptions) -> Multipliers:
    """The multipliers of a strategy by name. Raises SettingError for an unknown one, NoEffectError for unused options.

    Also ConflictError, and ReportError for errors that no multiplier can be made from.
    """
    chosen = known_strategy(strategy)
    for name, value in vars(options).items():
        if value is not None and name not in chosen.uses:
            users = ", ".join(other for other, known in STRATEGIES.items() if name in known.uses)
            raise NoEffectError(name, f"on {strategy} (only on {users})")
    defaults = {name: getattr(chosen, name) for name in ("normalize", "clamp") if name in chosen.uses}
    given = {name: value for name, value in vars(options).items() if value is not None}
    return chosen.apply(series, StrategyOptions(**(defaults | given)))


def normalized(values: Sequence[float], how: str) -> list[float]:
    """Values over their mean, maximum or root mean square. Raises SettingError, and ReportError when all are 0."""
    scales = {
        "mean": lambda: fmean(values),
        "max": lambda: max(values),
        "rms": lambda: math.sqrt(fmean(v * v for v in values)),
    }
    if how not in scales:
        raise SettingError("normalize", how, f"expected one of {', '.join(scales)}")
    scale = scales[how]()
    if scale <= 0:
        raise ReportError("every layer has an error of 0; there is nothing to guide noise by")
    return [value / scale for value in values]


def _finished(series: Series, values: Sequence[float], options: StrategyOptions, how: str) -> Multipliers:
    """Normalised, then clamped, and said what the clamp moved."""
    result = normalized(values, how)
    notes = []
    if options.clamp is not None and options.clamp != NO_CLAMP:
        low, high = options.clamp
        if not 0 <= low < high:
            raise SettingError("clamp", f"{low:g},{high:g}", "expected 0 <= lo < hi")
        clamped = [min(max(value, low), high) for value in result]
        moved = [layer for layer, a, b in zip(series.layers, result, clamped, strict=True) if a != b]
        which = f"layer(s) {span(moved)}; the {how} is no longer 1" if moved else "no layer"
        notes.append(f"clamped to {low:g} to {high:g}: {which}")
        result = clamped
    return Multipliers(dict(zip(series.layers, result, strict=True)), notes=notes)


def _global(series: Series, options: StrategyOptions) -> Multipliers:
    return Multipliers(dict.fromkeys(series.layers, 1.0))


def _variable(series: Series, options: StrategyOptions) -> Multipliers:
    return _finished(series, series.errors, options, options.normalize or "mean")


def _inverse(series: Series, options: StrategyOptions) -> Multipliers:
    exact = [layer for layer, error in zip(series.layers, series.errors, strict=True) if error <= 0]
    if exact:
        raise ReportError(f"layer(s) {span(exact)} have an error of 0, whose inverse is infinite; use another strategy")
    return _finished(series, [1 / error for error in series.errors], options, options.normalize or "mean")


def _equal_damage(series: Series, options: StrategyOptions) -> Multipliers:
    return _finished(series, [1 / math.sqrt(value) for value in series.values], options, "rms")


def _ceiling(series: Series, options: StrategyOptions) -> Multipliers:
    return _finished(series, series.errors, options, "max")


def _targeted(series: Series, options: StrategyOptions) -> Multipliers:
    if options.worst is not None and options.above is not None:
        raise ConflictError("worst", "above")
    if options.above is not None:
        values = zip(series.layers, series.values, strict=True)
        chosen = [layer for layer, value in values if violates(series.metric, value, options.above)]
        why = f"{series.metric.name} {'below' if series.metric.better == 'up' else 'above'} {options.above:g}"
    else:
        count = math.ceil(len(series.layers) / 4) if options.worst is None else options.worst
        if not 1 <= count < len(series.layers):
            raise SettingError("worst", count, f"expected 1 to {len(series.layers) - 1}; for every layer use global")
        errors = dict(zip(series.layers, series.errors, strict=True))
        chosen = sorted(sorted(errors, key=lambda layer: (-errors[layer], layer))[:count])
        why = f"the {count} worst by {series.metric.name}"
    if len(chosen) in (0, len(series.layers)):
        shown = series.metric.text
        span_of = f"{shown(min(series.values))} to {shown(max(series.values))} {series.metric.unit}".strip()
        which = "every layer" if chosen else "no layer"
        raise SettingError(
            "above", f"{options.above:g}", f"that is {which} ({series.metric.name} is {span_of} over the layers)"
        )
    multipliers = {layer: float(layer in chosen) for layer in series.layers}
    return Multipliers(multipliers, notes=[f"noise only in layer(s) {span(chosen)}: {why}"])


def _tiered(series: Series, options: StrategyOptions) -> Multipliers:
    scheme = options.scheme or "auto"
    zones = find_zones(series, scheme)[0]
    factors = by_zone(zones, {"high": 1.5, "medium": 1.2, "low": 1.0}, options.factors)
    if len(set(factors.values())) == 1:
        raise SettingError(
            "scheme",
            scheme,
            "every layer gets the same factor (one zone, or zones alike); use global, or another scheme, e.g. five",
        )
    return Multipliers(by_layer(zones, factors), scheme=scheme, notes=in_words(zones, factors))


def _phased(series: Series, options: StrategyOptions) -> Multipliers:
    scheme = options.scheme or "edge-middle"
    at = 0.5 if options.phase_at is None else options.phase_at
    if not 0 < at < 1:
        raise SettingError("phase_at", f"{at:g}", "expected a share of the training between 0 and 1")
    zones = find_zones(series, scheme)[0]
    # named edges and middle are spared by place; zones of another scheme by their measured error
    defaults = {"edges": 1.0, "middle": 0.5} if scheme == "edge-middle" else {"high": 0.5, "medium": 1.0, "low": 1.0}
    factors = by_zone(zones, defaults, options.factors)
    if set(factors.values()) == {1.0}:
        raise SettingError(
            "factors", None, "all of the second phase are 1, so it would change nothing; use global, or give others"
        )
    late = Phase(from_share=at, layer_factors=by_layer(zones, factors))
    notes = [f"uniform until {at:.0%} of the training, then:", *in_words(zones, factors)]
    return Multipliers(dict.fromkeys(series.layers, 1.0), phases=[late], scheme=scheme, notes=notes)


def _lr(series: Series, options: StrategyOptions) -> Multipliers:
    scheme = options.scheme or "auto"
    zones = find_zones(series, scheme)[0]
    factors = by_zone(zones, {"high": 1.2, "medium": 1.0, "low": 1.0}, options.factors)
    if set(factors.values()) == {1.0}:
        raise SettingError("scheme", scheme, "no zone has a high error, so every learning rate would stay; use global")
    notes = ["noise uniform; learning rates:", *in_words(zones, factors)]
    return Multipliers(
        dict.fromkeys(series.layers, 1.0), lr_multipliers=by_layer(zones, factors), scheme=scheme, notes=notes
    )


STRATEGIES: dict[str, Strategy] = {
    "global": Strategy("every layer the same", (), _global),
    "variable": Strategy(
        "a layer's error over the mean error", ("normalize", "clamp"), _variable, normalize="mean", clamp=CLAMP
    ),
    "inverse": Strategy(
        "1 over what a layer costs or its error, in mean 1: what costs more gets less",
        ("normalize", "clamp"),
        _inverse,
        normalize="mean",
        clamp=CLAMP,
    ),
    "equal-damage": Strategy(
        "noise costs the same in every layer: 1 over the root of its noise sensitivity",
        ("clamp",),
        _equal_damage,
        normalize="rms",
        of_noise=True,
    ),
    "ceiling": Strategy(
        "error over the largest error: no layer exceeds the base sigma", ("clamp",), _ceiling, normalize="max"
    ),
    "targeted": Strategy("on for the worst layers, off elsewhere", ("worst", "above"), _targeted),
    "tiered": Strategy("one value per zone: high 1.5, medium 1.2, low 1.0", ("scheme", "factors"), _tiered),
    "phased": Strategy(
        "uniform, then per zone: edges 1.0, middle 0.5 from half-way", ("scheme", "factors", "phase_at"), _phased
    ),
    "lr": Strategy("noise uniform, learning rate 1.2 in zones of high error", ("scheme", "factors"), _lr),
}
