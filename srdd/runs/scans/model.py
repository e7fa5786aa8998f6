"""Error statistics of the tensors of a model in memory: joins sites, kernels and hooks into a report without costs.

Not here: the scan with costs, which users call (srdd.runs.scanning), opening models and texts (srdd.models.source,
srdd.runs.calibration), checkpoints without a model (checkpoint.py).

Worked number: SmolLM2 on 16 sequences of 512 tokens gives 211 weight sites, 121 input sites and 30 output sites for
each format.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from srdd import kernels
from srdd.core.formats import BlockFormat, parse_list
from srdd.core.verdicts import check_thresholds
from srdd.documents.parts import KINDS, Model, notes_on_units
from srdd.documents.report import Report
from srdd.documents.schema import Site as SiteRow
from srdd.errors import SettingError, SiteError
from srdd.kernels.seeds import generator_for
from srdd.models.faults import planted_in
from srdd.models.heads import config_of
from srdd.models.modules import require_module
from srdd.models.placement import present
from srdd.models.running import evaluating, explained, run
from srdd.models.selection import Selection
from srdd.models.sites import SiteMap
from srdd.models.wrapped import named_modules
from srdd.runs.calibration import Sequences
from srdd.runs.scans.rows import activation_row, report_of, weight_row
from srdd.runs.scans.tap import Tap
from srdd.runs.scans.weights import matrices_of, measure_matrices, zero_columns, zero_rows
from srdd.runs.setup import Progress, Run, open_run, silent
from srdd.runs.token_ids import batches_of


def scan_tensors(
    model: nn.Module,
    sequences: Tensor | Sequences | None = None,
    formats: str | BlockFormat | Sequence[str | BlockFormat] = "mxfp4",
    sites: str | Sequence[str] | Selection | SiteMap = KINDS,
    *,
    batch_size: int = 4,
    backend: str = "auto",
    seed: int = 0,
    thresholds: dict[str, float] | None = None,
    identity: Model | None = None,
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> Report:
    """What `scan` does without costs, with the same settings."""
    parsed = parse_list([formats] if isinstance(formats, str | BlockFormat) else formats)
    chosen = _sites_of(model, sites)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise SettingError("batch_size", repr(batch_size), "expected an integer from 1")
    check_thresholds(thresholds or {})
    opened = open_run(
        model,
        sequences,
        parsed,
        chosen,
        elements=lambda tokens: _elements(model, chosen, tokens),
        backend=backend,
        identity=identity,
    )
    rows = _scan_weights(model, opened, parsed, seed, progress)
    uncovered: list[str] = []
    if opened.calibration is not None:
        tap = _scan_activations(model, opened, parsed, opened.calibration.sequence_hashes, batch_size, seed, progress)
        uncovered = tap.idle()
        rows += [activation_row(result, parsed) for result in tap.results()]
        notes = [*notes, *_unseen(tap.without_pictures())]
    report = report_of(
        opened, rows, parsed, seed=seed, thresholds=thresholds, uncovered=uncovered, notes=[*notes, *planted_in(model)]
    )
    return report.model_copy(update={"warnings": [*report.warnings, *notes_on_units(opened.calibration)]})


def _unseen(modules: Sequence[str]) -> list[str]:
    """What a reader of a model with towers must know."""
    if not modules:
        return []
    return [
        f"{len(modules)} module(s) beside the text model do not run on text, so of their tensors only weights are "
        f"measured: {modules[0]} ..."
    ]


def _sites_of(model: nn.Module, sites: str | Sequence[str] | Selection | SiteMap) -> SiteMap:
    if not isinstance(sites, SiteMap):
        return (sites if isinstance(sites, Selection) else Selection.parse(sites)).apply(model)
    require_module(model)
    modules = dict(named_modules(model))
    strange = [site.name for site in sites.sites if site.module not in modules]
    if strange:
        raise SiteError(f"{len(strange)} site(s) are not in this model, e.g. {strange[0]}; find its own sites")
    return sites


def _scan_weights(
    model: nn.Module, opened: Run, formats: Sequence[BlockFormat], seed: int, progress: Progress
) -> list[SiteRow]:
    modules = dict(named_modules(model))
    sites = opened.sites.of("weight")
    total = sum(site.numel for site in sites)
    config = config_of(model)
    rows, done = [], 0
    for site in sites:
        module = modules[site.module]
        with torch.no_grad(), present(module):
            weight = getattr(module, site.parameter or "weight")
            matrices = matrices_of(module, site)
            vectors, order = measure_matrices(matrices, formats, name=site.name, seed=seed, backend=opened.backend)
            lines = partial(zero_rows, matrices_of(module, site)), partial(zero_columns, matrices_of(module, site))
            rows.append(weight_row(site, vectors, formats, tuple(weight.shape), lines, config, order))
        done += weight.numel()
        progress("weights", done, total)
    return rows


def _scan_activations(
    model: nn.Module,
    opened: Run,
    formats: Sequence[BlockFormat],
    keys: Sequence[str],
    batch_size: int,
    seed: int,
    progress: Progress,
) -> Tap:
    def measure(x: Tensor, site: str, names: Sequence[str]) -> Tensor:
        if not any(fmt.stochastic for fmt in formats):
            return kernels.measure_each(x, formats, backend=opened.backend)
        draws = [generator_for(formats, x.device, seed, site, name) for name in names]
        parts = zip(x, draws, strict=True)
        return torch.stack([kernels.measure_many(p, formats, generator=g, backend=opened.backend) for p, g in parts])

    # Rows routed to a single expert cannot be told apart by sequence, so such models run one sequence at a time.
    routed = any(site.routed for site in opened.sites.of("input"))
    batches = batches_of(opened.token_ids, 1 if routed else batch_size, opened.device)
    with (
        evaluating(model),
        explained(model, batches[0][:1]),
        Tap(model, opened.sites.sites, measure=measure) as tap,
        torch.no_grad(),
    ):
        done = 0
        for batch in batches:
            tap.begin(keys[done : done + len(batch)], batch.shape[1])
            run(model, batch)
            done += len(batch)
            progress("activations", done * batch.shape[1], opened.token_ids.numel())
    return tap


def _elements(model: nn.Module, sites: SiteMap, tokens: int) -> int:
    """How many values will be measured, about: inputs that turn out to be shared are counted more than once."""
    modules = dict(named_modules(model))
    weights = sum(site.numel for site in sites.of("weight"))
    hidden = int(getattr(getattr(model, "config", None), "hidden_size", 0) or 0)
    features = sum(int(getattr(modules[s.module], "in_features", hidden)) for s in sites.of("input"))
    return weights + tokens * (features + hidden * len(sites.of("output")))
