"""The report: one versioned JSON document, the waist between measuring (needs torch) and everything else (does not).

It holds sites with their error, costs, or both. A report without sites has no kinds in its settings, and the formats
of its costs. Whatever follows from the tallies is computed anew after loading and never trusted: editing sqnr_db in the
file changes nothing, editing sum_e2 does.

Not here: the parts of it (schema.py) and the rows derived from them (summary.py).
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, computed_field, model_validator

from srdd.core.files import write_text
from srdd.core.tally import FIELDS
from srdd.documents import contradictions, impact_v1, report_v0
from srdd.documents.adapter import AdapterPart
from srdd.documents.costs import Costs
from srdd.documents.opening import open_document
from srdd.documents.parts import Document, Model, Note
from srdd.documents.schema import Coverage, Layer, Settings, Site, SummaryRow
from srdd.documents.summary import layer_rows, summary_rows
from srdd.errors import ReportError

# 0: the per-layer JSON of the first SRDD scripts: metrics without tallies (srdd.documents.report_v0)
# 1: the first document of this package, called srdd-scan; costs stood in a document of their own, srdd-impact
# 2: one document, srdd-report, with `costs`
SCHEMA_VERSION = 2
_NONFINITE = FIELDS.index("nonfinite")


R = TypeVar("R", bound="Report")


class Report(Document):
    """The whole document. `layers` and `summary` follow from `sites`; only `provenance` may differ between two runs."""

    CALLED, COMMAND = "report", "scan"

    schema_version: Literal[2] = 2
    document: Literal["srdd-report"] = "srdd-report"
    tally_fields: list[str] = Field(default_factory=lambda: list(FIELDS))
    model: Model
    settings: Settings
    coverage: Coverage
    sites: list[Site]
    costs: Costs | None = None  # None: not measured
    adapter: AdapterPart | None = None  # None: of a model without, or of one that PEFT had wrapped
    warnings: list[Note] = Field(default_factory=list)
    provenance: dict[str, str | float | None] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _forget_derived(cls, data: Any) -> Any:
        return {k: v for k, v in data.items() if k not in ("layers", "summary")} if isinstance(data, dict) else data

    def model_post_init(self, context: Any) -> None:
        """Tell every measurement which of its sequences are of one document."""
        unit_of = self.settings.calibration.unit_of if self.settings.calibration else None
        for site in self.sites:
            for measured in site.formats.values():
                measured.group(unit_of)

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def layers(self) -> list[Layer]:
        """One row per decoder layer and kind."""
        return layer_rows(self.sites)

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def summary(self) -> list[SummaryRow]:
        """One row per metric, kind and format, over the layers."""
        return summary_rows(self.layers, self.settings.thresholds)

    @property
    def has_errors(self) -> bool:
        """True when a site holds NaN or infinite values: its other numbers leave their blocks out."""
        tallies = (measured.tally for site in self.sites for measured in site.formats.values())
        return any(tally is not None and tally[_NONFINITE] > 0 for tally in tallies)

    @property
    def is_version_0(self) -> bool:
        """True for what the first SRDD scripts wrote: metrics without sums and errors, calibration unknown."""
        return self.settings.backend == report_v0.BACKEND

    @property
    def has_sums(self) -> bool:
        """False when numbers of sites came without sums, as in version 0."""
        return all(measured.tally is not None for site in self.sites for measured in site.formats.values())

    def __repr__(self) -> str:
        """One line: a notebook shows this, and all sums of a small model are a megabyte."""
        kinds = ", ".join(f"{sum(s.kind == kind for s in self.sites)} {kind}" for kind in self.settings.kinds)
        formats = ", ".join(self.settings.formats)
        parts = [f"sites: {kinds or 'none'}", f"costs: {self._costs_in_words()}"]
        see = ".summary, .layers, .sites, .costs, .warnings"
        return f"<Report of {self.model.id}: {formats}; {'; '.join(parts)}; see {see}>"

    __str__ = __repr__

    def _costs_in_words(self) -> str:
        if self.costs is None:
            return "none"
        settings = self.costs.settings
        other = [spec for spec in settings.formats if spec not in self.settings.formats]
        of = f" of {', '.join(settings.formats)}" if other else ""
        return f"{', '.join(settings.how) or 'whole model'}{of} ({', '.join(settings.modes)})"

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report of any known version. Raises ReportError in one line."""
        return open_document(path, cls).document

    @classmethod
    def from_tree(cls, tree: dict[str, Any], name: str) -> Self:
        """A report of any known version from what a file holds. Raises ReportError, ValidationError.

        Numbers that contradict each other are refused too.
        """
        report = cls._of_any_version(tree, name)
        contradictions.refuse(report.sites, report.costs, name)
        return report

    @classmethod
    def _of_any_version(cls, tree: dict[str, Any], name: str) -> Self:
        made_by = tree.get("document")
        if made_by == "srdd-impact":
            return cls.model_validate(impact_v1.upgrade(tree, name))
        if made_by in ("srdd-probe", "srdd-experiment"):
            what = made_by.removeprefix("srdd-")
            raise ReportError(f"{name} is the document of a {what}: it has no layers; expected a report of `srdd scan`")
        if made_by == "srdd-baseline":
            raise ReportError(
                f"{name} is a slim baseline: it holds what a check compares with, and nothing to show; give the report"
            )
        version = tree.get("schema_version")
        if version is None and isinstance(tree.get("report"), dict):
            return cls(**report_v0.upgrade(tree, name))
        if version is None:
            raise ReportError(f"{name} is no srdd report: it has no schema_version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ReportError(f"{name}: schema_version {version!r} is not known; expected 1 to {SCHEMA_VERSION}")
        if version > SCHEMA_VERSION:
            raise ReportError(
                f"{name} has schema_version {version}, this srdd reads up to {SCHEMA_VERSION}; install a newer srdd"
            )
        if version == 1:
            tree = {**tree, "schema_version": SCHEMA_VERSION, "document": "srdd-report"}
        report = cls.model_validate(tree)
        if report.tally_fields != list(FIELDS):
            raise ReportError(f"{name}: its tally fields differ from those of this version; scan again")
        return in_order(report)

    def save(self, path: str | Path) -> None:
        """Write the report whole or not at all. Raises WriteError."""
        write_text(Path(path), dumps(self))


def dumps(report: Report) -> str:
    """JSON with sorted keys, one line per row of a list, so that two reports differ in the lines that differ."""
    return _lines(report.model_dump(mode="json"), 1) + "\n"


def _lines(document: dict[str, Any], depth: int) -> str:
    """A line per key, per row of a list of objects, and per key of an object that holds such lists (costs)."""
    lines = []
    for key in sorted(document):
        value, indent = document[key], " " * depth
        if isinstance(value, dict) and any(_is_rows(part) for part in value.values()):
            text = _lines(value, depth + 1)
        elif _is_rows(value):
            text = "[\n" + ",\n".join(f"{indent} {_json(row)}" for row in value) + f"\n{indent}]"
        else:
            text = _json(value)
        lines.append(f"{indent}{_json(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n" + " " * (depth - 1) + "}"


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _json(value: Any) -> str:
    return json.dumps(_short(value), sort_keys=True, ensure_ascii=False, allow_nan=False)


def _short(value: Any) -> Any:
    """Counts are float64 sums; 12.0 is written 12, which loads as the same number."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [_short(item) for item in value]
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return value


def json_schema() -> dict[str, Any]:
    """The JSON Schema of what `save` writes, derived numbers included."""
    return Report.model_json_schema(mode="serialization")


def in_order(report: R) -> R:
    """The report with its sites in order. What follows from sites is computed when it is first asked for."""
    return type(report).model_construct(**{**dict(report), "sites": sorted(report.sites, key=Site.order)})
