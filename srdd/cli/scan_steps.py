"""The steps of `srdd scan`: open, say what will happen, measure with a progress bar.

Not here: options (scan.py) and tables (srdd.exporters.terminal). A weights-only scan of safetensors files builds no
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.markup import escape

from srdd import kernels
from srdd.cli.opening import ModelOptions, TextOptions, planted, refuse_unused
from srdd.cli.progress import bars_on
from srdd.core.faults import Fault
from srdd.core.formats import BlockFormat
from srdd.core.layers import parse_layers
from srdd.documents.parts import KINDS
from srdd.documents.report import Report
from srdd.errors import CalibrationError, setting
from srdd.models.adapted_files import adapted_files
from srdd.models.adapter_base import form_of, opening_base, other_base
from srdd.models.changes import listed_beside
from srdd.models.checkpoint_sites import checkpoint_sites
from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.quiet import quiet_hub
from srdd.models.selection import Selection
from srdd.models.sites import SiteMap
from srdd.models.source import first_unpacking, needs_model
from srdd.runs.calibration import Sequences
from srdd.runs.cost_tokens import cost_sequences
from srdd.runs.impact.request import Sensitive
from srdd.runs.scanning import CostKind, scan
from srdd.runs.scans.checkpoint import scan_checkpoint
from srdd.runs.scans.survival import adapter_part

OF_TEXT = ("data", "text_column", "samples", "seq_len", "batch_size", "cost", "cost_tokens", "noise_on")


@dataclass(frozen=True)
class ScanOptions:
    """What is measured, and which options the user typed."""

    formats: tuple[BlockFormat, ...]
    sites: str | None
    layers: str | None
    exclude: tuple[str, ...]
    thresholds: dict[str, float]
    dry_run: bool
    typed: frozenset[str]
    costs: CostKind = "auto"
    cost_tokens: int | None = None
    sensitive: tuple[Sensitive, ...] = ("norm",)
    faults: tuple[Fault, ...] = ()

    def selection(self, sites: str | None = None) -> Selection:
        """The sites as asked for, or these alone. Raises SrddError for what is not understood."""
        layers = None if self.layers is None else parse_layers(self.layers)
        return Selection.parse(sites or self.sites or KINDS, layers=layers, exclude=self.exclude)


def run(what: ScanOptions, model: ModelOptions, text: TextOptions, out: Console) -> tuple[SiteMap, Report | None]:
    """Carry out a scan; no report for a dry run. Raises SrddError."""
    if what.selection().kinds == ("weight",):
        refuse_unused(what.typed, OF_TEXT, "when only weights are scanned")
        if not any(fmt.stochastic for fmt in what.formats):
            when = "when only weights are scanned and no format rounds stochastically"
            refuse_unused(what.typed, ("seed",), when)
        if not needs_model(model.named().model) and not what.faults:
            return _run_checkpoint(what, model, text.seed, out)
    return _run_model(what, model, text, out)


def _run_checkpoint(what: ScanOptions, model: ModelOptions, seed: int, out: Console) -> tuple[SiteMap, Report | None]:
    without_model = "when weights are read from safetensors without a model"
    refuse_unused(what.typed, ("device_map", "trust_remote_code"), without_model)
    elsewhere = [*["dtype"] * (model.dtype != "auto"), *["device"] * (model.device not in ("auto", "cpu"))]
    refuse_unused(elsewhere, ("dtype", "device"), "when weights are read as stored, on the CPU")
    kernels.choose(model.backend)  # an unknown name is refused before anything is fetched
    named = model.named()
    with quiet_hub(), opening_base(named, model.model):
        checkpoint = open_checkpoint(named.model, revision=named.revision)
    found, adapted = checkpoint_sites(checkpoint), None
    if named.adapter is not None:
        adapted = adapted_files(checkpoint, found, named.adapter, form_of(model.adapter_as), other_base(named))
        checkpoint, found = adapted.checkpoint, adapted.sites
    sites = what.selection().filter(found)
    _announce(out, what, checkpoint.identity.id, "cpu, as stored, no model built", sites, None)
    if what.dry_run:
        note_all(out, checkpoint.notes)
        return sites, None
    with bars_on(out) as progress:
        report = scan_checkpoint(
            adapted or checkpoint,
            what.formats,
            sites,
            backend=model.backend,
            seed=seed,
            thresholds=what.thresholds,
            progress=progress,
        )
    return sites, report


def _run_model(
    what: ScanOptions, model: ModelOptions, text: TextOptions, out: Console
) -> tuple[SiteMap, Report | None]:
    text.check()
    model.check()
    first = (
        "; unpacking this GGUF file once, half a minute" if first_unpacking(model.named().model, model.dtype) else ""
    )
    out.print(f"Opening {escape(model.model)}{first}")
    with out.status("opening"):
        opened = replace(model, adapter_as=model.adapter_as and "apart").open()
    notes: list[str] = []
    selection = what.selection()
    needs_text = text.data is None or text.data.suffix != ".npz"
    if opened.tokenizer is None and selection.kinds != ("weight",) and needs_text and not what.dry_run:
        lack = f"no tokenizer: {opened.tokenizer_problem}"
        if what.sites is not None or text.data is not None:
            weights, data = setting("sites", "weight"), setting("data")
            raise CalibrationError(f"{lack}; use {weights}, or {data} with token ids in an .npz file")
        refuse_unused(what.typed, OF_TEXT, f"as this model has {lack}, and only weights can be scanned")
        selection = what.selection("weight")
        notes.append(f"only weights are scanned, {lack}")
    sites = selection.apply(opened.model)
    if opened.adapted is not None and form_of(model.adapter_as) == "apart":
        sites = listed_beside(sites, opened.adapted.adapter)
    sequences = None
    if selection.kinds != ("weight",) and not what.dry_run:
        sequences = text.load(opened)
    _announce(out, what, opened.identity.id, f"{opened.device}, {opened.identity.dtype}", sites, sequences)
    if what.dry_run:
        merged = opened.adapted is not None and form_of(model.adapter_as) == "merged"
        note_all(out, [*(opened.merged() if merged else opened).notes, *notes])
        return sites, None
    part = None
    if opened.adapted is not None:  # before it is merged: the base's weights are needed
        with bars_on(out) as progress:
            part = adapter_part(
                opened.adapted.adapter,
                form_of(model.adapter_as),
                opened.adapted.pairs(sites),
                what.formats,
                backend=model.backend,
                seed=text.seed,
                progress=progress,
            )
            opened = opened.merged() if part.form == "merged" else opened
    with planted(opened.model, what.faults), bars_on(out) as progress:
        report = scan(
            opened.model,
            sequences,
            what.formats,
            sites,
            batch_size=text.batch_size,
            backend=model.backend,
            seed=text.seed,
            thresholds=what.thresholds,
            costs="none" if selection.kinds == ("weight",) and what.costs == "auto" else what.costs,
            cost_tokens=what.cost_tokens,
            sensitive=what.sensitive,
            unquantized=what.exclude,
            identity=opened.identity,
            notes=[*opened.notes, *notes],
            progress=progress,
        )
    return sites, report.model_copy(update={"adapter": part})


def note_all(out: Console, notes: Sequence[str]) -> None:
    """What a report would say, of a run that makes none."""
    for note in notes:
        out.print(f"  note     {escape(note)}")


def _announce(
    out: Console, what: ScanOptions, name: str, where: str, sites: SiteMap, sequences: Sequences | None
) -> None:
    """What is about to happen, before it does."""
    counts = ", ".join(f"{len(sites.of(kind))} {kind}s" for kind in KINDS if sites.of(kind))
    out.print(f"Scanning [bold]{escape(name)}[/bold] ({where})")
    out.print(f"  formats  {', '.join(fmt.spec for fmt in what.formats)}")
    out.print(f"  sites    {counts}")
    if sequences is not None:
        count, length = sequences.token_ids.shape
        out.print(f"  tokens   {count * length} ({count} sequences of {length}) from {escape(sequences.source)}")
        if sequences.read:
            out.print(f"  read     {escape(sequences.read)}")
        if sequences.dropped:
            out.print(f"  dropped  {escape(sequences.dropped)}")
        if what.costs != "none":
            tokens = cost_sequences(sequences, what.cost_tokens).token_ids.numel()
            takes = "many times" if what.costs == "measured" else "1 to 2 times"  # measured on CPUs, 30 layers
            out.print(f"  costs    on {tokens} tokens, if the model has a head; {takes} as long as the rest")
