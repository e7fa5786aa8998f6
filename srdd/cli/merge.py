"""`srdd merge`: reports of parts of a run, or of a scan and its costs, as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srdd.cli import options


def merge(
    reports: Annotated[list[Path], typer.Argument(help="Two or more reports of one model; - reads standard input.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the whole goes.")],
    force: options.Force = False,
) -> None:
    """Join reports: halves of the text, parts of the sites or formats, a scan and costs of the same model.

    Example: srdd merge srdd-report.json srdd-impact.json --out whole.json
    """
    from srdd.cli import console
    from srdd.core.files import check_new
    from srdd.documents.merging import merge as join
    from srdd.documents.report import Report
    from srdd.errors import ReportError

    if len(reports) < 2:
        raise ReportError("one report is nothing to merge; give two or more")
    if sum(str(path) == "-" for path in reports) > 1:
        raise ReportError("only one report can come from standard input")
    check_new(out, force=force)
    opened = [(path, Report.load(path)) for path in reports]
    opened.sort(key=lambda one: not one[1].sites)  # costs are held against the tokens of all sites
    (_, whole), *others = opened
    for path, part in others:
        try:
            whole = join(whole, part)
        except ReportError as problem:
            raise ReportError(f"{path}: {problem}") from problem
    whole.save(out)
    console.aside().print(f"{out}: {whole!r}", markup=False, soft_wrap=True)
