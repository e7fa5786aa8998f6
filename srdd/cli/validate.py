"""`srdd validate`: which cheap score predicts the measured damage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def validate(
    impact: Annotated[Path, typer.Argument(help="An impact document with measured KLs (--attribute both).")] = Path(
        "srdd-impact.json"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="The tables for machines, on stdout.")] = False,
) -> None:
    """Say which cheap scores predict the KL that quantizing single layers was measured to cost.

    Example: srdd impact --model smollm2 --quant mxfp4 --modes wa --attribute both && srdd validate
    """
    from srdd.analysis.validation import validate as correlate
    from srdd.cli import console
    from srdd.documents.impact import Impact
    from srdd.documents.opening import open_document
    from srdd.exporters.terminal.validation import show

    document = open_document(impact, Impact).document
    tables = correlate(document)
    if as_json:
        tree = {"model": document.model.id, "tables": [table.model_dump() for table in tables]}
        console.document("validation", tree)
        return

    out = console.people()
    for table in tables:
        show(out, table, document.model.id)
