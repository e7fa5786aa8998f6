"""What a comparison of reports is as a document: differences of two, drift over several, per layer, site and zone.

nan and inf are null in JSON.

Not here: how they are found (srdd.analysis.comparison).

Worked number: a layer of 20 dB before and 17 dB after is one `Difference` with change -3, worse.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from srdd.core.modes import Mode, mode_title
from srdd.documents.parts import Place


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


class Beginning(Fact):
    """Where two reports begin to differ, and the tensor to blame: a weight that changed, or the first site."""

    layer: int | None  # None: outside the layers
    equal_up_to: int | None  # the last measured layer before it; None: it is the first
    kind: Place
    name: str
    changed_weights: int
    weights: int

    @property
    def text(self) -> str:
        """ "equal up to layer 9, begins at layer 10: weight model.layers.10.mlp.up_proj, 1 of 211 weights changed"."""
        at = "outside the layers" if self.layer is None else f"at layer {self.layer}"
        equal = "" if self.equal_up_to is None else f"equal up to layer {self.equal_up_to}, "
        changed = f"{self.changed_weights} of {self.weights} weights changed" if self.weights else "no weights measured"
        return f"{equal}begins {at}: {self.kind} {self.name}, {changed}"


class WholeChange(Difference):
    """What quantizing the whole model costs in both reports: its KL, or its loss; of no format the clean loss."""

    quantity: Literal["loss", "kl"]
    base_format: str | None
    new_format: str | None
    mode: Mode | None


class Comparison(Fact):
    """One metric of one kind and format, or one cost of whole layers in one mode.

    Rows with a change come first, largest first, then those not measured.
    """

    kind: Place
    base_format: str
    new_format: str
    mode: Mode | None = None  # of a cost
    metric: str
    unit: str
    layers: list[Difference]
    outside: list[Difference]  # sites in no layer, such as lm_head
    zones: list[Difference]

    @property
    def place(self) -> str:
        """ "output sites, mxfp4:even", "layers, mxfp4:even W4A4"."""
        formats = list(dict.fromkeys([self.base_format, self.new_format]))
        return _place(self.kind, formats, self.mode)

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

    kind: Place
    format: str
    mode: Mode | None = None  # of a cost
    metric: str
    unit: str
    layers: list[Drift]
    outside: list[Drift]
    zones: list[Drift]

    @property
    def place(self) -> str:
        """As of a comparison."""
        return _place(self.kind, [self.format], self.mode)

    @property
    def measured(self) -> list[Drift]:
        """Layers and sites outside them that have a number in the first and the last report."""
        return [row for row in (*self.layers, *self.outside) if not math.isnan(row.change)]


def _place(kind: Place, formats: list[str], mode: Mode | None) -> str:
    if mode is None:
        return f"{kind} sites, {' to '.join(formats)}"
    return f"layers, {' to '.join(f'{spec} {mode_title(mode, spec)}' for spec in formats)}"


class ComparisonDocument(Fact):
    """What `srdd compare --json` prints."""

    schema_version: Literal[1] = 1
    document: Literal["srdd-comparison"] = "srdd-comparison"
    reports: list[str]  # as the user named them, the base first
    models: list[str]
    notes: list[str]
    beginning: Beginning | None = None  # None: nothing differs, or more than two reports
    whole: list[WholeChange] = Field(default_factory=list)
    comparisons: list[Comparison] = Field(default_factory=list)
    drift: list[DriftTable] = Field(default_factory=list)
