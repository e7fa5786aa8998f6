"""`measure_impact`: joins sweep, Linears and predictions into the costs of a report.

Not here: opening models and the terminal. Batches of sequences run one after the other; of each only sums and one
number per token remain, so logits of the whole set are never held. Quantized weights are kept for the run: one more
copy of the weights per format. Formats that round stochastically are measured again with every draw, one after another.

    report = measure_impact(model, sequences, ["mxfp4", "nvfp4"], how=("predicted", "layers"))
    report.costs.layers
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import get_args

import torch
from torch import Tensor, nn

from srdd.core.formats import BlockFormat
from srdd.core.metrics import BY_NAME, MAIN, as_error
from srdd.core.modes import MODES, Mode
from srdd.documents.costs import Costs, CostSettings, How
from srdd.documents.mean_of_draws import mean_of_draws
from srdd.documents.parts import KINDS, Model, Note, notes_on_units
from srdd.documents.report import Report
from srdd.documents.schema import Coverage, Settings
from srdd.errors import SettingError
from srdd.models.fake import EXCLUDE, left_out_by
from srdd.models.faults import planted_in
from srdd.models.quantizer import Quantizer
from srdd.models.running import evaluating
from srdd.models.selection import Selection
from srdd.models.sites import find_sites
from srdd.runs.calibration import Sequences
from srdd.runs.impact.fisher import Fisher
from srdd.runs.impact.linears import LinearErrors
from srdd.runs.impact.priced import expert_rows, group_rows, linear_rows, sensitivity_rows, unpriced_rows
from srdd.runs.impact.request import Request, Sensitive, chosen, formats_of
from srdd.runs.impact.rows import clean_row, measured_groups, swept_layers, whole_row
from srdd.runs.impact.subject import Subject, headless, subject_of
from srdd.runs.impact.sweep import Changes, Sweep, SweepResult, Variant, units_of
from srdd.runs.scans.model import scan_tensors
from srdd.runs.setup import Progress, Run, backend_used, open_loss_run, part_of, silent
from srdd.runs.token_ids import batches_of

Classic = dict[tuple[str, int], dict[str, float]]  # scores of a scan, by (format, layer): larger is worse


@dataclass(frozen=True)
class Measuring:
    """The tools of a run, each for all batches, and what they leave behind."""

    run: Run
    subject: Subject
    variants: list[Variant]
    sweep: Sweep
    errors: LinearErrors
    fisher: Fisher | None  # None: no prediction is asked for, or none is possible
    sequences: list[str]  # names of those at hand, by which stochastic rounding draws
    results: list[SweepResult]  # of the batches, in order


def measure_impact(
    model: nn.Module,
    sequences: Tensor | Sequences,
    formats: str | BlockFormat | Sequence[str | BlockFormat | None],
    modes: Mode | Sequence[Mode] = MODES,
    *,
    how: How | Sequence[How] = ("predicted",),
    sensitive: Sensitive | Sequence[Sensitive] = ("norm",),
    tokens_per_sequence: int = 64,
    label_samples: int = 1,
    batch_size: int = 1,
    exclude: str | Sequence[str] = (),
    default_exclude: Sequence[str] = EXCLUDE,
    noise: bool = False,
    draws: int | None = None,
    backend: str = "auto",
    seed: int = 0,
    identity: Model | None = None,
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> Report:
    """What each format costs, as a report with `costs` and no sites; None or "identity" is the control.

    `formats` is a list, or a text such as "mxfp4,nvfp4"; `sequences` is int64 [count, length] of at least 2 tokens.
    `how` asks for predicted KL, and for the measured KL of layers or fusion groups, each quantized alone; `sensitive`
    for what noise on norms (or Linears) costs. The errors of Linears are measured at `tokens_per_sequence` tokens, 0
    for all. `exclude` and `default_exclude` are those of fake_quantize. Formats that round stochastically get the mean
    and the spread over `draws`, 4 where it is not given.
    Predictions take the experts that a token goes to as they are: a changed routing costs more. Raises
    SrddError subclasses: SiteError for a model whose layers cannot be found, SettingError, CalibrationError,
    NonfiniteError.
    """
    request = Request(
        formats=formats_of(formats),
        modes=chosen("modes", modes, MODES),
        how=chosen("how", how, get_args(How)),
        sensitive=chosen("sensitive", sensitive, get_args(Sensitive)),
        tokens_per_sequence=tokens_per_sequence,
        label_samples=label_samples,
        batch_size=batch_size,
        exclude=left_out_by(exclude, default_exclude),
        noise=noise,
        backend=backend,
        seed=seed,
        draws=draws,
    )
    request.check()
    run = open_loss_run(model, sequences, request.real_formats, backend=backend, identity=identity)
    rounds = request.rounds()
    parts: list[Costs] = []
    with evaluating(model):
        measuring = _prepare(model, run, request, 0)
        classic = _scan_scores(model, run.token_ids, request)
        for draw, asked in enumerate(rounds):
            measuring = _prepare(model, run, asked, draw) if draw else measuring
            _run_batches(measuring, asked, part_of(progress, draw, len(rounds)))
            parts.append(_costs(measuring, asked, classic))
    costs = mean_of_draws(parts, [fmt.spec for fmt in request.drawn])
    return _report(measuring, request, costs, notes)


def _prepare(model: nn.Module, run: Run, request: Request, draw: int) -> Measuring:
    """All that is made once for all batches. Raises SiteError, SettingError."""
    names: list[str] = []
    subject = subject_of(model, run.sites, run.token_ids[:1].to(run.device), request.exclude)
    quantizers = [Quantizer(fmt, run.backend, request.seed, draw, kept={}, sequences=names) for fmt in request.formats]
    variants = [Variant(quantizer, mode) for quantizer in quantizers for mode in request.modes]
    if not subject.has_head and request.noise:
        raise SettingError("noise", None, f"{headless(model)}, and the noise control compares KLs; leave it out")
    if not subject.has_head and "groups" in request.how:
        raise SettingError("how", "groups", f"{headless(model)} to measure swaps of groups at")
    predicted = subject.has_head and "predicted" in request.how
    sweep = Sweep(
        subject.stack,
        variants,
        exclude=request.exclude,
        swap="layers" in request.how,
        units=units_of(subject.stack, subject.sites) if "groups" in request.how else (),
        noise=request.noise,
        keep_changes=predicted,
        seed=request.seed,
    )
    linears = [site.module for site in subject.linears]
    errors = LinearErrors(model, linears, quantizers, request.tokens_per_sequence)
    fisher = None
    if predicted:
        fisher = subject.fisher(quantizers, request.sensitive, label_samples=request.label_samples, seed=request.seed)
    return Measuring(run, subject, variants, sweep, errors, fisher, names, [])


def _scan_scores(model: nn.Module, token_ids: Tensor, request: Request) -> Classic:
    """The classic scores of a scan on the same tokens."""
    if not request.real_formats:
        return {}
    # a scan refuses a pattern that matches nothing, and a Linear that never runs (Mamba's dt_proj) if it is left in
    found = find_sites(model)
    inside = replace(found, sites=tuple(site for site in found.sites if site.layer is not None))
    matching = [glob for glob in request.exclude if any(fnmatchcase(site.name, glob) for site in inside.sites)]
    report = scan_tensors(
        model,
        token_ids,
        request.real_formats,
        Selection.parse(KINDS, exclude=matching).filter(inside),
        batch_size=request.batch_size,
        backend=request.backend,
        seed=request.seed,
    )
    scores: Classic = {}
    for row in report.layers:
        for spec, measured in row.formats.items():
            for name in MAIN:
                value = measured.value(name)
                if math.isfinite(value):
                    scores.setdefault((spec, row.layer), {})[f"{row.kind} {name}"] = as_error(BY_NAME[name], value)
    return scores


def _run_batches(measuring: Measuring, request: Request, progress: Progress) -> None:
    """One sweep a batch, and one more clean pass a sequence for the Linears' own errors, which gradients share."""
    batches = batches_of(measuring.run.token_ids, request.batch_size, measuring.run.device)
    assert measuring.run.calibration is not None, "a run of losses has tokens"
    names = iter(measuring.run.calibration.sequence_hashes)
    for done, batch in enumerate(batches):
        measuring.sequences[:] = mine = [next(names) for _ in batch]
        with torch.no_grad():
            result = measuring.sweep.run(batch)
        measuring.results.append(result)
        for at in range(len(batch)):
            measuring.sequences[:] = [mine[at]]
            changes = {key: change[at : at + 1] for key, change in result.changes.items()}
            _run_sequence(measuring, batch[at : at + 1], changes)
        result.changes.clear()
        progress("batches", done + 1, len(batches))


