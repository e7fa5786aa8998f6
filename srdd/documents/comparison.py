"""What a comparison of reports is as a document: differences of two, drift over several, per layer, site and zone.

nan and inf are null in JSON.

Not here: how they are found (srdd.analysis.comparison).

Worked number: a layer of 20 dB before and 17 dB after is one `Difference` with change -3, worse.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from srdd.documents.parts import Kind


class Fact(BaseModel):
    """A row of a document that may hold nan and inf; both are null in JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null", defer_build=True)


class Difference(Fact):
    """One layer, zone or site outside the layers in both reports."""

    name: str
    layers: list[int]  # empty for a site outside the layers
    base: float
    new: float
    change: float
    standard_error: float
    within_noise: bool
    worse: bool | None  # None: no change, not measured, or a metric without a better side


class Comparison(Fact):
    """One metric of one kind and format. Rows with a change come first, largest first, then those not measured."""

    kind: Kind
    base_format: str
    new_format: str
    metric: str
    unit: str
    layers: list[Difference]
    outside: list[Difference]  # sites in no layer, such as lm_head
    zones: list[Difference]

    @property
    def measured(self) -> list[Difference]:
        """Layers and sites outside them that have a number in both reports."""
        return [row for row in (*self.layers, *self.outside) if not math.isnan(row.change)]

    @property
    def mean_change(self) -> float:
        """The mean over the layers whose change is finite; nan where there is none."""
        changes = [row.change for row in self.layers if math.isfinite(row.change)]
        return math.fsum(changes) / len(changes) if changes else math.nan


class Drift(Fact):
    """One layer or zone over a series of reports. `change` is last minus first, `slope` the least-squares line."""

    name: str
    layers: list[int]
    values: list[float]
    change: float
    standard_error: float
    slope: float
    slope_error: float
    within_noise: bool
    worse: bool | None


class DriftTable(Fact):
    """The drift of one metric of one kind and format, largest change first."""

    kind: Kind
    format: str
    metric: str
    unit: str
    layers: list[Drift]
    outside: list[Drift]
    zones: list[Drift]

    @property
    def measured(self) -> list[Drift]:
        """Layers and sites outside them that have a number in the first and the last report."""
        return [row for row in (*self.layers, *self.outside) if not math.isnan(row.change)]


class ComparisonDocument(Fact):
    """What `srdd compare --json` prints."""

    schema_version: Literal[1] = 1
    document: Literal["srdd-comparison"] = "srdd-comparison"
    reports: list[str]  # as the user named them, the base first
    models: list[str]
    notes: list[str]
    comparisons: list[Comparison] = Field(default_factory=list)
    drift: list[DriftTable] = Field(default_factory=list)
