"""The part of a report on a LoRA adapter: what it is, in which form it was measured, and how much of it survives.

Survival rows hold sums over the values of one weight under one format; the numbers that people read follow from them
(srdd.core.adapters says what they mean) and are computed anew on loading.

Not here: measuring (srdd.runs.scans.survival).

Worked number: sum_pd = 0.15, sum_d2 = 0.1 and sum_r2 = 0.05 are a survival of 1.5 with a relative error of 0.71.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pydantic import Field, computed_field, model_validator

from srdd.core.adapters import AdapterForm, relative_error, survival
from srdd.documents.parts import Part

_SUMS = ("n", "moved", "sum_w2", "sum_d2", "sum_pd", "sum_r2", "sum_e2_apart", "sum_e2_merged")


class Survival(Part):
    """One weight under one format. D is what the adapter adds, P what arrives of it, R = P - D, W the changed weight.

    `sum_e2_apart` and `sum_e2_merged` are the squared errors of Q(base) + D and of Q(W) against W.
    """

    name: str
    role: str
    layer: int | None = None
    rank: int
    format: str
    n: int
    moved: int
    sum_w2: float
    sum_d2: float
    sum_pd: float
    sum_r2: float
    sum_e2_apart: float
    sum_e2_merged: float

    @model_validator(mode="before")
    @classmethod
    def _forget_derived(cls, data: Any) -> Any:
        derived = ("survival", "relative_error", "relative_size", "sqnr_apart_db", "sqnr_merged_db")
        return {k: v for k, v in data.items() if k not in derived} if isinstance(data, dict) else data

    @computed_field  # type: ignore[prop-decorator]
    @property
    def survival(self) -> float | None:
        """<P, D> / |D|^2; None for an adapter that adds nothing."""
        return _finite(survival(self.sum_pd, self.sum_d2))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def relative_error(self) -> float | None:
        """|P - D| / |D|; None for an adapter that adds nothing."""
        return _finite(relative_error(self.sum_r2, self.sum_d2))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def relative_size(self) -> float | None:
        """|D| / |W|."""
        return math.sqrt(self.sum_d2 / self.sum_w2) if self.sum_w2 > 0 else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sqnr_apart_db(self) -> float | None:
        """Of W against Q(base) + D; None where it is exact."""
        return _decibels(self.sum_w2, self.sum_e2_apart)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sqnr_merged_db(self) -> float | None:
        """Of W against Q(W); None where it is exact."""
        return _decibels(self.sum_w2, self.sum_e2_merged)


class AdapterPart(Part):
    """The adapter that a report is of."""

    id: str
    form: AdapterForm
    method: str  # "LoRA" or "DoRA"
    base: str | None = None  # as its own config names it
    weights_hash: str
    parameters: int
    modules: int  # that its factors change
    ranks: list[int]
    whole: list[str] = Field(default_factory=list)  # parameters that it replaces
    survival: list[Survival] = Field(default_factory=list)  # by weight and format


def joined(rows: Iterable[Survival], name: str) -> Survival:
    """Many weights under one format as one: ratios of sums. `rows` is not empty."""
    listed = list(rows)
    sums = {key: sum(getattr(row, key) for row in listed) for key in _SUMS}
    return listed[0].model_copy(update={**sums, "name": name, "layer": None, "rank": max(r.rank for r in listed)})


def _decibels(signal: float, noise: float) -> float | None:
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
