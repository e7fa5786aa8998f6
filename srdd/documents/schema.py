"""The parts of the report and what documents share, as Pydantic models.

The tallies are the truth; metrics and standard errors stand beside them for readers. Tallies of activations are kept
per calibration sequence, so that halves of a scan merge into exactly the whole, errors included.

Not here: the whole report (report.py), reading it (opening.py), and the rows derived from sites (summary.py).

Worked number: a site with sum_x2 = 100 and sum_e2 = 1 is stored with metrics.sqnr_db = 20.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, computed_field, model_validator

from srdd.core.blocks import Blocks, all_added, worst_of
from srdd.core.metrics import BY_NAME, METRICS, Metric, any_metric
from srdd.core.tally import FIELDS, Tally
from srdd.core.uncertainty import leave_one_out, standard_error, tallies_by_unit, total_blocks, total_vector
from srdd.documents.parts import KINDS, Calibration, Estimate, Kind, Note, Part
from srdd.errors import ReportError

BlockCounts = Annotated[list[list[float]], Field(min_length=3, max_length=3)]  # SQNR, scales, worst
_NOW = {"swap_kl": "measured_kl"}  # metrics that older documents call otherwise


class Settings(Part):
    """All that decides the numbers."""

    formats: list[str]  # canonical specs, rule included
    kinds: list[Kind]
    selection: str | None = None  # of layers or modules, as the user gave it
    calibration: Calibration | None = None
    seed: int = 0
    device: str
    dtype: str
    backend: str
    backend_reason: str
    thresholds: dict[str, float]
    versions: dict[str, str]


class Skipped(Part):
    """A parameter that was not measured, and why."""

    name: str
    parameters: int
    reason: str


class Coverage(Part):
    """What share of the model the weight sites cover. Every parameter is either measured or listed."""

    parameters: int
    measured: int
    skipped: list[Skipped] = Field(default_factory=list)
    uncovered: list[str] = Field(default_factory=list)  # experts that got no tokens

    @property
    def share(self) -> float:
        return self.measured / self.parameters if self.parameters else 0.0


class Measurement(Part):
    """One site under one format. Tallies are lists in the order of `Report.tally_fields`; version 0 has none.

    Metrics, errors and flags are written for readers and computed anew, when asked for, after loading.
    """

    whole: list[float] | None = Field(default=None, alias="tally", exclude=True)  # of weights
    sequences: list[list[float]] | None = None  # activations only: one tally per calibration sequence
    # Counts of blocks: SQNR, scales, the worst one; each as srdd.core.blocks.Blocks holds it. Older reports have none.
    whole_blocks: BlockCounts | None = Field(default=None, alias="blocks", exclude=True)
    sequence_blocks: list[BlockCounts] | None = None
    # The unit of uncertainty of every sequence, which the report knows; None: each is its own
    unit_of: tuple[int, ...] | None = Field(default=None, exclude=True)
    # What came without sums: the metrics of version 0
    given: dict[str, Estimate] = Field(default_factory=dict, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _forget_derived(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        kept = {key: value for key, value in data.items() if key not in ("metrics", "standard_errors", "flags")}
        if data.get("sequences"):
            kept["tally"] = kept["blocks"] = None  # follow from them
        elif data.get("tally") is None and isinstance(data.get("metrics"), dict):
            errors = data.get("standard_errors") or {}
            kept["given"] = {
                _NOW.get(name, name): {"value": value, "error": errors.get(name)}
                for name, value in data["metrics"].items()
                if value is not None
            }
        return kept

    @model_validator(mode="after")
    def _complete(self) -> Measurement:
        for vector in [self.whole] if self.whole is not None else self.sequences or ():
            if len(vector) != len(FIELDS):
                raise ValueError(f"expected {len(FIELDS)} sums, found {len(vector)}")
        if self.sequence_blocks is not None and len(self.sequence_blocks) != len(self.sequences or ()):
            raise ValueError(f"blocks of {len(self.sequence_blocks)} sequences, sums of {len(self.sequences or ())}")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def tally(self) -> list[float] | None:
        """The sums over all sequences; None in version 0."""
        return total_vector(self.sequences) if self.sequences else self.whole

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def blocks(self) -> BlockCounts | None:
        """The counts over all sequences; None where nobody counted."""
        if self.sequence_blocks is None:
            return self.whole_blocks
        sqnr, scales, worst = ([counts[row] for counts in self.sequence_blocks] for row in range(3))
        return [[*all_added(sqnr)], [*all_added(scales)], [*worst_of(worst)]]

    @cached_property
    def _sums(self) -> Tally:
        return self.merged()

    @cached_property
    def _without_each(self) -> list[Tally]:
        return leave_one_out(tallies_by_unit(self.per_sequence(), self.unit_of))

    def group(self, unit_of: tuple[int, ...] | None) -> None:
        """Let sequences that belong to one unit stand or fall together. Some experts get tokens in some sequences only,
        and then it is not known in which: each is its own unit.
        """
        self.unit_of = unit_of if unit_of is not None and len(unit_of) == len(self.sequences or ()) else None
        self.__dict__.pop("_without_each", None)

    @property
    def units(self) -> int:
        """How many units of text the standard errors rest on, with one degree of freedom less; 0 of weights."""
        return len(self.sequences or ()) if self.unit_of is None else len(set(self.unit_of))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def metrics(self) -> dict[str, float | None]:
        """Every metric; None where it is not finite, for the reason that `flags` gives."""
        names = self.given if self.tally is None else BY_NAME
        return {name: _finite(self.value(name)) for name in names}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def standard_errors(self) -> dict[str, float | None]:
        """Jackknife errors over units of text; empty where there are none."""
        if self.sequences:  # else there are those of what was given
            return {metric.name: _finite(self.error(metric.name)) for metric in METRICS}
        return {name: given.error for name, given in self.given.items() if given.error is not None}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def flags(self) -> dict[str, str]:
        """Why a metric is None: "exact" (infinite) or "undefined"."""
        numbers = {name: self.value(name) for name in self.metrics}
        return {
            name: "exact" if number == math.inf else "undefined"
            for name, number in numbers.items()
            if not math.isfinite(number)
        }

    def merged(self) -> Tally:
        """The tally as an object. Raises ReportError for a version-0 measurement, which has none."""
        if self.tally is None:
            raise ReportError("this report holds metrics without sums; scan again to merge or recompute")
        return Tally.from_vector(self.tally, Blocks(*map(tuple, self.blocks or ())))

    def per_sequence(self) -> list[Tally]:
        vectors = self.sequences or ()
        counts = self._counted or [Blocks()] * len(vectors)
        return [Tally.from_vector(v, counted) for v, counted in zip(vectors, counts, strict=True)]

    def value(self, metric: str) -> float:
        """A metric or cost as a number: nan where undefined or not known; +inf where exact."""
        known = any_metric(metric)
        if metric in self.given:
            return self.given[metric].value
        return math.nan if self.tally is None else known.of(self._sums)

    def error(self, metric: str) -> float:
        """Its standard error over units of text, of a metric by the jackknife; nan where there is none."""
        known = any_metric(metric)
        if metric in self.given:
            error = self.given[metric].error
            return math.nan if error is None else error
        return standard_error(known, self._without_each)

    def without_each(self, metric: Metric) -> list[float]:
        """A metric with the first, the second, ... unit left out; empty with fewer than two, of maxima and `given`."""
        if metric.of_maximum or metric.name in self.given:
            return []
        return [metric.of(tally) for tally in self._without_each]

    def sequence_count(self, metric: Metric) -> int:
        """The sequences behind a metric; 0 for `given` and for weights."""
        return 0 if metric.name in self.given else len(self.sequences or ())

    def resampled(self, metric: Metric, draw: Sequence[int]) -> float:
        """A metric over the sequences drawn, each as often as it was: indices below `sequence_count`."""
        sequences = self.sequences or []
        counted = self._counted if metric.of_blocks else []
        blocks = total_blocks([counted[index] for index in draw if counted])
        return metric.of(Tally.from_vector(total_vector([sequences[index] for index in draw]), blocks))

    @cached_property
    def _counted(self) -> list[Blocks]:
        return [Blocks(*map(tuple, counts)) for counts in self.sequence_blocks or ()]


class Site(Part):
    """A tensor of the model that was measured: a weight, the input of Linears that share it, a layer's output."""

    kind: Kind
    name: str
    role: str
    index: int = 0  # place in the model, in module order
    layer: int | None = None
    group: str | None = None
    members: list[str] = Field(default_factory=list)  # modules that read the same input
    shape: list[int] = Field(default_factory=list)  # of a weight; of an activation its last axis
    beside_text: bool = False  # of a tower, or of a head that predicts further tokens; outside the layers
    transposed: bool = False  # a weight stored [in, out]
    # Of a weight: changes when rows or columns change places, which no other sum does (srdd.runs.scans.weights)
    order_sum: float | None = None
    notes: list[Note] = Field(default_factory=list)
    formats: dict[str, Measurement]

    def order(self) -> tuple[int, float, int, str]:
        """Where the site stands in a report: by kind, then layer (those without last), then place in the model."""
        return KINDS.index(self.kind), math.inf if self.layer is None else self.layer, self.index, self.name


class Layer(Part):
    """One decoder layer: the tallies of its sites of one kind, merged."""

    kind: Kind
    layer: int
    formats: dict[str, Measurement]


class SummaryRow(Part):
    """One metric over the layers of one kind under one format."""

    kind: Kind
    format: str
    metric: str
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    gaussian: float | None
    threshold: float | None
    over_threshold: list[int]
    unusual: list[int]
    zero_by_construction: bool = False


def measurement(tally: Tally, sequences: list[Tally] | None = None) -> Measurement:
    """A measurement from its sums."""
    if sequences:
        counted = [as_lists(s.blocks) for s in sequences] if any(s.blocks != Blocks() for s in sequences) else None
        return Measurement(sequences=[s.vector() for s in sequences], sequence_blocks=counted)
    return Measurement(tally=tally.vector(), blocks=None if tally.blocks == Blocks() else as_lists(tally.blocks))


def as_lists(blocks: Blocks) -> BlockCounts:
    """Counts as a report holds them."""
    return [list(blocks.sqnr), list(blocks.scales), list(blocks.worst)]


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
