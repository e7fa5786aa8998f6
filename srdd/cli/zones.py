"""`srdd zones`: the zones of a report, by cost or error."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srdd.cli import options


def zones(
    report: Annotated[Path, typer.Argument(help="The report; - reads standard input.")] = Path("srdd-report.json"),
    site: Annotated[str | None, typer.Option("--site", help=options.SITE)] = None,
    quant: Annotated[str | None, typer.Option("--quant", help="A format of the report (default: its first).")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help=options.METRIC)] = None,
    mode: options.CostMode = None,
    scheme: Annotated[
        str, typer.Option("--scheme", help="auto, five, edge-middle, thirds, or spans such as 0-3,4-9,10-27.")
    ] = "auto",
    max_zones: Annotated[int | None, typer.Option("--max-zones", help="At most so many, for auto (default 6).")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the zone map: .json or .yaml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --out when it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The zone map for machines, on stdout.")] = False,
) -> None:
    """Find contiguous zones of layers with similar cost, or error; "one zone" is a legal answer.

    Example: srdd zones srdd-report.json --mode w4a16 --out zones.yaml
    """
    from srdd.analysis.series import layer_series
    from srdd.analysis.zones import edges_together, survey
    from srdd.cli import console, outputs
    from srdd.documents import saving as structured
    from srdd.documents.opening import open_document
    from srdd.documents.report import Report
    from srdd.documents.zones import ZoneMap, ZoneProvenance
    from srdd.exporters.terminal.zones import show

    form = structured.form_of(out.suffix) if out else "json"
    outputs.check(out, force)
    opened = open_document(report, Report)
    document, sha256 = opened.document, opened.sha256
    series = layer_series(document, site, quant, metric, mode)
    found = survey(series, scheme, max_zones)
    chart = ZoneMap(
        provenance=series.made(ZoneProvenance, document.model, sha256, scheme=scheme, max_zones=max_zones),
        zones=found.zones,
        cuts=found.cuts,
        outliers=found.outliers,
        ramp=found.ramp,
        together=edges_together(series, found.zones),
        layers={layer: zone.name for zone in found.zones for layer in zone.layers},
    )
    if out is not None:
        outputs.write(out, structured.render(chart, form))
    if as_json:
        console.machine(structured.render(chart, "json"))
        return

    people = console.people()
    outputs.about(people, document, series)
    show(people, chart, series)
    if out is not None:
        console.aside().print(f"Zone map: {out}")
