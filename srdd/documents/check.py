"""What the gate decides, as a document: findings, cases and the verdict that exporters print.

Not here: how they are decided (srdd.analysis.comparison.gate).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from srdd.core.modes import Mode, mode_title
from srdd.documents.comparison import Beginning, Fact
from srdd.documents.parts import Place


class Finding(Fact):
    """One layer, or one site outside the layers, against one limit."""

    name: str  # "layer 7" or a module's name
    base: float | None  # None: a floor, which has no baseline
    new: float
    bound: float
    passed: bool  # within its bound, or undecided where that passes
    undecided: bool = False  # beyond its bound, but by less than chance may bring
    standard_error: float | None = None  # of the change, where it lies beyond the bound and has one
    needed: int | None = None  # documents that would decide, about; None: no number of them, or nothing to decide
    implausible: bool = False


class Case(Fact):
    """One limit or floor over one kind of site and format: the unit of a JUnit test case."""

    kind: Place
    format: str
    mode: Mode | None = None  # of a cost
    limit: str
    metric: str
    unit: str
    checked: int
    worst: Finding  # the one closest to its bound, or furthest beyond
    failures: list[Finding]  # furthest beyond first
    undecided: list[Finding] = Field(default_factory=list)
    implausible: list[Finding] = Field(default_factory=list)

    @property
    def shown_format(self) -> str:
        """ "mxfp4:even", of a cost "mxfp4:even W4A4"."""
        return self.format if self.mode is None else f"{self.format} {mode_title(self.mode, self.format)}"

    @property
    def passed(self) -> bool:
        return not self.failures


class CheckResult(Fact):
    """The whole check."""

    schema_version: Literal[1] = 1
    document: Literal["srdd-check"] = "srdd-check"
    passed: bool
    baseline: str | None
    new: str
    defaults: bool  # no limit was given, so the built-in ones held
    cases: list[Case]
    problems: list[str]  # failures that no limit names: NaN or infinite values
    first: tuple[int, int] | None = None  # which case, and which of its failures, to name first
    beginning: Beginning | None = None  # where the reports begin to differ; None: nowhere, or no baseline
    notes: list[str]
