"""The gate's verdict: every limit with what came closest, then each regression in a sentence.

Not here: the verdict itself (srdd.analysis.comparison.gate) and its sentences (srdd.exporters.check.text).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.exporters.check.text import closest_text, failures, implausible_text, limit_text

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.documents.check import CheckResult

_SHOWN = 10  # failures a case; all of them are in --json and --junit


def show(out: Console, verdict: CheckResult) -> None:
    """Every limit with what came closest, then each regression in a sentence."""
    against = f" against {verdict.baseline}" if verdict.baseline else ""
    out.print(f"[bold]{escape(verdict.new)}[/bold]{escape(against)}{'  (built-in limits)' if verdict.defaults else ''}")
    for note in verdict.notes:
        out.print(f"note: {escape(note)}")
    table = Table()
    for heading in ("", "sites", "format:rule", "limit", "checked", "failed", "closest"):
        table.add_column(heading, justify="right" if heading in ("checked", "failed") else "left")
    for case in verdict.cases:
        mark = "[green]ok[/green]" if case.passed else "[red]FAILED[/red]"
        counts = (str(case.checked), str(len(case.failures)))
        cells = (case.kind, case.shown_format, limit_text(case), *counts, closest_text(case))
        table.add_row(mark, *map(escape, cells))
    out.print(table)
    for case in verdict.cases:
        for finding in case.implausible[:_SHOWN]:
            out.print(f"[yellow]flagged:[/yellow] {escape(implausible_text(case, finding))}")
    for problem in verdict.problems:
        out.print(f"[red]FAILED[/red] {escape(problem)}")
    for line in failures(verdict.cases, _SHOWN):
        out.print(f"[red]FAILED[/red] {escape(line)}")
    out.print("passed" if verdict.passed else "[bold red]failed[/bold red]")
