"""`srdd validate`: which cheap score predicts the measured damage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def validate(
    report: Annotated[Path, typer.Argument(help="A report with measured KLs (impact --attribute both).")] = Path(
        "srdd-impact.json"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="The tables for machines, on stdout.")] = False,
) -> None:
    """Say which cheap scores predict the KL that quantizing single layers, or fusion groups, was measured to cost.

    Example: srdd impact --model smollm2 --quant mxfp4 --modes wa --attribute both && srdd validate
    """
    from srdd.analysis.validation import validate as correlate
    from srdd.cli import console
    from srdd.documents.report import Report
    from srdd.exporters.terminal.validation import show

    document = Report.load(report)
    tables = correlate(document)
    if as_json:
        tree = {"model": document.model.id, "tables": [table.model_dump() for table in tables]}
        console.document("validation", tree)
        return

    out = console.people()
    for table in tables:
        show(out, table, document.model.id)
