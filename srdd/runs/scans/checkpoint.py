"""The scan of a checkpoint's weights: row chunks, no model built, bounded memory.

Not here: reading files (srdd.models.files) and models in memory (model.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import torch

from srdd.core.formats import BlockFormat, parse_list
from srdd.documents.report import Report
from srdd.models.adapted_files import AdaptedFiles
from srdd.models.checkpoint_sites import checkpoint_sites, matrices_from
from srdd.models.files.checkpoint import Checkpoint
from srdd.models.selection import Selection
from srdd.models.sites import SiteMap
from srdd.runs.scans.rows import report_of, weight_row
from srdd.runs.scans.survival import adapter_part
from srdd.runs.scans.weights import measure_matrices, zero_columns, zero_rows
from srdd.runs.setup import Progress, Run, kernel_for, silent


def scan_checkpoint(
    checkpoint: Checkpoint | AdaptedFiles,
    formats: str | BlockFormat | Sequence[str | BlockFormat] = "mxfp4",
    sites: str | Sequence[str] | Selection | SiteMap = "weight",
    *,
    backend: str = "auto",
    seed: int = 0,
    thresholds: dict[str, float] | None = None,
    progress: Progress = silent,
) -> Report:
    """Measure the weights of a safetensors checkpoint under every format, without building a model.

    `sites` are weights only, or what a Selection found in this checkpoint. With an adapter on it the report says how
    much of that survives, too. Raises SrddError subclasses as `scan` does.
    """
    parsed = parse_list([formats] if isinstance(formats, str | BlockFormat) else formats)
    adapted = checkpoint if isinstance(checkpoint, AdaptedFiles) else None
    checkpoint = checkpoint.checkpoint if isinstance(checkpoint, AdaptedFiles) else checkpoint
    read = partial(matrices_from, checkpoint) if adapted is None else adapted.matrices
    run = open_files(checkpoint, parsed, sites_of(checkpoint, sites, adapted), backend)
    sizes = {site.name: site.numel for site in run.sites.sites}
    rows, done = [], 0
    for site in run.sites.sites:
        vectors, order = measure_matrices(read(site), parsed, name=site.name, seed=seed, backend=run.backend)
        lines = (
            partial(zero_rows, read(site)),
            partial(zero_columns, read(site)),
        )
        rows.append(weight_row(site, vectors, parsed, site.shape, lines, checkpoint.config, order))
        done += sizes[site.name]
        progress("weights", done, sum(sizes.values()))
    part = None
    if adapted is not None:
        pairs = adapted.pairs(run.sites)
        part = adapter_part(adapted.adapter, adapted.form, pairs, parsed, backend=backend, seed=seed, progress=progress)
    notes = (*checkpoint.notes, *_fewer_layers(checkpoint, run.sites), *_own_names(checkpoint, run.sites))
    report = report_of(run, rows, parsed, seed=seed, thresholds=thresholds, notes=notes)
    return report.model_copy(update={"adapter": part})


def _own_names(checkpoint: Checkpoint, sites: SiteMap) -> tuple[str, ...]:
    """A note where a model is promised and its names could not be had, so that a scan of it may not compare."""
    if sites.architecture is not None or not checkpoint.config.get("architectures"):
        return ()
    return (
        "names and layer numbers are those of the files, since no model of transformers fits them; a scan of the "
        "opened model may have others",
    )


def _fewer_layers(checkpoint: Checkpoint, sites: SiteMap) -> tuple[str, ...]:
    """A note on layers that the config promises and no tensor is of. Without a model nothing else notices."""
    promised = checkpoint.identity.layer_count
    if not isinstance(promised, int) or promised <= sites.layer_count:
        return ()
    return (f"config.json says {promised} layers, and the files hold weights of {sites.layer_count}",)


def sites_of(
    checkpoint: Checkpoint,
    sites: str | Sequence[str] | Selection | SiteMap,
    adapted: AdaptedFiles | None = None,
) -> SiteMap:
    """The sites that were chosen, found in this checkpoint unless they are at hand."""
    if isinstance(sites, SiteMap):
        return sites
    selection = sites if isinstance(sites, Selection) else Selection.parse(sites)
    return selection.filter(checkpoint_sites(checkpoint) if adapted is None else adapted.sites)


def open_files(checkpoint: Checkpoint, formats: Sequence[BlockFormat], sites: SiteMap, backend: str) -> Run:
    """A run on files: numbers as they are stored, on the CPU."""
    started, device = time.monotonic(), torch.device("cpu")
    values = sum(site.numel for site in sites.sites)
    dtype = checkpoint.tensors[sites.sites[0].stored[0]].torch_dtype
    as_opened = (
        {"architecture": sites.architecture, "parameter_count": sites.parameters - sites.beside}
        if sites.architecture
        else {}
    )
    depth = sites.layer_count if as_opened else max(checkpoint.identity.layer_count or 0, sites.layer_count) or None
    return Run(
        identity=checkpoint.identity.model_copy(update={"layer_count": depth, **as_opened}),
        sites=sites,
        token_ids=torch.empty(0, 0, dtype=torch.int64, device=device),
        calibration=None,
        device=device,
        dtype=checkpoint.identity.dtype or "as stored",
        backend=kernel_for(backend, formats, values, device, dtype),
        started=started,
    )
