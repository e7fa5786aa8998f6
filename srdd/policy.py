"""Limits as small objects: how much worse than a baseline a metric may get, and floors that hold without one.

Not here: reports and verdicts (gate.py). Which way is worse follows from the metric; on the command line the sign says
it again, so that a slip is refused rather than obeyed. Ratios are meant as stored: deadzone_ratio +0.01 is one
percentage point, relative_error +5% is 1.05 times the baseline.

Worked number: "sqnr_db=-0.5" allows 18.5 dB where the baseline has 19, "relative_error=+5%" 0.105 where it has 0.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from srdd.errors import OptionError
from srdd.layer_groups import layer_numbers
from srdd.metrics import RANKED, Metric
from srdd.schema import KINDS, Kind
from srdd.series import choose_metric

IMPLAUSIBLE_GAIN = 2.0  # an error halved (6 dB) between two checkpoints is more often the wrong file than a gain


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):  # pydantic would take true for 1.0
        raise ValueError(f"{str(value).lower()} is no number, nor one with %")
    return value


class Scope(BaseModel):
    """What a limit holds for; None is everything."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    site: Kind | None = None
    quant: str | None = None
    layers: str | None = None

    @field_validator("site", mode="before")
    @classmethod
    def _known_site(cls, value: Any) -> Any:
        kind = value.rstrip("s") if isinstance(value, str) else value
        if kind is not None and kind not in KINDS:
            raise ValueError(f"site {value!r}: expected {', '.join(KINDS)}")
        return kind

    @field_validator("layers")
    @classmethod
    def _known_layers(cls, value: str | None) -> str | None:
        if value is not None:
            layer_numbers(value, "layers")
        return value

    @property
    def where(self) -> str:
        """ " (output, mxfp4:even, layers 0-3)", or nothing."""
        parts = [self.site, self.quant, f"layers {self.layers}" if self.layers else None]
        named = ", ".join(part for part in parts if part)
        return f" ({named})" if named else ""


class Limit(Scope):
    """A metric may get worse than in the baseline by so much."""

    metric: str
    max_worse: float | str

    _no_bool = field_validator("max_worse", mode="before")(_not_bool)

    @model_validator(mode="after")
    def _sensible(self) -> Limit:
        chosen = choose_metric(self.metric)
        amount, percent = _amount(self.max_worse)
        if amount < 0:
            raise ValueError(f"max_worse {self.max_worse!r}: an amount; which way is worse follows from the metric")
        if percent and chosen.better == "up":
            raise ValueError(f"{self.metric} in percent means little; give an amount{_in(chosen)}")
        if not percent and chosen.unit == "%" and amount >= 1:
            raise ValueError(f"{self.metric} is a ratio: 0.01 is one percentage point, 1% a hundredth of the baseline")
        return self

    @property
    def of(self) -> Metric:
        return RANKED[self.metric]

    def bound(self, base: float) -> float:
        """The worst value that passes."""
        amount, percent = _amount(self.max_worse)
        if percent:
            return base * (1 + amount)
        return base - amount if self.of.better == "up" else base + amount

    @property
    def text(self) -> str:
        amount, percent = _amount(self.max_worse)
        sign = "-" if self.of.better == "up" else "+"
        return f"{self.metric} {sign}{f'{100 * amount:g}%' if percent else f'{amount:g}'}{self.where}"


class Floor(Scope):
    """A metric may not be worse than this value, whatever the baseline has."""

    metric: str
    value: float | str

    _no_bool = field_validator("value", mode="before")(_not_bool)

    @model_validator(mode="after")
    def _sensible(self) -> Floor:
        chosen = choose_metric(self.metric)
        value, percent = _amount(self.value)
        if percent and chosen.unit != "%":
            raise ValueError(f"{self.metric} in percent means nothing; give a value{_in(chosen)}")
        if chosen.unit == "%" and not 0 <= value < 1:
            raise ValueError(f"{self.metric} is a ratio: 0.15 or 15%")
        return self

    @property
    def of(self) -> Metric:
        return RANKED[self.metric]

    def bound(self, base: float) -> float:
        return _amount(self.value)[0]

    @property
    def text(self) -> str:
        return f"{self.metric} {'>=' if self.of.better == 'up' else '<='} {self.bound(math.nan):g}{self.where}"


@dataclass(frozen=True)
class Policy:
    """All that a check holds a report to."""

    limits: tuple[Limit, ...] = ()
    floors: tuple[Floor, ...] = ()
    implausible_gain: float = IMPLAUSIBLE_GAIN
    by: Literal["layer", "module"] = "layer"  # what a limit is checked on; modules do not hide in their layer
    are_defaults: bool = field(default=False, compare=False)


