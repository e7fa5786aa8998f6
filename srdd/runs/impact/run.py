"""`measure_impact`: joins sweep, Linears and Fisher scores into one document.

Not here: opening models and the terminal. Batches of sequences run one after the other; of each only sums and one
number per token remain, so logits of the whole set are never held. Quantized weights are kept for the run: one more
copy of the weights per format.

    impact = measure_impact(model, sequences, ["mxfp4", "nvfp4"], attribute=("gradient", "swap"))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import get_args

import torch
from torch import Tensor, nn

from srdd.core.formats import BlockFormat
from srdd.core.metrics import BY_NAME, MAIN, as_error
from srdd.core.modes import MODES, Mode
from srdd.documents.opening import document_of
from srdd.documents.parts import KINDS, Model, Note
from srdd.documents.report import Report
from srdd.errors import SettingError
from srdd.models.fake import EXCLUDE, Quantizer, fake_quantize
from srdd.models.running import evaluating, explained
from srdd.models.selection import Selection
from srdd.models.sites import Site, find_sites
from srdd.models.stack import LayerStack, logits_of
from srdd.runs.calibration import Sequences
from srdd.runs.impact.as_version_1 import Impact, ImpactSettings
from srdd.runs.impact.fisher import Fisher
from srdd.runs.impact.linears import LinearErrors
from srdd.runs.impact.request import Attribute, Request, chosen, formats_of
from srdd.runs.impact.rows import (
    group_sums,
    group_swaps,
    linear_row,
    reference_row,
    rows_of_layers,
    whole_row,
)
from srdd.runs.impact.sweep import Sweep, SweepResult, Variant, units_of
from srdd.runs.scans.model import scan
from srdd.runs.setup import Progress, Run, open_loss_run, silent
from srdd.runs.token_ids import batches_of

Scores = dict[tuple[str, int], dict[str, float]]  # of a scan, by (format, layer): larger is worse


@dataclass(frozen=True)
class Measuring:
    """The tools of a run, each for all batches, and what they leave behind."""

    run: Run
    stack: LayerStack
    has_head: bool  # a language-model head, without which there is no loss and no KL
    linears: list[Site]
    left_out: tuple[str, ...]
    variants: list[Variant]
    sweep: Sweep
    errors: LinearErrors
    fisher: Fisher | None  # None: no prediction is asked for, or none is possible
    results: list[SweepResult]  # of the batches, in order


def measure_impact(
    model: nn.Module,
    sequences: Tensor | Sequences,
    formats: str | BlockFormat | Sequence[str | BlockFormat | None],
    modes: Mode | Sequence[Mode] = MODES,
    *,
    attribute: Attribute | Sequence[Attribute] = ("gradient",),
    tokens_per_sequence: int = 64,
    label_samples: int = 1,
    batch_size: int = 1,
    exclude: str | Sequence[str] = EXCLUDE,
    noise: bool = False,
    backend: str = "auto",
    seed: int = 0,
    identity: Model | None = None,
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> Report:
    """What each format costs; None or "identity" among `formats` is the control, which changes nothing.

    `formats` is a list, or a text such as "mxfp4,nvfp4"; `sequences` is int64 [count, length] of at least 2 tokens;
    the errors of Linears are measured at `tokens_per_sequence` tokens, 0 for all. Raises SrddError subclasses:
    SiteError for a model whose layers cannot be found, SettingError, CalibrationError, NonfiniteError.
    """
    request = Request(
        formats=formats_of(formats),
        modes=chosen("modes", modes, MODES),
        attribute=chosen("attribute", attribute, get_args(Attribute)),
        tokens_per_sequence=tokens_per_sequence,
        label_samples=label_samples,
        batch_size=batch_size,
        exclude=[exclude] if isinstance(exclude, str) else list(exclude),
        noise=noise,
        backend=backend,
        seed=seed,
    )
    request.check()
    run = open_loss_run(model, sequences, request.real_formats, backend=backend, identity=identity)
    with evaluating(model):
        measuring = _prepare(model, run, request)
        scores = _scan_scores(model, run.token_ids, request)
        _run_batches(measuring, request, progress)
    return _assemble(measuring, request, scores, notes)


def _prepare(model: nn.Module, run: Run, request: Request) -> Measuring:
    """All that is made once for all batches. Raises SiteError, SettingError."""
    stack = LayerStack(model)
    quantizers = [Quantizer(fmt, run.backend, request.seed, kept={}) for fmt in request.formats]
    variants = [Variant(quantizer, mode) for quantizer in quantizers for mode in request.modes]
    handle = fake_quantize(model, quantizers[0], exclude=request.exclude)
    inside = [s for s in run.sites.of("input") if s.module in handle.modules and s.layer is not None]
    linears = [s for s in inside if s.role != "experts"]
    names = [s.module for s in linears]
    has_head = _has_head(stack, run)
    if not has_head and request.noise:
        raise SettingError("noise", None, f"{_headless(model)}, and the noise control compares KLs; leave it out")
    if not has_head and "swap-groups" in request.attribute:
        raise SettingError("attribute", "swap-groups", f"{_headless(model)} to measure swaps of groups at")
    gradient = has_head and "gradient" in request.attribute
    sweep = Sweep(
        stack,
        variants,
        exclude=request.exclude,
        swap="swap" in request.attribute,
        units=units_of(stack, inside) if "swap-groups" in request.attribute else (),
        noise=request.noise,
        keep_changes=gradient,
        seed=request.seed,
    )
    errors = LinearErrors(model, names, quantizers, request.tokens_per_sequence)
    fisher = Fisher(stack, names, quantizers, label_samples=request.label_samples, seed=request.seed)
    return Measuring(
        run, stack, has_head, linears, handle.left_out, variants, sweep, errors, fisher if gradient else None, []
    )


def _headless(model: nn.Module) -> str:
    return f"{type(model).__name__} has no language-model head"


def _has_head(stack: LayerStack, run: Run) -> bool:
    ids = run.token_ids[:1].to(run.device)
    with explained(stack.model, ids), torch.no_grad():
        output = stack.visit(ids[:, :2], lambda call: call.output(call.hidden))
    return logits_of(output) is not None


def _scan_scores(model: nn.Module, token_ids: Tensor, request: Request) -> Scores:
    """The classic scores of a scan on the same tokens."""
    if not request.real_formats:
        return {}
    # a scan refuses a pattern that matches nothing, and a Linear that never runs (Mamba's dt_proj) if it is left in
    sites = find_sites(model)
    matching = [glob for glob in request.exclude if any(fnmatchcase(site.name, glob) for site in sites.sites)]
    report = scan(
        model,
        token_ids,
        request.real_formats,
        Selection.parse(KINDS, exclude=matching).filter(sites),
        batch_size=request.batch_size,
        backend=request.backend,
        seed=request.seed,
    )
    scores: Scores = {}
    for row in report.layers:
        for spec, measured in row.formats.items():
            for name in MAIN:
                value = measured.value(name)
                if math.isfinite(value):
                    scores.setdefault((spec, row.layer), {})[f"{row.kind} {name}"] = as_error(BY_NAME[name], value)
    return scores


def _run_batches(measuring: Measuring, request: Request, progress: Progress) -> None:
    """One sweep a batch, and one more clean pass for the Linears' own errors, which gradients share."""
    run, stack, fisher = measuring.run, measuring.stack, measuring.fisher
    batches = batches_of(run.token_ids, request.batch_size, run.device)
    for done, batch in enumerate(batches):
        with torch.no_grad():
            result = measuring.sweep.run(batch)
        measuring.results.append(result)
        with measuring.errors.measuring(batch.shape):
            if fisher is not None:
                fisher.run(batch, result.changes)
                result.changes.clear()
            else:
                with torch.no_grad():
                    stack.visit(batch, lambda call: call.output(call.hidden))
        progress("batches", done + 1, len(batches))


