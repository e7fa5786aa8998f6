"""`srdd show`: a report as one screen, or as tables."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from srdd.documents.experiment import Experiment
    from srdd.documents.fault import Faults
    from srdd.documents.parts import Kind
    from srdd.documents.probe import Probe
    from srdd.documents.report import Report


_TOP = 10  # layers, or Linears of costs


def show(
    report: Annotated[Path, typer.Argument(help="The report to show.")] = Path("srdd-report.json"),
    site: Annotated[str | None, typer.Option("--site", help="Only this kind of site: weight, input or output.")] = None,
    quant: Annotated[
        str | None, typer.Option("--quant", help="Only this format of the report, e.g. mxfp4:even.")
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="How many of the worst layers to list (default 10).")
    ] = None,
    layer: Annotated[
        int | None, typer.Option("--layer", help="The modules inside this layer; -1 for those outside the layers.")
    ] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Tables of all numbers; any option above asks for them too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary for machines, on stdout.")] = False,
) -> None:
    """Show a report on one screen: what it costs, where, what to do. Or as tables; or what probe or experiment wrote.

    Example: srdd show srdd-report.json --site output --quant mxfp4 --top 5
    """
    from srdd.analysis.series import choose_kinds, choose_specs
    from srdd.documents.baseline import Baseline
    from srdd.documents.experiment import Experiment
    from srdd.documents.fault import Faults
    from srdd.documents.opening import open_document
    from srdd.documents.probe import Probe
    from srdd.documents.report import Report
    from srdd.errors import NoEffectError, ReportError, SettingError, setting

    if top is not None and (as_json or layer is not None):
        raise NoEffectError("top", f"with {setting('json' if as_json else 'layer')}")
    document = open_document(report).document
    if isinstance(document, Baseline):
        raise ReportError(f"{report} is a slim baseline: it is for `srdd check`, and nothing to show; give the report")
    if not isinstance(document, Report):
        if not isinstance(document, Probe | Experiment | Faults):
            raise ReportError(f"{report} is a {document.CALLED}: nothing to show; expected a report")
        unused: dict[str, object] = {"kind": site, "spec": quant, "layer": layer, "stats": stats or None}
        _show_other(document, top, as_json, unused)
        return
    if stats and as_json:
        raise NoEffectError("stats", f"with {setting('json')}")
    asked = stats or any(given is not None for given in (site, quant, top, layer))
    if not asked and not as_json:
        from srdd.cli import console
        from srdd.exporters.terminal import screen

        screen.show(console.people(), document, str(report))
        _show_adapter(document)
        return
    if document.costs is not None and not document.sites:
        _show_costs(document, top, as_json, unused={"kind": site, "spec": quant, "layer": layer})
        return
    kinds, specs = choose_kinds(document, site), choose_specs(document, quant)
    if as_json:
        _print_json(document, kinds, specs, layer)
        return

    from srdd.cli import console
    from srdd.exporters.terminal import report as tables

    out = console.people()
    if layer is not None:
        wanted = None if layer == -1 else layer
        if not any(s.layer == wanted and s.kind in kinds for s in document.sites):
            known = sorted({s.layer for s in document.sites if s.layer is not None})
            span = f"layers {known[0]}-{known[-1]}" if known else "no layers"
            raise SettingError("layer", layer, f"the report has {span} of kind {', '.join(kinds)}")
        tables.header(out, document)
        for spec in specs:
            tables.show_layer(out, document, kinds, spec, wanted)
        return
    tables.show(out, document, kinds, specs, top or _TOP)
    if document.costs is not None and site is None:
        from srdd.exporters.terminal import costs

        costs.tables(out, document.costs, top or _TOP)
        _show_keep(document)
    _show_adapter(document)
    out.print("More: --site, --quant, --top N, --layer N for the modules inside a layer.")


def _show_costs(report: Report, top: int | None, as_json: bool, unused: dict[str, object]) -> None:
    """A report without sites: all that it holds is what quantization costs."""
    from srdd.cli import console
    from srdd.documents.report import dumps
    from srdd.errors import NoEffectError
    from srdd.exporters.terminal import costs

    given = [name for name, value in unused.items() if value is not None]
    if given:
        raise NoEffectError(given, "on a report that has costs and no sites")
    if as_json:
        console.machine(dumps(report))
    else:
        costs.show(console.people(), report, top or _TOP)
        _show_keep(report)


def _show_adapter(report: Report) -> None:
    from srdd.cli import console
    from srdd.exporters.terminal import adapter

    if report.adapter is not None:
        adapter.show(console.people(), report.adapter)


def _show_keep(report: Report) -> None:
    from srdd.analysis.screen import screen
    from srdd.cli import console
    from srdd.exporters.terminal import keep

    facts = screen(report)
    keep.show(console.people(), facts.choices if facts is not None else ())


def _show_other(
    document: Probe | Experiment | Faults, top: int | None, as_json: bool, unused: dict[str, object]
) -> None:
    from srdd.cli import console
    from srdd.documents.fault import Faults
    from srdd.documents.probe import Probe
    from srdd.errors import NoEffectError
    from srdd.exporters.terminal import experiment, faults, probe

    given = [name for name, value in {**unused, "top": top}.items() if value is not None]
    if given:
        raise NoEffectError(given, f"on an {document.document} document")
    if as_json:
        console.machine(document.model_dump_json(indent=1))
    elif isinstance(document, Probe):
        probe.show(console.people(), document)
    elif isinstance(document, Faults):
        faults.show(console.people(), document)
    else:
        experiment.show(console.people(), document)


def _print_json(document: Report, kinds: Sequence[Kind], specs: Sequence[str], layer: int | None) -> None:
    from srdd.cli import console

    if layer is None:
        from srdd.cli.summary import summary

        console.document("summary", summary(document, kinds, specs))
        return
    from srdd.analysis.single_blocks import noisiest_block, sqnr_swing_db

    wanted = None if layer == -1 else layer
    rows = [
        {
            "kind": s.kind,
            "name": s.name,
            "role": s.role,
            "layer": s.layer,
            "members": s.members,
            "formats": {spec: s.formats[spec].metrics for spec in specs if spec in s.formats},
            "swing_db": {
                spec: number
                for spec in specs
                if spec in s.formats and math.isfinite(number := sqnr_swing_db(s.formats[spec], spec))
            },
            "noisiest_block": {spec: asdict(found) for spec in specs if (found := noisiest_block(s, spec)) is not None},
        }
        for s in document.sites
        if s.kind in kinds and s.layer == wanted
    ]
    console.document("layer", {"model": document.model.id, "layer": wanted, "rows": rows})
