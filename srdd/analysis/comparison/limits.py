"""Limits as small objects: how far from a baseline a metric may move, and floors that hold without one.

Not here: policies and how they are written (policy.py), reports and verdicts (gate.py). Which way is worse follows from
the metric. Ratios are given as they are stored: deadzone_ratio 0.01 is one percentage point, relative_error 5% is
1.05 times the baseline.

Worked number: 0.5 of sqnr_db allows 18.5 dB where the baseline has 19; 5% of relative_error 0.105 where it has 0.1.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from srdd.core.layers import parse_layers
from srdd.core.metrics import GATED, Metric, any_metric, gated_metric
from srdd.core.verdicts import violates
from srdd.documents.parts import KINDS, Kind


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
            parse_layers(value)
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
        chosen = gated_metric(self.metric)
        amount, percent = amount_of(self.max_worse)
        if amount < 0:
            raise ValueError(f"max_worse {self.max_worse!r}: an amount; which way is worse follows from the metric")
        if percent and chosen.better == "up" and not chosen.in_points:
            raise ValueError(f"{self.metric} in percent means little; give an amount{_in(chosen)}")
        if not percent and chosen.unit == "%" and amount >= 1:
            raise ValueError(f"{self.metric} is a ratio: 0.01 is one percentage point, 1% a hundredth of the baseline")
        return self

    @property
    def of(self) -> Metric:
        return GATED[self.metric]

    @property
    def times(self) -> float:
        """What the base is multiplied by: 1.1 for "10%", 1 for an amount."""
        amount, percent = amount_of(self.max_worse)
        return 1 + amount if percent and not self.of.in_points else 1.0

    def bound(self, base: float, new: float = math.nan) -> float:
        """The worst value that passes."""
        amount, _ = amount_of(self.max_worse)
        if self.times != 1:
            return base * self.times
        return base - amount if self.of.better == "up" else base + amount

    def holds(self, base: float, new: float) -> bool:
        return not math.isnan(new) and not violates(self.of, new, self.bound(base))

    @property
    def text(self) -> str:
        amount, percent = amount_of(self.max_worse)
        sign = "-" if self.of.better == "up" else "+"
        return f"{self.metric} {sign}{f'{100 * amount:g}%' if percent else f'{amount:g}'}{self.where}"


class Factor(Scope):
    """A metric that has no better side may change by so much, either way."""

    metric: str
    factor: float

    _no_bool = field_validator("factor", mode="before")(_not_bool)

    @model_validator(mode="after")
    def _sensible(self) -> Factor:
        if any_metric(self.metric).unit == "dB":
            raise ValueError(f"{self.metric} is a logarithm; give an amount in dB")
        if not 1 < self.factor < math.inf:
            raise ValueError(f"factor {self.factor:g}: expected above 1")
        return self

    @property
    def of(self) -> Metric:
        return GATED[self.metric]

    def bound(self, base: float, new: float = math.nan) -> float:
        """The last value that passes, on the side to which it moved."""
        return base / self.factor if new < base else base * self.factor

    def holds(self, base: float, new: float) -> bool:
        return not math.isnan(new) and base / self.factor <= new <= base * self.factor

    @property
    def text(self) -> str:
        return f"{self.metric} x{self.factor:g}{self.where}"


class Floor(Scope):
    """A metric may not be worse than this value, whatever the baseline has."""

    metric: str
    value: float | str

    _no_bool = field_validator("value", mode="before")(_not_bool)

    @model_validator(mode="after")
    def _sensible(self) -> Floor:
        chosen = gated_metric(self.metric)
        value, percent = amount_of(self.value)
        if percent and chosen.unit != "%":
            raise ValueError(f"{self.metric} in percent means nothing; give a value{_in(chosen)}")
        if chosen.unit == "%" and not 0 <= value < 1:
            raise ValueError(f"{self.metric} is a ratio: 0.15 or 15%")
        return self

    @property
    def of(self) -> Metric:
        return GATED[self.metric]

    def bound(self, base: float, new: float = math.nan) -> float:
        return amount_of(self.value)[0]

    def holds(self, base: float, new: float) -> bool:
        return not math.isnan(new) and not violates(self.of, new, self.bound(base))

    @property
    def text(self) -> str:
        return f"{self.metric} {'>=' if self.of.better == 'up' else '<='} {self.bound(math.nan):g}{self.where}"


@lru_cache(maxsize=None, typed=True)  # asked for every place that a limit holds for
def amount_of(value: float | str) -> tuple[float, bool]:
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