def _assemble(measuring: Measuring, request: Request, scores: Scores, notes: Sequence[str]) -> Report:
    run, results, fisher = measuring.run, measuring.results, measuring.fisher
    tokens = run.token_ids.shape[1] - 1
    specs = ["identity" if fmt is None else fmt.spec for fmt in request.formats]
    linears = [
        linear_row(site, spec, measuring.errors.results[spec, site.module], fisher.modules if fisher else {}, tokens)
        for spec in specs
        for site in measuring.linears
        if (spec, site.module) in measuring.errors.results
    ]
    layers = rows_of_layers(measuring.stack.names, measuring.variants, results, fisher, tokens, scores)
    made = Impact(
        model=run.identity,
        settings=ImpactSettings(
            formats=specs,
            points=request.modes,
            attribute=[a for a in request.attribute if measuring.has_head or a == "swap"],
            label_samples=request.label_samples,
            rows=request.tokens_per_sequence,
            exclude=request.exclude,
            left_out=list(measuring.left_out),
            noise=request.noise,
            seed=request.seed,
            **run.settings(),
        ),
        reference=reference_row(results) if measuring.has_head else None,
        whole=[whole_row(variant, results, layers) for variant in measuring.variants] if measuring.has_head else [],
        layers=layers,
        linears=linears,
        groups=group_sums(linears),
        group_swaps=group_swaps(results),
        warnings=[*notes, *_warnings(measuring)],
        provenance=run.provenance(),
    )
    report = document_of(made.model_dump(mode="json", exclude_none=True), Report)
    return report.model_copy(update={"warnings": [Note(text) for text in made.warnings]})


def _warnings(measuring: Measuring) -> list[str]:
    warnings = []
    if not measuring.has_head:
        no_head = _headless(measuring.stack.model)
        warnings.append(f"{no_head}: errors of outputs are measured, no loss and no KL")
    skipped = sorted(measuring.errors.skipped | (measuring.fisher.skipped if measuring.fisher else set()))
    if skipped:
        warnings.append(
            f"{len(skipped)} Linear(s) read rows of no one sequence and have no row of their own: {skipped[0]} ..."
        )
    return warnings