def load(path: Path) -> Policy:
    """A policy from TOML: [[limit]] and [[floor]] tables, implausible_gain, by. Raises OptionError in one line."""
    import tomllib

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OptionError(f"no policy at {path}") from None
    except (OSError, ValueError) as problem:
        raise OptionError(f"cannot read the policy {path}: {problem}") from problem
    known = ("limit", "floor", "implausible_gain", "by")
    unknown = [key for key in document if key not in known]
    if unknown:
        raise OptionError(f"{path}: unknown key {unknown[0]!r}; known: {', '.join(known)}")
    policy = Policy(
        limits=tuple(_tables(document, "limit", Limit, path)),
        floors=tuple(_tables(document, "floor", Floor, path)),
        implausible_gain=check_gain(document.get("implausible_gain", IMPLAUSIBLE_GAIN), f"{path}: implausible_gain"),
        by=check_by(document.get("by", "layer"), f"{path}: by"),
    )
    if not policy.limits and not policy.floors:
        raise OptionError(f"{path} holds neither a [[limit]] nor a [[floor]]")
    return policy


def check_by(value: object, place: str) -> Literal["layer", "module"]:
    """Raises OptionError for anything but layer and module."""
    if value == "layer" or value == "module":
        return value
    raise OptionError(f"{place} {value!r}: expected layer or module")


def parse_limit(text: str, scope: Scope) -> Limit:
    """ "sqnr_db=-0.5" or "relative_error=+5%". Raises OptionError, also for a sign that says better, not worse."""
    option = f"--limit {text}"
    name, amount = _halves(text, option, "sqnr_db=-0.5 or relative_error=+5%")
    up = choose_metric(name).better == "up"
    value, percent = _number(amount, option)
    if value and (value > 0) == up:
        way, sign = ("fall", "-") if up else ("rise", "+")
        raise OptionError(f"{option}: {name} is worse when it {way}s; expected {name}={sign}{amount.lstrip('+-')}")
    worse = f"{100 * abs(value)}%" if percent else abs(value)
    return _build(Limit, {"metric": name, "max_worse": worse, **scope.model_dump()}, option)


def parse_floor(text: str, scope: Scope) -> Floor:
    """ "sqnr_db=15"; for a metric that is worse when it rises it is the largest value. Raises OptionError."""
    option = f"--floor {text}"
    name, value = _halves(text, option, "sqnr_db=15 or relative_error=15%")
    _number(value, option)
    return _build(Floor, {"metric": name, "value": value, **scope.model_dump()}, option)


def check_gain(value: Any, place: str) -> float:
    """The factor beyond which a gain is implausible. Raises OptionError unless it is above 1."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 < value < math.inf:
        raise OptionError(f"{place} {value!r}: expected a factor above 1, e.g. {IMPLAUSIBLE_GAIN:g}")
    return float(value)


def _halves(text: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name or not value:
        raise OptionError(f"{option} not understood; expected e.g. {example}")
    choose_metric(name)
    return name, value


def _number(text: str, option: str) -> tuple[float, bool]:
    try:
        return _amount(text)
    except ValueError as problem:
        raise OptionError(f"{option}: {problem}") from None


def _amount(value: float | str) -> tuple[float, bool]:
    """0.5 -> (0.5, False); "5%" -> (0.05, True). Raises ValueError."""
    percent = isinstance(value, str) and value.strip().endswith("%")
    try:
        number = float(value.strip().rstrip("%") if isinstance(value, str) else value)
    except ValueError:
        raise ValueError(f"{value!r} is no number, nor one with %") from None
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"{value!r} is no finite number")
    return (number / 100 if percent else number), percent


def _in(metric: Metric) -> str:
    return f" in {metric.unit}" if metric.unit else ""


_Scoped = TypeVar("_Scoped", Limit, Floor)


def _tables(document: dict[str, Any], key: str, of: type[_Scoped], path: Path) -> list[_Scoped]:
    rows = document.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise OptionError(f"{path}: {key} is no table; write [[{key}]]")
    return [_build(of, row, f"{path}: [[{key}]] {place}") for place, row in enumerate(rows, 1)]


def _build(of: type[_Scoped], values: dict[str, Any], place: str) -> _Scoped:
    try:
        return of.model_validate(values)
    except OptionError as problem:
        raise OptionError(f"{place}: {problem}") from None
    except ValidationError as problem:
        first = problem.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        known = ", ".join(of.model_fields)
        text = {
            "extra_forbidden": f"unknown key {key!r}; known: {known}",
            "missing": f"key {key!r} is missing; known: {known}",
        }.get(first["type"], f"{first['msg'].removeprefix('Value error, ')}")
        raise OptionError(f"{place}: {text}") from None


def scope_of(site: str | None, quant: str | None, layers: str | None) -> Scope:
    """Where the options of a command line hold. Raises OptionError."""
    try:
        return Scope(site=site, quant=quant, layers=layers)  # type: ignore[arg-type]  # the validator knows plurals
    except ValidationError as problem:
        raise OptionError(problem.errors()[0]["msg"].removeprefix("Value error, ")) from None


# What holds when nothing is said: half a decibel, a twentieth of the error, a percentage point.
DEFAULTS = (
    Limit(metric="sqnr_db", max_worse=0.5),
    Limit(metric="relative_error", max_worse="5%"),
    Limit(metric="deadzone_ratio", max_worse=0.01),
    Limit(metric="saturation_ratio", max_worse=0.01),
)
