"""The scan: the one function that joins sites, kernels and tap into a report.

Not here: opening models and data (source.py, calibration.py) and the terminal. `scan` measures a model in memory,
`scan_checkpoint` the weights of a checkpoint without building a model.

    report = srdd.scan(model, token_ids, quant="mxfp4,nvfp4")      # token_ids: [sequences, length]
    report.save("srdd-report.json")

Worked number: SmolLM2 on 16 sequences of 512 tokens gives 211 weight sites, 121 input sites and 30 output sites for
each format.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from srdd import kernels
from srdd.core.formats import BlockFormat, parse_list
from srdd.core.verdicts import CLASSIC, check_thresholds
from srdd.documents.report import Report, in_order
from srdd.documents.schema import KINDS, Coverage, Model, Note, Settings
from srdd.documents.schema import Site as SiteRow
from srdd.errors import OptionError
from srdd.kernels.backend import Backend
from srdd.kernels.seeds import generator_for
from srdd.kernels.selfcheck import checked
from srdd.models.placement import device_of, dtype_of, present
from srdd.models.running import evaluating, explained, run
from srdd.models.selection import Selection
from srdd.models.sites import SiteMap
from srdd.runs.calibration import Sequences
from srdd.runs.scans.rows import activation_row, warnings_for, weight_row
from srdd.runs.scans.tap import Tap
from srdd.runs.scans.weights import matrices_of, measure_matrices
from srdd.runs.setup import (
    Progress,
    _silent,
    device_name,
    identify,
    provenance,
    token_ids_of,
    used,
    versions,
)


def scan(
    model: nn.Module,
    sequences: Tensor | Sequences | None = None,
    quant: str | BlockFormat | Sequence[str | BlockFormat] = "mxfp4",
    sites: str | Sequence[str] | Selection = KINDS,
    *,
    batch_size: int = 4,
    backend: str = "auto",
    seed: int = 0,
    thresholds: dict[str, float] | None = None,
    identity: Model | None = None,
    notes: Sequence[str] = (),
    progress: Progress = _silent,
) -> Report:
    """Measure weights, Linear inputs and layer outputs of `model` under every format of `quant` in one pass.

    `sequences` is int64 [count, length] without padding, needed for activations; each row is one unit of the standard
    errors. The model runs as it is, in eval mode and without gradients; every module's own mode is restored.
    `thresholds` stands in place of the classic limits, by metric, ratios as 0.1 for 10 %; `seed` is that of stochastic
    rounding. Raises SrddError subclasses: FormatError, SiteError, OptionError, CalibrationError, BackendError,
    TensorError.
    """
    started = time.monotonic()
    formats = parse_list([quant] if isinstance(quant, str | BlockFormat) else quant)
    selection = sites if isinstance(sites, Selection) else Selection.parse(sites)
    found = selection.apply(model)
    token_ids, calibration = None, None
    if any(s.kind != "weight" for s in found.sites):
        token_ids, calibration = token_ids_of(sequences, model)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"batch size {batch_size!r}: expected an integer from 1")
    check_thresholds(thresholds or {})
    device = device_of(model)
    tokens = 0 if token_ids is None else token_ids.numel()
    chosen = kernels.choose(backend, elements=_elements(model, found, tokens), formats=formats, device=device)
    chosen = checked(chosen, formats, device, dtype_of(model))

    rows = _scan_weights(model, found, formats, seed, chosen, progress)
    uncovered: list[str] = []
    if token_ids is not None and calibration is not None:
        tap = _scan_activations(
            model, found, formats, token_ids, calibration.sequence_hashes, batch_size, seed, chosen, progress
        )
        uncovered = tap.idle()
        rows += [activation_row(result, formats) for result in tap.results()]
    backend_used, reason = used(chosen)
    report = Report(
        model=identity or identify(model, found),
        settings=Settings(
            formats=[f.spec for f in formats],
            kinds=list(selection.kinds),
            selection=selection.text,
            calibration=calibration,
            seed=seed,
            device=device_name(device),
            dtype=str(dtype_of(model)).removeprefix("torch."),
            backend=backend_used,
            backend_reason=reason,
            thresholds=thresholds or dict(CLASSIC),
            versions=versions(),
        ),
        coverage=Coverage(
            parameters=found.parameters,
            measured=found.parameters - sum(s.parameters for s in found.skipped),
            skipped=list(found.skipped),
            uncovered=uncovered,
        ),
        sites=rows,
        warnings=[*map(Note, notes), *warnings_for(rows, uncovered)],
        provenance=provenance(started),
    )
    return in_order(report)


def _scan_weights(
    model: nn.Module, found: SiteMap, formats: Sequence[BlockFormat], seed: int, backend: Backend, progress: Progress
) -> list[SiteRow]:
    modules = dict(model.named_modules())
    sites = found.of("weight")
    total = sum(site.numel for site in sites)
    rows, done = [], 0
    for site in sites:
        module = modules[site.module]
        with torch.no_grad(), present(module):
            weight = getattr(module, site.parameter or "weight")
            vectors = measure_matrices(matrices_of(module, site), formats, name=site.name, seed=seed, backend=backend)
        rows.append(weight_row(site, vectors, formats, tuple(weight.shape)))
        done += weight.numel()
        progress("weights", done, total)
    return rows


def _scan_activations(
    model: nn.Module,
    found: SiteMap,
    formats: Sequence[BlockFormat],
    token_ids: Tensor,
    keys: Sequence[str],
    batch_size: int,
    seed: int,
    backend: Backend,
    progress: Progress,
) -> Tap:
    device = device_of(model)

    def measure(x: Tensor, site: str, names: Sequence[str]) -> Tensor:
        if not any(fmt.stochastic for fmt in formats):
            return kernels.measure_each(x, formats, backend=backend)
        draws = [generator_for(formats, x.device, seed, site, name) for name in names]
        parts = zip(x, draws, strict=True)
        return torch.stack([kernels.measure_many(p, formats, generator=g, backend=backend) for p, g in parts])

    # Rows routed to a single expert cannot be told apart by sequence, so such models run one sequence at a time.
    routed = any(site.may_be_idle and site.role != "experts" for site in found.of("input"))
    step = 1 if routed else batch_size
    once = token_ids[:1].to(device)
    with (
        evaluating(model),
        explained(model, once),
        Tap(model, found.sites, measure=measure) as tap,
        torch.no_grad(),
    ):
        for start in range(0, len(token_ids), step):
            tap.begin(keys[start : start + step])
            run(model, token_ids[start : start + step].to(device))
            progress("activations", min(start + step, len(token_ids)) * token_ids.shape[1], token_ids.numel())
    return tap


def _elements(model: nn.Module, found: SiteMap, tokens: int) -> int:
    """How many values will be measured, about: inputs that turn out to be shared are counted more than once."""
    modules = dict(model.named_modules())
    weights = sum(site.numel for site in found.of("weight"))
    hidden = int(getattr(getattr(model, "config", None), "hidden_size", 0) or 0)
    features = sum(int(getattr(modules[s.module], "in_features", hidden)) for s in found.of("input"))
    return weights + tokens * (features + hidden * len(found.of("output")))
