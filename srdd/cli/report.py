"""`srdd report`: a report as a page, a picture, Markdown or CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    report: Annotated[Path, typer.Argument(help="The scan report; - reads standard input.")] = Path("srdd-report.json"),
    out: Annotated[Path, typer.Option("--out", "-o", help="A .html, .md, .csv, .png, .svg or .pdf file.")] = Path(
        "srdd-report.html"
    ),
    figure: Annotated[
        str | None, typer.Option("--figure", help="Pictures: profile (default), heatmap, scatter or zones.")
    ] = None,
    impact: Annotated[Path | None, typer.Option("--impact", help="Costs, from `srdd impact --out`.")] = None,
    zones: Annotated[
        Path | None, typer.Option("--zones", help="A zone map, from `srdd zones --out` (default: found anew).")
    ] = None,
    multipliers: Annotated[
        Path | None, typer.Option("--multipliers", help="rin.yaml, from `srdd multipliers --out` (default: variable).")
    ] = None,
    baseline: Annotated[Path | None, typer.Option("--baseline", help="Another scan report, as a ghost line.")] = None,
    probe: Annotated[Path | None, typer.Option("--probe", help="Borne noise, from `srdd probe --out`.")] = None,
    experiment: Annotated[
        Path | None, typer.Option("--experiment", help="Noise strategies, from `srdd experiment aqn --out`.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="What is looked at first (default: relative_error).")
    ] = None,
    site: Annotated[str | None, typer.Option("--site", help="weight, input or output (default: output).")] = None,
    quant: Annotated[str | None, typer.Option("--quant", help="A format of the report (default: its first).")] = None,
    title: Annotated[str | None, typer.Option("--title", help="Instead of the model's name.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --out when it exists.")] = False,
) -> None:
    """Make one page that opens offline anywhere; or a picture, Markdown, or a tidy table.

    The page holds every kind, format and metric: --site, --quant and --metric say what it shows first. The other
    outputs hold only what these name; CSV without them holds everything.

    Example: srdd report srdd-report.json --impact srdd-impact.json --out report.html
    """
    from srdd.analysis.bundle import View, gather
    from srdd.cli import console
    from srdd.core.files import check_new, write_bytes
    from srdd.errors import NoEffectError, SettingError
    from srdd.exporters.report import report_exporter, report_exporters

    exporter = report_exporter(out)
    given = {
        "figure": figure,
        "impact": impact,
        "zones": zones,
        "multipliers": multipliers,
        "baseline": baseline,
        "probe": probe,
        "experiment": experiment,
        "metric": metric,
        "kind": site,
        "formats": quant,
        "title": title,
    }
    for name, value in given.items():
        if value is not None and name not in exporter.USES:
            users = ", ".join(suffix for suffix, other in report_exporters().items() if name in other.USES)
            raise NoEffectError(name, f"on {out.suffix} (only on {users})")
    if title is not None and not title.strip():
        raise SettingError("title", repr(title), "expected a text; leave it out for the model's name")
    check_new(out, force=force)
    bundle = gather(
        report,
        impact=impact,
        zones=zones,
        multipliers=multipliers,
        baseline=baseline,
        probe=probe,
        experiment=experiment,
    )
    content = exporter.render(bundle, View(out.suffix.lower(), title, figure, metric, site, quant))
    data = content.encode() if isinstance(content, str) else content
    write_bytes(out, data)
    console.aside().print(f"{out}: {len(data) / 1e6:.2f} MB", markup=False)
