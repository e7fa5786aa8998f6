"""`srdd advise`: what to do about a format, by rule, with the rule's inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srdd.cli import options


def advise(
    report: Annotated[Path, typer.Argument(help="The report; - reads standard input.")] = Path("srdd-report.json"),
    site: Annotated[str | None, typer.Option("--site", help=options.SITE)] = None,
    quant: Annotated[str | None, typer.Option("--quant", help="A format of the report (default: its first).")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="cost, or limits of errors: format (a margin around Gaussian data) or classic "
            "(default: cost, without costs format).",
        ),
    ] = None,
    probe: Annotated[
        Path | None, typer.Option("--probe", help="srdd-probe.json: noise in training starts at half of its break.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many groups, or flagged layers, to list.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="All of it for machines, on stdout.")] = False,
) -> None:
    """Say what to do about the layers that cost most, or are beyond the limits, why, and which format would help.

    Example: srdd advise srdd-report.json --quant mxfp4
    """
    from srdd.analysis.advice import advise as decide
    from srdd.analysis.series import choose_kind
    from srdd.cli import console
    from srdd.documents.opening import open_document
    from srdd.documents.probe import Probe
    from srdd.documents.report import Report
    from srdd.exporters.terminal.advice import show

    document = Report.load(report)
    kind = choose_kind(document, site) if site is not None else None
    probed = None if probe is None else open_document(probe, Probe).document
    advice = decide(document, kind, quant, against, probed)  # type: ignore[arg-type]  # checked there
    if as_json:
        console.machine(advice.model_dump_json(indent=1))
        return

    show(console.people(), advice, top)
