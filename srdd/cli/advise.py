"""`srdd advise`: what to do about a format, by rule, with the rule's inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def advise(
    report: Annotated[Path, typer.Argument(help="The report; - reads standard input.")] = Path("srdd-report.json"),
    site: Annotated[str | None, typer.Option("--site", help="weight, input or output (default: output).")] = None,
    quant: Annotated[str | None, typer.Option("--quant", help="A format of the report (default: its first).")] = None,
    against: Annotated[
        str, typer.Option("--against", help="Limits: format (a margin around Gaussian data) or classic.")
    ] = "format",
    top: Annotated[int, typer.Option("--top", min=1, help="How many flagged layers to list.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="All of it for machines, on stdout.")] = False,
) -> None:
    """Say what to do about the layers beyond the limits, why, and which measured format would help.

    Example: srdd advise srdd-report.json --site input --quant mxfp4
    """
    from srdd.analysis.advice import advise as decide
    from srdd.analysis.series import choose_kind, choose_spec
    from srdd.cli import console
    from srdd.documents.report import Report
    from srdd.exporters.terminal.advice import show

    document = Report.load(report)
    kind, spec = choose_kind(document, site), choose_spec(document, quant)
    advice = decide(document, kind, spec, against)  # type: ignore[arg-type]  # checked there
    if as_json:
        console.machine(advice.model_dump_json(indent=1))
        return

    show(console.people(), advice, top)
