"""`measure_impact`: joins sweep, Linears and Fisher scores into one document.

Not here: opening models and the terminal. Batches of sequences run one after the other; of each only sums and one
number per token remain, so logits of the whole set are never held. Quantized weights are kept for the run: one more
copy of the weights per format.

    impact = measure_impact(model, sequences, ["mxfp4", "nvfp4"], attribute=("gradient", "swap"))
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from srdd import kernels
from srdd.core.formats import BlockFormat, parse
from srdd.core.metrics import BY_NAME, MAIN, as_error
from srdd.core.modes import MODES, Mode
from srdd.documents.impact import Impact, ImpactSettings
from srdd.documents.report import Report
from srdd.documents.schema import KINDS, Model
from srdd.errors import CalibrationError, OptionError
from srdd.kernels.selfcheck import checked, values_differ
from srdd.models.fake import EXCLUDE, Quantizer, fake_quantize
from srdd.models.placement import device_of, dtype_of, refuse_nonfinite
from srdd.models.running import evaluating, explained
from srdd.models.selection import Selection
from srdd.models.sites import Site, find_sites
from srdd.models.stack import LayerStack, logits_of
from srdd.runs.calibration import Sequences
from srdd.runs.impact.fisher import Fisher
from srdd.runs.impact.linears import LinearErrors
from srdd.runs.impact.rows import (
    group_sums,
    group_swaps,
    linear_row,
    reference_row,
    rows_of_layers,
    whole_row,
)
from srdd.runs.impact.sweep import Sweep, SweepResult, Unit, Variant
from srdd.runs.scans import model as scanner
from srdd.runs.setup import (
    identify,
    provenance,
    token_ids_of,
    used,
    versions,
)

Attribute = Literal["gradient", "swap", "swap-groups"]
Progress = Callable[[str, int, int], None]
T = TypeVar("T")


def measure_impact(
    model: nn.Module,
    sequences: Tensor | Sequences,
    formats: str | BlockFormat | Sequence[str | BlockFormat | None],
    modes: Mode | Sequence[Mode] = MODES,
    *,
    attribute: Attribute | Sequence[Attribute] = ("gradient",),
    rows: int = 64,
    label_samples: int = 1,
    batch_size: int = 1,
    exclude: str | Sequence[str] = EXCLUDE,
    noise: bool = False,
    backend: str = "auto",
    seed: int = 0,
    identity: Model | None = None,
    notes: Sequence[str] = (),
    progress: Progress = lambda stage, done, total: None,
) -> Impact:
    """What each format costs; None or "identity" among `formats` is the control, which changes nothing.

    `formats` is a list, or a text such as "mxfp4,nvfp4"; `sequences` is int64 [count, length] of at least 2 tokens.
    Raises SrddError subclasses: SiteError for a model whose layers cannot be found, OptionError, CalibrationError.
    """
    started = time.monotonic()
    modes, attribute = _chosen("mode", modes, MODES), _chosen("attribute", attribute, get_args(Attribute))
    if label_samples < 1 or batch_size < 1 or rows < 0:
        raise OptionError("label samples and batch size: expected at least 1; rows: 0 (all) or more")
    if label_samples > 1 and "gradient" not in attribute:
        raise OptionError("label samples have no effect without the attribution gradient")
    listed = (
        [formats] if isinstance(formats, BlockFormat) else formats.split(",") if isinstance(formats, str) else formats
    )
    parsed = [
        None if fmt is None or (isinstance(fmt, str) and fmt.strip() == "identity") else parse(fmt) for fmt in listed
    ]
    if not parsed:
        raise OptionError("no format given; expected e.g. mxfp4, or identity for the control")
    ids, calibration = token_ids_of(sequences, model)
    if ids.shape[1] < 2:
        raise CalibrationError(f"sequences of {ids.shape[1]} token(s) predict nothing; expected at least 2 tokens")
    stack = LayerStack(model)
    refuse_nonfinite(model)
    device = device_of(model)
    real = [f for f in parsed if f is not None]
    sites = find_sites(model, ("weight", "input"))
    work = sum(s.numel for s in sites.of("weight")) * len(ids)
    chosen = kernels.choose(backend, elements=work, formats=real, device=device)
    chosen = checked(chosen, real, device, dtype_of(model), values_differ)
    quantizers = [Quantizer(fmt, chosen, seed, kept={}) for fmt in parsed]
    variants = [Variant(q, mode) for q in quantizers for mode in modes]
    exclude = [exclude] if isinstance(exclude, str) else list(exclude)
    handle = fake_quantize(model, quantizers[0], exclude=exclude)
    inside = [s for s in sites.of("input") if s.module in handle.modules and s.layer is not None]
    linears = [s for s in inside if s.role != "experts"]
    names = [s.module for s in linears]
    warnings = list(notes)

    batches = [ids[i : i + batch_size] for i in range(0, len(ids), batch_size)]
    with evaluating(model):
        with explained(model, ids[:1].to(device)):
            has_head = _has_head(stack, ids, device)
        if not has_head:
            name = type(model).__name__
            warnings.append(f"{name} has no language-model head: errors of outputs are measured, no loss and no KL")
            if noise:
                raise OptionError(
                    f"{name} has no language-model head, and the noise control compares KLs; leave it out"
                )
        if "swap-groups" in attribute and not has_head:
            raise OptionError(f"{type(model).__name__} has no language-model head to measure swaps of groups at")
        scores = _scan_scores(model, ids, real, exclude, batch_size, backend, seed)
        gradient = has_head and "gradient" in attribute
        fisher = Fisher(stack, names, quantizers, label_samples=label_samples, seed=seed)
        errors = LinearErrors(model, names, quantizers, rows)
        sweep = Sweep(
            stack,
            variants,
            exclude=exclude,
            swap="swap" in attribute,
            units=_units(stack, inside) if "swap-groups" in attribute else (),
            noise=has_head and noise,
            keep_changes=gradient,
            seed=seed,
        )
        results: list[SweepResult] = []
        for done, batch in enumerate(batches):
            batch = batch.to(device)
            with torch.no_grad():
                results.append(sweep.run(batch))
            with errors.measuring(batch.shape):  # on the one clean pass that there is
                if gradient:
                    fisher.run(batch, results[-1].changes)
                    results[-1].changes.clear()
                else:
                    with torch.no_grad():
                        stack.visit(batch, lambda call: call.output(call.hidden))
            progress("batches", done + 1, len(batches))
    skipped = sorted(fisher.skipped | errors.skipped)
    if skipped:
        warnings.append(
            f"{len(skipped)} Linear(s) read rows of no one sequence and have no row of their own: {skipped[0]} ..."
        )

    tokens = ids.shape[1] - 1
    predicted = fisher.modules if gradient else {}
    linear_rows = [
        linear_row(site, q.name, errors.results[q.name, site.module], predicted, tokens)
        for q in quantizers
        for site in linears
        if (q.name, site.module) in errors.results
    ]
    layer_rows = rows_of_layers(stack.names, variants, results, fisher if gradient else None, tokens, scores)
    return Impact(
        model=identity or identify(model, sites),
        settings=ImpactSettings(
            formats=[q.name for q in quantizers],
            points=list(modes),
            calibration=calibration,
            attribute=[a for a in attribute if has_head or a == "swap"],
            label_samples=label_samples,
            rows=rows,
            exclude=list(exclude),
            left_out=list(handle.left_out),
            noise=noise,
            seed=seed,
            device=device.type,
            dtype=str(dtype_of(model)).removeprefix("torch."),
            backend=used(chosen)[0],
            versions=versions(),
        ),
        reference=reference_row(results) if has_head else None,
        whole=[whole_row(variant, results, layer_rows) for variant in variants] if has_head else [],
        layers=layer_rows,
        linears=linear_rows,
        groups=group_sums(linear_rows),
        group_swaps=group_swaps(results),
        warnings=warnings,
        provenance=provenance(started),
    )


def _chosen(what: str, given: str | Sequence[T], known: Sequence[T]) -> list[T]:
    """One name or several, told before the run and not after it. Raises OptionError."""
    names: list[Any] = [given] if isinstance(given, str) else list(given)
    if not set(names) <= set(known):
        raise OptionError(f"{what} {', '.join(map(repr, names))}: expected some of {', '.join(map(str, known))}")
    return names


def _units(stack: LayerStack, sites: Sequence[Site]) -> list[Unit]:
    """The fusion groups of every layer, in order; a Linear that is fused with nothing stands alone."""
    members: dict[tuple[str, int], list[str]] = {}
    for site in sites:
        layer = next((i for i, name in enumerate(stack.names) if site.module.startswith(f"{name}.")), None)
        if layer is not None:
            members.setdefault((site.group or site.module, layer), []).append(site.module)
    return [Unit(name, layer, tuple(modules)) for (name, layer), modules in members.items()]


def _has_head(stack: LayerStack, ids: Tensor, device: torch.device) -> bool:
    with torch.no_grad():
        output = stack.visit(ids[:1, :2].to(device), lambda call: call.output(call.hidden))
    return logits_of(output) is not None


def _scan_scores(
    model: nn.Module,
    ids: Tensor,
    formats: Sequence[BlockFormat],
    exclude: Sequence[str],
    batch_size: int,
    backend: str,
    seed: int,
) -> dict[tuple[str, int], dict[str, float]]:
    """The classic scores of a scan on the same tokens, by (format, layer), larger is worse."""
    if not formats:
        return {}
    # a scan refuses a pattern that matches nothing, and a Linear that never runs (Mamba's dt_proj) if it is left in
    names = [site.name for site in find_sites(model).sites]
    matching = [pattern for pattern in exclude if any(fnmatchcase(name, pattern) for name in names)]
    selection = Selection.parse(KINDS, exclude=matching)
    report: Report = scanner.scan(
        model, ids, list(formats), selection, batch_size=batch_size, backend=backend, seed=seed
    )
    found: dict[tuple[str, int], dict[str, float]] = {}
    for row in report.layers:
        for spec, measured in row.formats.items():
            for name in MAIN:
                value = measured.value(name)
                if math.isfinite(value):
                    found.setdefault((spec, row.layer), {})[f"{row.kind} {name}"] = as_error(BY_NAME[name], value)
    return found
