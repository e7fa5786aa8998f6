"""A scan report, with the documents beside it, as one file: a page, a picture, Markdown, a table.

A module that declares REPORT_SUFFIXES, USES and `render(bundle, view) -> str | bytes` is an exporter: it is found by
the suffix of the file that is asked for, and USES names the options that mean something to it; the others are refused.
A new output is a new file with these three, and nothing else changes.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol

from srdd.errors import SettingError
from srdd.exporters.registry import declared

if TYPE_CHECKING:
    from srdd.analysis.bundle import Bundle, View

__all__ = ["ReportExporter", "report_exporter", "report_exporters"]


class ReportExporter(Protocol):
    """What a module of this folder offers."""

    REPORT_SUFFIXES: tuple[str, ...]
    USES: frozenset[str]

    def render(self, bundle: Bundle, view: View) -> str | bytes: ...


def report_exporters() -> dict[str, ReportExporter]:
    """Every exporter of reports by suffix."""
    modules = declared(__name__, __path__, "REPORT_SUFFIXES")
    return {suffix: exporter for suffixes, exporter in modules for suffix in suffixes}


def report_exporter(out: str | PurePath) -> ReportExporter:
    """The exporter for a file's name. Raises SettingError that lists the known suffixes."""
    known, suffix = report_exporters(), PurePath(out).suffix
    if suffix.lower() not in known:
        shown = repr(suffix) if suffix else "a name without suffix"
        raise SettingError("out", out, f"cannot tell the kind of output from {shown}; use {', '.join(known)}")
    return known[suffix.lower()]
