"""The steps of `srdd scan PACKED --reference ORIGINAL`: weights from the files, then costs with both models.

Not here: options (scan.py), scans without a reference (scan_steps.py), numbers (srdd.runs.scans.stored,
srdd.runs.impact.reference). With weights alone no model is built.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from rich.console import Console
from rich.markup import escape

from srdd import kernels
from srdd.cli.opening import ModelOptions, TextOptions, refuse_unused
from srdd.cli.progress import bars_on
from srdd.cli.scan_steps import OF_TEXT, ScanOptions, note_all
from srdd.documents.costs import Costs
from srdd.documents.parts import Note
from srdd.documents.report import Report
from srdd.errors import CalibrationError, SettingError, SourceError, SrddError, setting
from srdd.models.beside_reference import Twins, twins
from srdd.models.checkpoint_sites import checkpoint_sites
from srdd.models.files.checkpoint import Checkpoint, open_checkpoint
from srdd.models.quiet import quiet_hub
from srdd.models.sites import SiteMap
from srdd.models.source import needs_model
from srdd.runs.cost_tokens import cost_sequences
from srdd.runs.impact.packed_modules import packed_modules
from srdd.runs.impact.reference import reference_costs
from srdd.runs.scans.stored import scan_stored

_BOTH = "with a reference, whose costs are measured with both models"


def run_against(
    reference: str, what: ScanOptions, model: ModelOptions, text: TextOptions, out: Console
) -> tuple[SiteMap, Report | None]:
    """Carry out the scan; no report for a dry run. Raises SrddError."""
    costs = _check(what, reference, model, text)
    with quiet_hub():
        packed = open_checkpoint(model.model, revision=model.revision)
        original = open_checkpoint(reference)
    sites = what.selection("weight" if what.sites is None else what.sites).filter(checkpoint_sites(packed))
    found = twins(packed, original, sites)
    _announce(out, what, packed, original, found)
    if what.dry_run:
        note_all(out, (*packed.notes, *(f"{original.identity.id}: {note}" for note in original.notes)))
        return sites, None
    with bars_on(out) as progress:
        report = scan_stored(
            packed,
            original,
            what.formats,
            sites,
            backend=model.backend,
            seed=text.seed,
            thresholds=what.thresholds,
            progress=progress,
        )
    return sites, _with_costs(report, what, reference, packed, model, text, out) if costs else report


def _check(what: ScanOptions, reference: str, model: ModelOptions, text: TextOptions) -> bool:
    """Whether costs are wanted. What can be refused before anything is opened is."""
    for name in (model.model, reference):
        if needs_model(name):
            raise SourceError(
                f"{name} is read through a model; {setting('reference')} compares safetensors checkpoints: a packed "
                "one with its 16-bit original"
            )
    if what.sites is not None and what.selection().kinds != ("weight",):
        raise SettingError("sites", what.sites, "with a reference only weights are measured; leave it out, or weight")
    if what.costs == "predicted":
        raise SettingError("costs", "predicted", "with a reference costs are measured; leave it out, measured or none")
    refuse_unused(what.typed, ("noise_on", "adapter", "adapter_as"), "with a reference")
    costs = what.sites is None and what.costs != "none"
    if not costs:
        when = "when only weights are scanned" if what.sites is not None else "without costs"
        refuse_unused(what.typed, [name for name in OF_TEXT if name != "cost" or what.sites is not None], when)
        files = "when weights are read as stored, on the CPU"
        refuse_unused(what.typed, ("device_map", "trust_remote_code", "dtype", "device"), files)
        if not any(fmt.stochastic for fmt in what.formats):
            refuse_unused(what.typed, ("seed",), "when only weights are scanned and no format rounds stochastically")
        kernels.choose(model.backend)
    elif not what.dry_run:
        refuse_unused(what.typed, ("batch_size",), _BOTH)
        text.check()
        model.check()
    return costs


def _with_costs(
    report: Report,
    what: ScanOptions,
    reference: str,
    packed: Checkpoint,
    model: ModelOptions,
    text: TextOptions,
    out: Console,
) -> Report:
    """The report with costs; with a note why there are none where that is no mistake of the user's."""
    started = time.monotonic()
    try:
        costs, notes = _costs(what, reference, packed, model, text, out)
    except (SrddError, MemoryError, torch.OutOfMemoryError) as problem:
        if what.costs != "auto" or not what.typed.isdisjoint(OF_TEXT):
            raise
        said = str(problem) if isinstance(problem, SrddError) else "too little memory for both models"
        return report.model_copy(update={"warnings": [*report.warnings, Note(f"no costs: {said}")]})
    before = report.provenance.get("seconds")
    seconds = (before if isinstance(before, float) else 0.0) + time.monotonic() - started
    return report.model_copy(
        update={
            "costs": costs,
            "warnings": [*report.warnings, *map(Note, notes)],
            "provenance": {**report.provenance, "seconds": round(seconds, 2)},
        }
    )


def _costs(
    what: ScanOptions, reference: str, packed: Checkpoint, model: ModelOptions, text: TextOptions, out: Console
) -> tuple[Costs, Sequence[str]]:
    with out.status("opening both models"):
        ours = model.open()
        theirs = replace(model, model=reference, revision=None).open()
    opened = ours if ours.tokenizer is not None else theirs
    if opened.tokenizer is None and (text.data is None or text.data.suffix != ".npz"):
        raise CalibrationError(f"no tokenizer: {ours.tokenizer_problem}; use {setting('sites', 'weight')}")
    some = cost_sequences(text.load(opened), what.cost_tokens)
    count, length = some.token_ids.shape
    out.print(f"  costs    on {count * length} tokens ({count} sequences of {length}) from {escape(some.source)}")
    stored, fresh, notes = packed_modules(packed, what.formats)
    if ours.identity.dtype != theirs.identity.dtype:
        notes = [
            *notes,
            f"costs: the packed model runs in {ours.identity.dtype}, the reference in {theirs.identity.dtype}",
        ]
    with bars_on(out) as progress:
        costs = reference_costs(
            ours.model, theirs.model, some, stored, fresh, backend=model.backend, seed=text.seed, progress=progress
        )
    return costs, notes


def _announce(out: Console, what: ScanOptions, packed: Checkpoint, original: Checkpoint, found: Twins) -> None:
    """What is about to happen, before it does."""
    forms = sorted({parts[0].packed.form for _, parts in found.packed})
    asked = "".join(f", {fmt.spec}" for fmt in what.formats)
    out.print(f"Scanning [bold]{escape(packed.identity.id)}[/bold] against {escape(original.identity.id)}")
    out.print(f"  formats  as stored ({', '.join(forms)}) and the same afresh{asked}")
    out.print(f"  sites    {len(found.packed)} packed weights; {len(found.plain)} plain ones are compared for equality")