def _run_sequence(measuring: Measuring, token_ids: Tensor, changes: Changes) -> None:
    with measuring.errors.measuring(token_ids.shape[1]):
        if measuring.fisher is not None:
            measuring.fisher.run(token_ids, changes)
            return
        with torch.no_grad():
            measuring.subject.stack.visit(token_ids, lambda call: call.output(call.hidden))


def _costs(measuring: Measuring, request: Request, classic: Classic) -> Costs:
    run, subject, results, fisher = measuring.run, measuring.subject, measuring.results, measuring.fisher
    tokens = run.token_ids.shape[1] - 1
    specs = ["identity" if fmt is None else fmt.spec for fmt in request.formats]
    scores = fisher.scores if fisher else None
    layers = swept_layers(subject.stack.names, measuring.variants, results, scores, tokens, classic)
    moved = {(row.format, row.mode) for row in layers if row.cumulative is not None and row.cumulative.value}
    whole = [
        whole_row(*variant.key, [r.whole[variant.key] for r in results], moved=variant.key in moved)
        for variant in measuring.variants
        if subject.has_head
    ]
    assert run.calibration is not None, "a run of losses has tokens"
    return Costs(
        settings=CostSettings(
            formats=specs,
            modes=request.modes,
            how=[how for how in request.how if subject.has_head or how == "layers"],
            calibration=run.calibration,
            label_samples=request.label_samples,
            tokens_per_sequence=request.tokens_per_sequence,
            exclude=request.exclude,
            left_out=list(subject.left_out),
            noise_control=request.noise,
            sensitive=request.sensitive if fisher else [],
            seed=request.seed,
            backend=backend_used(run.backend)[0],
        ),
        clean=clean_row([result.reference for result in results]) if subject.has_head else None,
        whole=whole,
        layers=layers,
        groups=group_rows(subject, specs, fisher, tokens, measured_groups(results)),
        linears=linear_rows(subject, specs, fisher, tokens, measuring.errors.results),
        experts=expert_rows(subject, specs, fisher, tokens) if fisher else [],
        sensitivities=sensitivity_rows(subject, fisher, tokens) if fisher else [],
        unpriced=unpriced_rows(subject, fisher) if fisher else [],
    )


def _report(measuring: Measuring, request: Request, costs: Costs, notes: Sequence[str]) -> Report:
    run, model = measuring.run, measuring.subject.stack.model
    no_head = f"{headless(model)}: errors of outputs are measured, no loss and no KL"
    return Report(
        model=run.identity,
        settings=Settings(
            formats=costs.settings.formats,
            kinds=[],
            seed=request.seed,
            backend_reason=backend_used(run.backend)[1],
            thresholds={},
            **run.settings(),
        ),
        coverage=Coverage(parameters=run.sites.parameters, measured=0),
        sites=[],
        costs=costs,
        warnings=[
            *map(Note, [*notes, *planted_in(model)]),
            *([] if measuring.subject.has_head else [Note(no_head)]),
            *notes_on_units(run.calibration),
        ],
        provenance=run.provenance(),
    )
