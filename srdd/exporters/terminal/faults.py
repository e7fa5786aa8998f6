"""Faults that were found, what the study's own criterion says, and the layers beside them.

Not here: the verdict (srdd.analysis.faults).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.core.layers import span
from srdd.core.metrics import significant

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.documents.fault import Criterion, Faults, Finding

_HEADINGS = ("layer", "gain", "break %", "two runs differ", "kurtosis in", "out", "zeros %", "ties %", "other device")


def show(out: Console, document: Faults) -> None:
    """The verdict, findings, the criterion, and a line for every layer that stands out."""
    for warning in document.warnings:
        out.print(f"[yellow]warning:[/yellow] {escape(warning)}")
    out.print(verdict(document), markup=False)
    if document.findings:
        table = Table(title="Faults", title_justify="left")
        for heading in ("kind", "layer", "module", "at", "size", "sure", "what shows it"):
            table.add_column(heading, justify="right" if heading in ("layer", "size", "sure") else "left")
        for finding in document.findings:
            table.add_row(*_cells(finding))
        out.print(table)
    _layers(out, document)
    if document.criterion is not None:
        out.print(study(document.criterion, bool(document.findings)), markup=False)


def verdict(document: Faults) -> str:
    """One line: how many faults, the first of them."""
    layers = len({row.layer for row in document.modules})
    modules = sum(bool(row.module) for row in document.modules)
    looked = f"{layers} layers and {modules} modules of {document.model.id}, each run alone on its own input"
    if not document.findings:
        return f"No fault found in {looked}."
    first = document.findings[0]
    where = f"layer {first.layer}{f' {first.module}' if first.module else ''}"
    more = f", and {len(document.findings) - 1} more" if len(document.findings) > 1 else ""
    size = "" if first.size is None else f" {significant(first.size)}"
    return f"FAULT: {first.kind}{size} at the {first.at} of {where}{more}; of {looked}."


def study(criterion: Criterion, found: bool) -> str:
    """What the criterion of the original study says of the same layers."""
    flagged = f"layers {span(criterion.flagged)}" if criterion.flagged else "no layer"
    missed = f"; it would have missed the fault in layers {span(criterion.missed)}" if criterion.missed else ""
    false = "" if found or not criterion.flagged else ", none of which is broken by what was found here"
    return (
        f"The study's criterion (ratio of gain or kurtosis, {criterion.format} to clean, below {criterion.limit:g}) "
        f"flags {flagged}{false}{missed}."
    )


def _cells(f: Finding) -> list[str]:
    size = "-" if f.size is None else significant(f.size)
    return [
        f.kind,
        str(f.layer),
        escape(f.module) or "-",
        f.at,
        size,
        f"{100 * f.confidence:.0f} %",
        escape(f.evidence),
    ]


def _layers(out: Console, document: Faults) -> None:
    table = Table(title="Layers, run alone", title_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for row in document.modules:
        if row.module:
            continue
        gain = row.gains[len(row.gains) // 2] if row.gains else None
        broken = max(abs(g / gain - 1) for g in row.gains) if gain else None
        table.add_row(
            str(row.layer),
            "-" if gain is None else significant(gain),
            "-" if broken is None else f"{100 * broken:.2g}",
            significant(row.instability) if row.instability else "0",
            significant(row.kurtosis_in),
            significant(row.kurtosis_out),
            f"{100 * row.zeros:.2g}",
            f"{100 * row.at_max:.2g}",
            "-" if row.agreement is None else significant(row.agreement),
        )
    out.print(table)
