"""One file per output: `render(document, ...) -> str | bytes`. No arithmetic, no disk.

Exporters of scan reports are found by looking through this folder: a module that declares REPORT_SUFFIXES renders
`(Bundle, View)` to a file with one of those suffixes, and USES names the options that mean something to it.
Adding one is adding its file. Worked number: ".html" is found in report_html.py, ".pdf" in report_picture.py.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Protocol

from srdd.errors import OptionError

if TYPE_CHECKING:
    from srdd.analysis.bundle import Bundle, View


class ReportExporter(Protocol):
    """What a module of this folder offers to render reports."""

    REPORT_SUFFIXES: tuple[str, ...]
    USES: frozenset[str]

    def render(self, bundle: Bundle, view: View) -> str | bytes: ...


def report_exporters() -> dict[str, ReportExporter]:
    """Every exporter of reports by suffix."""
    found: dict[str, ReportExporter] = {}
    for module in pkgutil.iter_modules(__path__):
        exporter = importlib.import_module(f"{__name__}.{module.name}")
        for suffix in getattr(exporter, "REPORT_SUFFIXES", ()):
            found[suffix] = exporter
    return found


def report_exporter(suffix: str) -> ReportExporter:
    """The exporter for a file name's suffix. Raises OptionError that lists the known ones."""
    known = report_exporters()
    if suffix.lower() not in known:
        found = repr(suffix) if suffix else "a name without suffix"
        raise OptionError(f"cannot tell the kind of output from {found}; use {', '.join(known)}")
    return known[suffix.lower()]
