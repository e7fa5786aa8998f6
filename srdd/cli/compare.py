"""`srdd compare`: what changed between two reports, or drifts over several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from srdd.documents.comparison import Comparison, ComparisonDocument, DriftTable
    from srdd.documents.parts import Kind, Place
    from srdd.documents.report import Report


def compare(
    reports: Annotated[list[Path], typer.Argument(help="The base, then the new report; - reads standard input.")],
    series: Annotated[
        bool, typer.Option("--series", help="Drift over two or more reports, in the order of training.")
    ] = False,
    across: Annotated[
        str | None, typer.Option("--across", help="quant: compare formats or scale rules; --quant A,B names them.")
    ] = None,
    site: Annotated[
        str | None, typer.Option("--site", help="Only weight, input or output (details default to the largest change).")
    ] = None,
    quant: Annotated[
        str | None, typer.Option("--quant", help="Only this format (details default to the largest change).")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", help="The metric of the details (default: predicted_kl, without costs block_sqnr_db)."
        ),
    ] = None,
    zones: Annotated[
        str | None, typer.Option("--zones", help="Spans such as 0-3,4-9 (default: thirds of the depth).")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many layers to list.")] = 10,
    allow_different_model: Annotated[
        bool, typer.Option("--allow-different-model", help="Another architecture, depth or size: for format studies.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Every kind and format for machines, on stdout.")] = False,
) -> None:
    """Compare checkpoints, formats or scale rules layer by layer, largest change first.

    Example: srdd compare step-100.json step-200.json --site output --quant mxfp4
    """
    from srdd.analysis.comparison import changes as comparing
    from srdd.analysis.comparison import costs
    from srdd.analysis.comparison.beginning import beginning
    from srdd.analysis.comparison.comparability import comparable
    from srdd.analysis.comparison.held_places import counts_blocks
    from srdd.analysis.comparison.older import sharing_documents
    from srdd.analysis.layer_costs import has_costs, weakness
    from srdd.analysis.series import choose_kinds
    from srdd.cli import console
    from srdd.core.files import readable
    from srdd.core.layers import parse_zones
    from srdd.core.metrics import COSTS, any_metric
    from srdd.documents.comparison import ComparisonDocument
    from srdd.documents.report import Report
    from srdd.errors import NoEffectError, ReportError

    _check_usage(reports, series, across)
    named, chosen_zones = any_metric(metric) if metric else None, parse_zones(zones) if zones else None
    documents = [Report.load(path) for path in (reports if len(reports) > 1 else reports * 2)]
    base, new = sharing_documents(documents[0], documents[-1])
    priced = [report for report in documents if has_costs(report)]
    if not base.sites and not priced:
        raise ReportError(f"{reports[0]} is empty: it has no sites")
    if named is None:
        counted = all(counts_blocks(report) for report in documents)
        steady = "block_sqnr_db" if counted else "sqnr_db"
        named = any_metric("predicted_kl" if site is None and len(priced) == len(documents) else steady)
    by_cost = costs.by_cost(named, *documents)
    if by_cost and site:
        raise NoEffectError("kind", f"on {named.name}, the cost of whole layers")
    kinds = choose_kinds(base, site) if all(report.sites for report in documents) or not by_cost else []
    wanted = None if across else _canonical(documents, quant)
    specs = _formats(base, new, quant, wanted, across is not None, by_cost)
    notes = comparing.error_notes([readable(path) for path in reports], documents[: len(reports)])
    if named not in COSTS:
        notes += [note for report in documents for note in weakness(report)]
    for other in documents[1:]:
        notes += costs.comparable_costs(base, other, allow_other_text=True)
        notes += comparable(
            base,
            other,
            kinds if site or not kinds else None,
            wanted,
            across_quant=across is not None,
            allow_different_model=allow_different_model,
        )
    # JSON holds all kinds and formats in order; tables show the one that changed most, of equals outputs
    places: list[Place] = ["layer"] if by_cost else [*kinds] if as_json else [*kinds[::-1]]
    details = [(kind, *pair) for kind in places for pair in specs]
    document = ComparisonDocument(
        reports=[readable(path) for path in reports],
        models=[report.model.id for report in documents[: len(reports)]],
        notes=list(dict.fromkeys(notes)),
        beginning=None if series or across else beginning(base, new),
        whole=[] if series else costs.whole_changes(base, new, specs),
        comparisons=[]
        if series
        else [comparing.compare(base, new, kind, a, named, new_spec=b, zones=chosen_zones) for kind, a, b in details],
        drift=[comparing.drift(documents, kind, a, named, zones=chosen_zones) for kind, a, _ in details]
        if series
        else [],
    )
    _check_measured(document)
    if as_json:
        console.machine(document.model_dump_json(indent=1))
        return
    from srdd.exporters.terminal.comparison import show

    out = console.people()
    document = document.model_copy(update={"comparisons": comparing.largest_first(document.comparisons)})
    with_overview = not series and (len(kinds) * len(specs) > 1 or named.name != "sqnr_db")
    sides = _sides(base, new, kinds, specs) if with_overview else []
    show(out, document, top, [comparing.compare_main(base, new, *side) for side in sides])
    console.aside().print("More: --site, --quant, --metric NAME, --zones 0-3,4-9, --top N, --json.")


def _formats(
    base: Report, new: Report, quant: str | None, wanted: list[str] | None, across: bool, by_cost: bool
) -> list[tuple[str, str]]:
    """The formats to compare, of the base and of the new report, which without --across are the same."""
    from srdd.analysis.layer_costs import cost_specs

    if across:
        return [_two_formats(base, new, quant)]
    known = [spec for spec in cost_specs(base) if spec in cost_specs(new)] if by_cost else base.settings.formats
    return [(spec, spec) for spec in wanted or known or cost_specs(base)]


def _sides(
    base: Report, new: Report, kinds: Sequence[Kind], specs: Sequence[tuple[str, str]]
) -> list[tuple[Kind, str, str]]:
    """What has error statistics to compare: kinds, and the formats that both were scanned with."""
    known = [(a, b) for a, b in specs if a in base.settings.formats and b in new.settings.formats]
    return [(kind, *pair) for kind in kinds for pair in known]


def _check_usage(reports: Sequence[Path], series: bool, across: str | None) -> None:
    from srdd.errors import NoEffectError, ReportError, SettingError, setting

    if across not in (None, "quant"):
        raise SettingError("across", across, "expected quant")
    if across and series:
        raise NoEffectError("across", f"with {setting('series')}, which follows one format")
    if sum(str(path) == "-" for path in reports) > 1:
        raise ReportError("only one report can come from standard input")
    if len(reports) == 1 and not across:
        one = f"{setting('across', 'quant')} {setting('formats', 'A,B')}"
        raise ReportError(f"one report is nothing to compare with; give two (or {one} for one)")
    if len(reports) > 2 and not series:
        more = f"{setting('series')} shows the drift over more"
        raise ReportError(f"{len(reports)} reports given; two are compared, {more}")


def _canonical(documents: Sequence[Report], quant: str | None) -> list[str] | None:
    """Formats as reports name them, whether or not they hold them."""
    from srdd.core.formats import parse

    known = {spec for document in documents for spec in document.settings.formats}
    return None if quant is None else [text if text in known else parse(text).spec for text in quant.split(",")]


def _two_formats(base: Report, new: Report, quant: str | None) -> tuple[str, str]:
    """The format of the base and that of the new report: as named, or the first that differ."""
    from srdd.analysis.series import choose_specs
    from srdd.errors import ReportError, SettingError, setting

    named = quant.split(",") if quant else []
    if len(named) > 2:
        raise SettingError("formats", quant, f"{setting('across', 'quant')} compares two formats")
    a = choose_specs(base, named[0] if named else None)[0]
    if len(named) == 2:
        return a, choose_specs(new, named[1])[0]
    b = next((spec for spec in new.settings.formats if spec != a), None)
    if b is None:
        raise ReportError(f"both reports have only {a}; {setting('across', 'quant')} needs two formats or rules")
    return a, b


def _check_measured(document: ComparisonDocument) -> None:
    """A metric that no layer has in all reports is refused: version 0 lacks most of them."""
    from srdd.errors import ReportError, setting

    tables: list[Comparison | DriftTable] = [*document.comparisons, *document.drift]
    if not any(table.measured for table in tables):
        raise ReportError(f"{tables[0].metric} is not measured in every report; choose another {setting('metric')}")
