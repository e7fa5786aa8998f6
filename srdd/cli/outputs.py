"""What the commands that turn a report into a document share: checks before work, the lines at the top.

Not here: the documents themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from srdd.cli import console
from srdd.core.files import check_new, write_text
from srdd.errors import NoEffectError, setting

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.analysis.series import Series
    from srdd.documents.report import Report


def check(out: Path | None, force: bool) -> None:
    """Before any work. Raises OptionError when `out` exists and may not be replaced, or `force` has no effect."""
    if out is not None:
        check_new(out, force=force)
    elif force:
        raise NoEffectError("force", f"without {setting('out')}")


def write(out: Path, text: str) -> None:
    write_text(out, text)


def about(out: Console, report: Report, series: Series) -> None:
    """What is looked at, what else the report holds, and what its numbers cannot be trusted for."""
    from rich.markup import escape

    from srdd.analysis.layer_costs import cost_specs, weakness
    from srdd.core.metrics import COSTS

    known = cost_specs(report) if series.mode else report.settings.formats
    others = [spec for spec in known if spec != series.spec] if series.spec else []
    more = f"  (also in the report: --quant {', '.join(others)})" if others else ""
    out.print(f"[bold]{escape(report.model.id)}[/bold]  {escape(series.title)}{more}")
    weak = [] if series.metric in COSTS else weakness(report)
    for warning in [*weak, *report.warnings]:
        console.aside().print(f"[yellow]warning:[/yellow] {escape(warning)}")
