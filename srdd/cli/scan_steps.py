"""The steps of `srdd scan`: open, say what will happen, measure with a progress bar.

Not here: options (scan.py) and tables (tables.py). A weights-only scan of safetensors files builds no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from srdd.cli.opening import check_backend, check_options, refuse_unused, text_limits
from srdd.cli.progress import bars_on
from srdd.core.formats import BlockFormat
from srdd.core.layers import parse_layers
from srdd.documents.report import Report
from srdd.documents.schema import KINDS
from srdd.errors import CalibrationError, OptionError
from srdd.models.checkpoint_sites import checkpoint_sites
from srdd.models.files.checkpoint import Checkpoint, open_checkpoint
from srdd.models.quiet import quiet_hub
from srdd.models.selection import Selection
from srdd.models.sites import SiteMap
from srdd.models.source import OpenModel, first_unpacking, needs_model, open_model
from srdd.runs import calibration
from srdd.runs.calibration import Sequences
from srdd.runs.scans import checkpoint as checkpoint_scanner
from srdd.runs.scans import model as scanner

_DEFAULTS = {"samples": 16, "seq_len": 512, "batch_size": 4, "seed": 0}
_OF_TEXT = ("data", "text_column", "samples", "seq_len", "batch_size")


@dataclass(frozen=True)
class Request:
    """The options of one scan, parsed but not yet checked against a model. None: not given."""

    model: str
    formats: tuple[BlockFormat, ...]
    sites: str | None
    layers: str | None
    exclude: tuple[str, ...]
    data: Path | None
    text_column: str | None
    samples: int | None
    seq_len: int | None
    batch_size: int | None
    seed: int | None
    revision: str | None
    dtype: str
    device: str
    device_map: str | None
    trust_remote_code: bool
    backend: str
    thresholds: dict[str, float]
    dry_run: bool

    def number(self, name: str) -> int:
        """An option with a default: what was given, or the default."""
        given: int | None = getattr(self, name)
        return _DEFAULTS[name] if given is None else given

    def check(self) -> None:
        """What can be refused before the model is opened. Raises SrddError."""
        check_options(
            self.data,
            text_column=self.text_column,
            samples=self.number("samples"),
            seq_len=self.number("seq_len"),
            batch_size=self.number("batch_size"),
            seed=self.number("seed"),
            backend=self.backend,
            dtype=self.dtype,
            device=self.device,
            device_map=self.device_map,
        )

    def selection(self, sites: str | None = None) -> Selection:
        layers = None if self.layers is None else parse_layers(self.layers)
        return Selection.parse(sites or self.sites or KINDS, layers=layers, exclude=self.exclude)


def run(request: Request, out: Console) -> tuple[SiteMap, Report | None]:
    """Carry out a scan; no report for a dry run. Raises SrddError."""
    if request.selection().kinds == ("weight",):
        _refuse(request, _OF_TEXT, "when only weights are scanned")
        if not any(fmt.stochastic for fmt in request.formats):
            _refuse(request, ("seed",), "when only weights are scanned and no format rounds stochastically")
        if not needs_model(request.model):
            return _run_checkpoint(request, out)
    return _run_model(request, out)


def _run_checkpoint(request: Request, out: Console) -> tuple[SiteMap, Report | None]:
    _refuse(request, ("device_map", "trust_remote_code"), "when weights are read from safetensors without a model")
    for name in ("dtype", "device"):
        if getattr(request, name) not in ("auto", "cpu"):
            raise OptionError(f"--{name} has no effect when weights are read as stored, on the CPU; leave it out")
    check_backend(request.backend)  # an unknown name is refused before anything is fetched
    with quiet_hub():
        checkpoint = open_checkpoint(request.model, revision=request.revision)
    selection = request.selection()
    found = selection.filter(checkpoint_sites(checkpoint))
    _plan(out, request, checkpoint.identity.id, found, None, "cpu, as stored, no model built")
    if request.dry_run:
        return found, None
    with bars_on(out) as progress:
        report = checkpoint_scanner.scan_checkpoint(
            checkpoint,
            request.formats,
            found,
            backend=request.backend,
            seed=request.number("seed"),
            thresholds=request.thresholds,
            progress=progress,
        )
    return found, report


def _run_model(request: Request, out: Console) -> tuple[SiteMap, Report | None]:
    request.check()
    first = "; unpacking this GGUF file once, half a minute" if first_unpacking(request.model, request.dtype) else ""
    out.print(f"Opening {escape(request.model)}{first}")
    with out.status("opening"):
        opened = open_model(
            request.model,
            revision=request.revision,
            dtype=request.dtype,
            device=request.device,
            device_map=request.device_map,
            trust_remote_code=request.trust_remote_code,
        )
    notes = list(opened.notes)
    selection = request.selection()
    needs_text = request.data is None or request.data.suffix != ".npz"
    if opened.tokenizer is None and selection.kinds != ("weight",) and needs_text and not request.dry_run:
        problem = f"no tokenizer: {opened.tokenizer_problem}"
        if request.sites is not None or request.data is not None:
            raise CalibrationError(f"{problem}; use --sites weight, or --data with token ids in an .npz file")
        _refuse(request, _OF_TEXT, f"as this model has {problem}, and only weights can be scanned")
        selection = request.selection("weight")
        notes.append(f"only weights are scanned, {problem}")
    found = selection.apply(opened.model)
    sequences = None
    if selection.kinds != ("weight",) and not request.dry_run:
        sequences = _sequences(request, opened)
    _plan(out, request, opened.identity.id, found, sequences, f"{opened.device}, {opened.identity.dtype}")
    if request.dry_run:
        return found, None
    with bars_on(out) as progress:
        report = scanner.scan(
            opened.model,
            sequences,
            request.formats,
            found,
            batch_size=request.number("batch_size"),
            backend=request.backend,
            seed=request.number("seed"),
            thresholds=request.thresholds,
            identity=opened.identity,
            notes=notes,
            progress=progress,
        )
    return found, report


def _sequences(request: Request, opened: OpenModel) -> Sequences:
    return calibration.load_sequences(
        request.data,
        opened.tokenizer,
        text_column=request.text_column,
        samples=request.number("samples"),
        seq_len=request.number("seq_len"),
        seed=request.number("seed"),
        **text_limits(opened.model.config),
    )


def _refuse(request: Request, names: Sequence[str], when: str) -> None:
    refuse_unused({"--" + name.replace("_", "-"): getattr(request, name) for name in names}, when)


def _plan(out: Console, request: Request, name: str, found: SiteMap, sequences: Sequences | None, where: str) -> None:
    """What is about to happen, before it does."""
    counts = ", ".join(f"{len(found.of(kind))} {kind}s" for kind in KINDS if found.of(kind))
    out.print(f"Scanning [bold]{escape(name)}[/bold] ({where})")
    out.print(f"  formats  {', '.join(f.spec for f in request.formats)}")
    out.print(f"  sites    {counts}")
    if sequences is not None:
        count, length = sequences.token_ids.shape
        out.print(f"  tokens   {count * length} ({count} sequences of {length}) from {escape(sequences.source)}")
        if sequences.dropped:
            out.print(f"  dropped  {escape(sequences.dropped)}")


__all__ = ["Checkpoint", "Request", "run"]
