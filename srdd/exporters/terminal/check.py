"""The gate's verdict in a line, each regression in a sentence, and a table of every limit with what came closest.

Not here: the verdict itself (srdd.analysis.comparison.gate) and its sentences (srdd.exporters.check.text).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from srdd.exporters.check.text import closest_text, failures, headline, implausible_text, limit_text, undecided_text

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.documents.check import CheckResult

_SHOWN = 10  # failures a case; all of them are in --json and --junit


def show(out: Console, verdict: CheckResult) -> None:
    """The verdict in one line, each regression in a sentence, and what a reader must know besides."""
    first, colon, rest = headline(verdict).partition(" ")
    colour = "green" if verdict.passed else "red"
    out.print(f"[bold {colour}]{first}[/bold {colour}]{colon}{escape(rest)}")
    sentences = [*verdict.problems, *failures(verdict.cases, _SHOWN)]
    for line in sentences if len(sentences) > 1 else []:
        out.print(f"[red]FAILED[/red] {escape(line)}")
    if verdict.beginning is not None and not verdict.passed:
        out.print(escape(verdict.beginning.text))
    for case in verdict.cases:
        for finding in case.implausible[:_SHOWN]:
            out.print(f"[yellow]flagged:[/yellow] {escape(implausible_text(case, finding))}")
    open_ = [undecided_text(case, finding) for case in verdict.cases for finding in case.undecided]
    for line in open_[:_SHOWN]:
        out.print(f"[yellow]warning:[/yellow] {escape(line)}")
    if len(open_) > _SHOWN:
        out.print(f"[yellow]warning:[/yellow] and {len(open_) - _SHOWN} more undecided")
    for note in verdict.notes:
        out.print(f"note: {escape(note)}")


def show_table(out: Console, verdict: CheckResult) -> None:
    """Every limit with what came closest."""
    from rich.table import Table  # slow to import, and few ask for it

    against = f" against {verdict.baseline}" if verdict.baseline else ""
    title = f"{verdict.new}{against}{'  (built-in limits)' if verdict.defaults else ''}"
    table = Table(title=escape(title), title_justify="left")
    for heading in ("", "sites", "format:rule", "limit", "checked", "failed", "closest"):
        table.add_column(heading, justify="right" if heading in ("checked", "failed") else "left")
    for case in verdict.cases:
        mark = "[green]ok[/green]" if case.passed else "[red]FAILED[/red]"
        counts = (str(case.checked), str(len(case.failures)))
        cells = (case.kind, case.shown_format, limit_text(case), *counts, closest_text(case))
        table.add_row(mark, *map(escape, cells))
    out.print(table)
