"""Relative noise per layer from measured error: the strategies behind `srdd multipliers`.

Not here: the document (rin.py), zones (zones.py) and any promise. Multipliers say where, not how much: a sigma that a
model with 16-bit activations bears can break one with 4-bit activations, and published gains of guided over uniform
noise rest on single runs.

Worked number: errors 0.2 and 0.4 have mean 0.3: `variable` gives 0.667 and 1.333; `inverse` 0.3 / 0.2 = 1.5 and 0.75,
brought to mean 1: 1.333 and 0.667; `ceiling` 0.5 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from srdd.analysis.series import Series
from srdd.analysis.zones import find
from srdd.core.layers import span
from srdd.core.verdicts import violates
from srdd.documents.rin import Phase
from srdd.documents.zones import Zone
from srdd.errors import OptionError

__all__ = ["STRATEGIES", "Choices", "Plan", "plan"]

LABELS = ("high", "medium", "low")


@dataclass(frozen=True)
class Choices:
    """What a user may set; None where nothing was said. A choice that the strategy does not use is an error."""

    normalize: str | None = None
    clamp: tuple[float, float] | None = None
    worst: int | None = None
    above: float | None = None
    scheme: str | None = None
    factors: Mapping[str, float] | None = None  # by zone name, "edges" or label
    phase_at: float | None = None


@dataclass(frozen=True)
class Plan:
    """What a strategy decides. `notes` says it in words, for the document and the terminal."""

    layer_multipliers: dict[int, float]
    phases: list[Phase] = field(default_factory=list)
    lr_multipliers: dict[int, float] | None = None
    scheme: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Strategy:
    """A row of STRATEGIES: what it does, which choices it uses, and the function."""

    meaning: str
    uses: tuple[str, ...]
    plan: Callable[[Series, Choices], Plan]


def plan(series: Series, strategy: str, choices: Choices) -> Plan:
    """The plan of a strategy. Raises OptionError for an unknown one, or a choice without effect on it."""
    row = STRATEGIES.get(strategy)
    if row is None:
        raise OptionError(f"strategy {strategy!r} is not known; expected one of: {', '.join(STRATEGIES)}")
    for name, value in vars(choices).items():
        if value is not None and name not in row.uses:
            option = "--factor" if name == "factors" else f"--{name.replace('_', '-')}"
            users = ", ".join(other for other, r in STRATEGIES.items() if name in r.uses)
            raise OptionError(f"{option} has no effect on {strategy} (only on {users}); leave it out")
    return row.plan(series, choices)


def normalized(values: Sequence[float], how: str) -> list[float]:
    """Values over their mean, maximum or root mean square. Raises OptionError."""
    scales = {
        "mean": lambda: fmean(values),
        "max": lambda: max(values),
        "rms": lambda: math.sqrt(fmean(v * v for v in values)),
    }
    if how not in scales:
        raise OptionError(f"--normalize {how}: expected one of {', '.join(scales)}")
    scale = scales[how]()
    if scale <= 0:
        raise OptionError("every layer has an error of 0; there is nothing to guide noise by")
    return [value / scale for value in values]


def _finished(series: Series, values: Sequence[float], choices: Choices, how: str) -> Plan:
    """Normalised, then clamped, and said when the clamp moved something."""
    result = normalized(values, how)
    notes = []
    if choices.clamp is not None:
        low, high = choices.clamp
        if not 0 <= low < high:
            raise OptionError(f"--clamp {low:g},{high:g}: expected 0 <= lo < hi")
        clamped = [min(max(value, low), high) for value in result]
        moved = [layer for layer, a, b in zip(series.layers, result, clamped, strict=True) if a != b]
        what = f"layer(s) {span(moved)}; the {how} is no longer 1" if moved else "no layer"
        notes.append(f"clamped to {low:g} to {high:g}: {what}")
        result = clamped
    return Plan(dict(zip(series.layers, result, strict=True)), notes=notes)


def _global(series: Series, choices: Choices) -> Plan:
    return Plan(dict.fromkeys(series.layers, 1.0))


def _variable(series: Series, choices: Choices) -> Plan:
    return _finished(series, series.errors, choices, choices.normalize or "mean")


def _inverse(series: Series, choices: Choices) -> Plan:
    exact = [layer for layer, error in zip(series.layers, series.errors, strict=True) if error <= 0]
    if exact:
        raise OptionError(f"layer(s) {span(exact)} have an error of 0, whose inverse is infinite; use another strategy")
    return _finished(series, [1 / error for error in series.errors], choices, choices.normalize or "mean")


def _ceiling(series: Series, choices: Choices) -> Plan:
    return _finished(series, series.errors, choices, "max")


def _targeted(series: Series, choices: Choices) -> Plan:
    if choices.worst is not None and choices.above is not None:
        raise OptionError("--worst and --above exclude each other; give one")
    if choices.above is not None:
        values = zip(series.layers, series.values, strict=True)
        chosen = [layer for layer, value in values if violates(series.metric, value, choices.above)]
        why = f"{series.metric.name} {'below' if series.metric.better == 'up' else 'above'} {choices.above:g}"
    else:
        count = math.ceil(len(series.layers) / 4) if choices.worst is None else choices.worst
        if not 1 <= count < len(series.layers):
            raise OptionError(f"--worst {count}: expected 1 to {len(series.layers) - 1}; for every layer use global")
        errors = dict(zip(series.layers, series.errors, strict=True))
        chosen = sorted(sorted(errors, key=lambda layer: (-errors[layer], layer))[:count])
        why = f"the {count} worst by {series.metric.name}"
    if len(chosen) in (0, len(series.layers)):
        shown = series.metric.text
        span_of = f"{shown(min(series.values))} to {shown(max(series.values))} {series.metric.unit}".strip()
        which = "every layer" if chosen else "no layer"
        raise OptionError(f"{why}: that is {which} ({span_of} over the layers); choose another --above")
    multipliers = {layer: float(layer in chosen) for layer in series.layers}
    return Plan(multipliers, notes=[f"noise only in layer(s) {span(chosen)}: {why}"])


def _tiered(series: Series, choices: Choices) -> Plan:
    scheme = choices.scheme or "auto"
    zones = find(series, scheme)[0]
    factors = _by_zone(zones, {"high": 1.5, "medium": 1.2, "low": 1.0}, choices.factors)
    if len(set(factors.values())) == 1:
        raise OptionError(
            f"--scheme {scheme} gives every layer the same factor (one zone, or zones alike); use global, or another "
            "--scheme, e.g. five"
        )
    return Plan(_by_layer(zones, factors), scheme=scheme, notes=_said(zones, factors))


def _phased(series: Series, choices: Choices) -> Plan:
    scheme = choices.scheme or "edge-middle"
    at = 0.5 if choices.phase_at is None else choices.phase_at
    if not 0 < at < 1:
        raise OptionError(f"--phase-at {at:g}: expected a share of the training between 0 and 1")
    zones = find(series, scheme)[0]
    # named edges and middle are spared by place; zones of another scheme by their measured error
    defaults = {"edges": 1.0, "middle": 0.5} if scheme == "edge-middle" else {"high": 0.5, "medium": 1.0, "low": 1.0}
    factors = _by_zone(zones, defaults, choices.factors)
    if set(factors.values()) == {1.0}:
        raise OptionError("every factor of the second phase is 1, so it would change nothing; use global, or --factor")
    late = Phase(from_share=at, layer_factors=_by_layer(zones, factors))
    notes = [f"uniform until {at:.0%} of the training, then:", *_said(zones, factors)]
    return Plan(dict.fromkeys(series.layers, 1.0), phases=[late], scheme=scheme, notes=notes)


def _lr(series: Series, choices: Choices) -> Plan:
    scheme = choices.scheme or "auto"
    zones = find(series, scheme)[0]
    factors = _by_zone(zones, {"high": 1.2, "medium": 1.0, "low": 1.0}, choices.factors)
    if set(factors.values()) == {1.0}:
        raise OptionError(f"--scheme {scheme} has no zone of high error, so every learning rate would stay; use global")
    notes = ["noise uniform; learning rates:", *_said(zones, factors)]
    return Plan(dict.fromkeys(series.layers, 1.0), lr_multipliers=_by_layer(zones, factors), scheme=scheme, notes=notes)


def _by_zone(
    zones: Sequence[Zone], defaults: Mapping[str, float], given: Mapping[str, float] | None
) -> dict[str, float]:
    """A factor for every zone: by its name first, then as one of the "edges", then by its label."""
    factors = {**defaults, **(given or {})}
    keys = {zone.name: (zone.name, "edges" if zone.name.endswith(" edge") else "", zone.label) for zone in zones}
    unused = sorted(set(given or {}) - {key for tried in keys.values() for key in tried})
    if unused:
        known = sorted({key for tried in keys.values() for key in tried if key})
        raise OptionError(f"--factor {unused[0]}: there is no such zone; expected one of: {', '.join(known)}")
    bad = {key: value for key, value in factors.items() if not 0 <= value < math.inf}
    if bad:
        raise OptionError(f"--factor {', '.join(f'{k}={v:g}' for k, v in bad.items())}: expected 0 or more")
    return {name: next((factors[key] for key in tried if key in factors), 1.0) for name, tried in keys.items()}


def _by_layer(zones: Sequence[Zone], factors: Mapping[str, float]) -> dict[int, float]:
    return {layer: factors[zone.name] for zone in zones for layer in zone.layers}


def _said(zones: Sequence[Zone], factors: Mapping[str, float]) -> list[str]:
    return [f"{zone.name} (layers {zone.span}, {zone.label} error): {factors[zone.name]:g}" for zone in zones]


STRATEGIES: dict[str, Strategy] = {
    "global": Strategy("every layer the same", (), _global),
    "variable": Strategy("a layer's error over the mean error", ("normalize", "clamp"), _variable),
    "inverse": Strategy("resilient layers get more, vulnerable ones less", ("normalize", "clamp"), _inverse),
    "ceiling": Strategy("error over the largest error: no layer exceeds the base sigma", ("clamp",), _ceiling),
    "targeted": Strategy("on for the worst layers, off elsewhere", ("worst", "above"), _targeted),
    "tiered": Strategy("one value per zone: high 1.5, medium 1.2, low 1.0", ("scheme", "factors"), _tiered),
    "phased": Strategy(
        "uniform, then per zone: edges 1.0, middle 0.5 from half-way", ("scheme", "factors", "phase_at"), _phased
    ),
    "lr": Strategy("noise uniform, learning rate 1.2 in zones of high error", ("scheme", "factors"), _lr),
}
