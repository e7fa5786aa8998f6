"""The slim baseline: what the gate needs to know of a report, in a text small enough to live beside the code.

A table is the sites of one name in all layers, its columns are metrics under one format, a line of the file each.
Values are whole numbers of small steps (`STEPS_IN_1`), rounded to the worse side, so that the same report passes any
limit; a column begins with its least, the others are how much more each is. `each` packs every value with each unit of
text left out (packed.py), which pairs a change. Marks tell which tensors changed: sums of x, and for weights a digest
of all counts, of the maxima and of the scales.

Not here: how it is made and compared (srdd.analysis.comparison.slim and recalled).

Worked number: 18.704 and 19.09 dB are the column [1870, 0, 39]; relative errors of 0.3076 and 0.2278 [2278, 798, 0].
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from srdd.core.layers import parse_layers
from srdd.core.metrics import BY_NAME
from srdd.core.modes import Mode
from srdd.documents.costs import CostSettings
from srdd.documents.opening import Opened, open_document
from srdd.documents.packed import split, unpack
from srdd.documents.parts import Document, Kind, Model, Part
from srdd.documents.report import Report
from srdd.documents.schema import Settings
from srdd.errors import ReportError

SCHEMA_VERSION = 1
LAYER = "{layer}"  # stands in a name for the layer's number
# Units of text; more are taken together. Fewer yet are tried in turn where the text is too large.
MOST_UNITS = (16, 12, 8)
_LARGEST = 100_000  # bytes ...
_MEASUREMENTS = 1_200  # ... of so many sites and formats
# The metrics that are kept, and how many steps of their values make 1; of the relative error each format has its own,
# so that it has four digits. Others that follow from these are known too.
STEPS_IN_1: dict[str, int] = {
    "block_sqnr_db": 100,
    "sqnr_db": 100,
    "relative_error": 10_000,
    "deadzone_ratio": 10_000,
    "saturation_ratio": 10_000,
    "zero_ratio": 10_000,
    "crest": 10,
}
PAIRED = tuple(name for name in STEPS_IN_1 if name not in ("sqnr_db", "crest"))  # whose scatter over units is kept
_SHARES = ("deadzone_ratio", "saturation_ratio", "zero_ratio")
Steps = int | Literal["exact"] | None  # None: undefined


class Named(Part):
    """Sites of one kind: of one name in some layers, or one of them outside, or in a layer, under a name of its own."""

    kind: Kind
    name: str  # with LAYER where `layers` is given
    layers: str | None = None  # "0-29"
    layer: int | None = None  # of a single site under its own name

    @property
    def places(self) -> list[tuple[int | None, str]]:
        """Layer and name of every row."""
        if self.layers is None:
            return [(self.layer, self.name)]
        return [(layer, self.name.replace(LAYER, str(layer))) for layer in parse_layers(self.layers)]


class Columns(Part):
    """Values of metrics under one format, and how they scatter over units of text."""

    values: dict[str, list[Steps]]  # the least, then how much more each place has; the least alone where all have it
    each: dict[str, str] = Field(default_factory=dict)  # packed words
    rms: list[float | None] | None = None  # of weights, where it is not that of the mark: other values were left out
    _words: dict[str, list[str]] = PrivateAttr(default_factory=dict)

    def steps(self, metric: str, row: int) -> Steps:
        """A value as it is written."""
        column = self.values.get(metric, _UNKNOWN)
        least = column[0]
        if len(column) == 1:
            return least
        more = column[row + 1]
        return least + more if isinstance(least, int) and isinstance(more, int) else more

    def words(self, metric: str, count: int) -> list[str]:
        """The packed words of a metric, one for each of so many places; none where its scatter was not kept."""
        if metric not in self._words:
            self._words[metric] = split(self.each[metric], count) if metric in self.each else []
        return self._words[metric]

    def check(self, count: int) -> None:
        """Raises ValueError unless these are columns of so many places."""
        for metric, column in self.values.items():
            if metric not in STEPS_IN_1:
                raise ValueError(f"unknown metric {metric!r}")
            if len(column) not in (1, count + 1) or (len(column) > 1 and not isinstance(column[0], int)):
                raise ValueError(f"{len(column) - 1} values of {metric} for {count} sites")
            rows = [row for place in range(count) if isinstance(row := self.steps(metric, place), int)]
            lowest, highest = (min(rows), max(rows)) if rows else (0, 0)
            if BY_NAME[metric].unit == "%" and (lowest < 0 or (metric in _SHARES and highest > STEPS_IN_1[metric])):
                raise ValueError(f"{metric} is {lowest} to {highest} steps, which no share is")
        if self.rms is not None and len(self.rms) != count:
            raise ValueError(f"{len(self.rms)} rms for {count} sites")
        for metric, words in self.each.items():
            if metric not in self.values:
                raise ValueError(f"the scatter of {metric} without its values")
            for word in split(words, count):
                if word:
                    unpack(word, 0.0)


_UNKNOWN: list[Steps] = [None]


class Table(Named):
    """The columns of sites, or of whole layers, by format."""

    by: Literal["layer", "module"] = "module"
    formats: dict[str, Columns]

    @model_validator(mode="after")
    def _complete(self) -> Table:
        for columns in self.formats.values():
            columns.check(len(self.places))
        return self


class Marks(Named):
    """What tells each tensor from any other: sums of x, and of weights a digest, the noisiest block and the rms."""

    format: str  # of the digest
    sum_x: list[float]
    sum_abs_x: list[float]
    sum_x4: list[float] | None = None  # of activations
    digests: str | None = None  # of weights, with spaces between
    worst: list[int | None] | None = None
    order: list[float | None] | None = None  # order sums of weights
    rms: list[float | None] | None = None
    dead: dict[str, tuple[int, str]] = Field(default_factory=dict)  # by place: how many rows and columns, in words

    @model_validator(mode="after")
    def _complete(self) -> Marks:
        count = len(self.places)
        digests = None if self.digests is None else self.digests.split(" ")
        for column in (self.sum_x, self.sum_abs_x, self.sum_x4, digests, self.worst, self.order, self.rms):
            if column is not None and len(column) != count:
                raise ValueError(f"{len(column)} marks for {count} sites")
        if any(not place.isdecimal() or int(place) >= count for place in self.dead):
            raise ValueError(f"dead places {', '.join(self.dead)} of {count} sites")
        return self


class WholeRow(Part):
    """The whole model quantized: value, then one number for each unit of text whose mean it is."""

    format: str
    mode: Mode
    no_effect: bool = False
    kl: list[float] = Field(min_length=1)
    loss: list[float] = Field(min_length=1)
    top1: list[float] = Field(min_length=1)


class LayerRows(Part):
    """A cost of every layer under one format in one mode."""

    format: str
    mode: Mode
    cost: Literal["predicted_kl", "measured_kl"]
    layers: str
    values: list[float]
    each: str  # packed words

    @model_validator(mode="after")
    def _complete(self) -> LayerRows:
        if len(parse_layers(self.layers)) != len(self.values):
            raise ValueError(f"{len(self.values)} costs of layers {self.layers}")
        for word in split(self.each, len(self.values)):
            if word:
                unpack(word, 0.0)
        return self


class SlimCosts(Part):
    """The costs that a gate holds."""

    settings: CostSettings
    whole: list[WholeRow] = Field(default_factory=list)
    layers: list[LayerRows] = Field(default_factory=list)


class Baseline(Document):
    """The whole document."""

    CALLED, COMMAND = "slim baseline", "check"

    schema_version: Literal[1] = 1
    document: Literal["srdd-baseline"] = "srdd-baseline"
    srdd: str  # the version that made it
    report_sha256: str | None = None
    model: Model
    settings: Settings
    error_steps: dict[str, int]  # by format, how many steps of the relative error make 1
    uncovered: list[str] = Field(default_factory=list)  # experts that got no tokens
    regrouped: bool = False  # units of text were taken together; the documents in `settings` say how
    tables: list[Table]
    marks: list[Marks]
    costs: SlimCosts | None = None

    @classmethod
    def from_tree(cls, tree: dict[str, Any], name: str) -> Self:
        """From what a file holds. Raises ReportError, also for a future version."""
        version = tree.get("schema_version")
        if tree.get("document") == "srdd-baseline" and version != SCHEMA_VERSION:
            known = isinstance(version, int) and not isinstance(version, bool) and version > SCHEMA_VERSION
            raise ReportError(
                f"{name} is a slim baseline of schema_version {version!r}, this srdd reads {SCHEMA_VERSION}; "
                + ("install a newer srdd" if known else "write it anew")
            )
        return super().from_tree(tree, name)


def dumps(baseline: Baseline) -> str:
    """JSON with a line for each table and format, so that two baselines differ in the lines of what changed."""
    tree = baseline.model_dump(mode="json", exclude_defaults=True)
    head = {"schema_version": SCHEMA_VERSION, "document": "srdd-baseline"}
    return _lines({**head, **{key: tree[key] for key in tree if key not in head}}, "") + "\n"


def is_small(baseline: Baseline) -> bool:
    """Whether its text has at most 100 kB for each 1,200 sites and formats."""
    measurements = sum(len(table.places) * len(table.formats) for table in baseline.tables if table.by == "module")
    return len(dumps(baseline).encode()) <= _LARGEST * max(1.0, measurements / _MEASUREMENTS)


def open_baseline(path: str | Path) -> Opened[Any]:
    """A report or a slim baseline. Raises ReportError in one line, for another kind of document too."""
    opened = open_document(path)
    if not isinstance(opened.document, Report | Baseline):
        raise ReportError(f"{path} is a {opened.document.CALLED}; expected a report, or a slim baseline of one")
    return opened


def _lines(tree: dict[str, Any], indent: str) -> str:
    rows = []
    for key, value in tree.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n" + ",\n".join(f"{indent}  {_row(row)}" for row in value) + f"\n{indent} ]"
        elif key == "costs":
            text = _lines(value, indent + " ")
        else:
            text = _json(value)
        rows.append(f"{indent} {_json(key)}: {text}")
    return "{\n" + ",\n".join(rows) + f"\n{indent}" + "}"


def _row(row: dict[str, Any]) -> str:
    if not isinstance(row.get("formats"), dict):
        return _json(row)
    head = _json({key: value for key, value in row.items() if key != "formats"})
    formats = ",\n".join(f"   {_json(spec)}:{_json(columns)}" for spec, columns in row["formats"].items())
    return f'{head[:-1]},"formats":{{\n{formats}}}}}'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
