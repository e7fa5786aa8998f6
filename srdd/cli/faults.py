"""`srdd faults`: is a layer of this model, on this machine, broken? Exit 1 when a fault is found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srdd.cli import options

if TYPE_CHECKING:
    from srdd.cli.opening import ModelOptions
    from srdd.documents.fault import Faults
    from srdd.documents.opening import Opened
    from srdd.documents.report import Report


def faults(
    context: typer.Context,
    model: options.Model = None,
    model_option: options.ModelOption = None,
    depth: Annotated[
        str, typer.Option("--depth", help="linear: layers and the Linears in them; layer: no Linears, faster.")
    ] = "linear",
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="What `srdd faults` wrote of the healthy model, or a scan report of it."),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="A second device that must give the same, e.g. cuda:1 or cpu.")
    ] = None,
    quant: Annotated[
        str, typer.Option("--quant", help="Format of the study's own criterion, for comparison; none leaves it out.")
    ] = "mxfp4",
    plant: options.Plant = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Plant every kind in several sizes and say what is found.")
    ] = False,
    data: options.Data = None,
    text_column: options.TextColumn = None,
    samples: Annotated[int, typer.Option("--samples", help="Sequences to run, all at once.")] = 2,
    seq_len: options.SeqLen = 128,
    seed: Annotated[
        int, typer.Option("--seed", help="For the order of the text, perturbations and planted places.")
    ] = 0,
    out: options.Document = Path("srdd-faults.json"),
    force: options.Force = False,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    backend: options.Backend = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Run every layer alone, on its own input, and name what is broken: kind, layer, module, size. Exit 1 for a fault.

    Example: srdd faults smollm2 --plant layer=10,deadzone=0.001
    """
    from srdd.cli import console
    from srdd.cli.opening import ModelOptions, TextOptions, given, open_with_text, planted, refuse_unused
    from srdd.core.files import check_new, write_text
    from srdd.core.formats import parse
    from srdd.errors import SettingError, setting

    model = options.named_model(context, model, model_option)
    if depth not in ("layer", "linear"):
        raise SettingError("depth", repr(depth), "expected layer or linear")
    spec = None if quant == "none" else parse(quant).spec
    broken = options.named_faults(plant)
    if self_test:
        unused = ("plant", "reference", "against", "quant", "depth", "out", "force")
        refuse_unused(given(context), unused, f"with {setting('self_test')}")
    else:
        check_new(out, force=force)
    healthy = None if reference is None else _reference(reference)

    from srdd.cli.progress import bars_on
    from srdd.exporters.terminal import faults as tables
    from srdd.runs.faults.run import find_faults

    aside = console.aside()
    opening = ModelOptions(model, revision, dtype, device, None, trust_remote_code, backend)
    opened, sequences = open_with_text(aside, opening, TextOptions(data, text_column, samples, seq_len, 1, seed))
    if self_test:
        from srdd.exporters.terminal import self_test as self_test_tables
        from srdd.runs.faults.self_test import self_tested

        with bars_on(aside) as progress:
            trials = self_tested(opened.model, sequences, seed=seed, progress=progress)
        if as_json:
            console.document("faults-self-test", {"model": opened.identity.id, "trials": [vars(t) for t in trials]})
        else:
            self_test_tables.show(console.people(), trials)
        return
    if healthy is not None:
        from srdd.analysis.fault_reference import refuse_other_model

        refuse_other_model(opened.identity, healthy.document)
    other = None if against is None else _elsewhere(opening, against).open().model
    with planted(opened.model, broken), bars_on(aside) as progress:
        document = find_faults(
            opened.model,
            sequences,
            depth=depth,  # type: ignore[arg-type]  # checked above
            reference=None if healthy is None else healthy.document,
            reference_sha256=None if healthy is None else healthy.sha256,
            against=other,
            spec=spec,
            backend=backend,
            seed=seed,
            identity=opened.identity,
            notes=opened.notes,
            progress=progress,
        )
    text = document.model_dump_json(indent=1)
    write_text(out, text + "\n")
    with console.deciding(tables.verdict(document)):
        if as_json:
            console.machine(text)
        else:
            tables.show(console.people(), document)
    aside.print(f"Faults: {out}. Compare a later run with it by `--reference {out}`.")
    if document.findings:
        raise typer.Exit(1)


def _reference(path: Path) -> Opened[Faults] | Opened[Report]:
    """What an earlier run wrote. Raises ReportError for any other document."""
    from srdd.documents.fault import Faults
    from srdd.documents.opening import open_document
    from srdd.documents.report import Report
    from srdd.errors import ReportError

    found = open_document(path)
    if not isinstance(found.document, Faults | Report):
        what = f"{path} is a {found.document.CALLED}"
        raise ReportError(f"{what}; expected what `srdd faults` or `srdd scan` wrote")
    return found  # type: ignore[return-value]  # one of the two


def _elsewhere(opening: ModelOptions, device: str) -> ModelOptions:
    """The same model on another device, checked before it is opened."""
    from dataclasses import replace

    elsewhere = replace(opening, device=device)
    elsewhere.check()
    return elsewhere
