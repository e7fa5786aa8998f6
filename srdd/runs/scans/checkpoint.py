"""The scan of a checkpoint's weights: row chunks, no model built, memory bounded.

Not here: reading files (srdd.models.files) and models in memory (model.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from srdd import kernels
from srdd.core.formats import BlockFormat, parse_list
from srdd.core.verdicts import CLASSIC
from srdd.documents.report import Report, in_order
from srdd.documents.schema import Coverage, Note, Settings
from srdd.kernels.selfcheck import checked
from srdd.models.checkpoint_sites import checkpoint_sites, matrices_from
from srdd.models.files.checkpoint import Checkpoint
from srdd.models.selection import Selection
from srdd.runs.scans.rows import warnings_for, weight_row
from srdd.runs.scans.weights import measure_matrices
from srdd.runs.setup import (
    Progress,
    _silent,
    provenance,
    used,
    versions,
)


def scan_checkpoint(
    checkpoint: Checkpoint,
    quant: str | BlockFormat | Sequence[str | BlockFormat] = "mxfp4",
    selection: Selection | None = None,
    *,
    backend: str = "auto",
    seed: int = 0,
    thresholds: dict[str, float] | None = None,
    progress: Progress = _silent,
) -> Report:
    """Measure the weights of a safetensors checkpoint in row chunks; no model is built, memory stays bounded."""
    started = time.monotonic()
    formats = parse_list([quant] if isinstance(quant, str | BlockFormat) else quant)
    selection = selection or Selection.parse("weight")
    found = selection.filter(checkpoint_sites(checkpoint))
    sizes = {site.name: checkpoint.tensors[site.module].numel for site in found.sites}
    total, done = sum(sizes.values()), 0
    device = torch.device("cpu")
    chosen = kernels.choose(backend, elements=total, formats=formats, device=device)
    chosen = checked(chosen, formats, device, checkpoint.tensors[found.sites[0].module].torch_dtype)
    rows = []
    for site in found.sites:
        matrices = matrices_from(checkpoint, site)
        vectors = measure_matrices(matrices, formats, name=site.name, seed=seed, backend=chosen)
        rows.append(weight_row(site, vectors, formats, checkpoint.tensors[site.module].shape))
        done += sizes[site.name]
        progress("weights", done, total)
    backend_used, reason = used(chosen)
    depth = max(checkpoint.identity.layer_count or 0, found.layer_count) or None
    report = Report(
        model=checkpoint.identity.model_copy(update={"layer_count": depth}),
        settings=Settings(
            formats=[f.spec for f in formats],
            kinds=["weight"],
            selection=selection.text,
            seed=seed,
            device="cpu",
            dtype=checkpoint.identity.dtype or "as stored",
            backend=backend_used,
            backend_reason=reason,
            thresholds=thresholds or dict(CLASSIC),
            versions=versions(),
        ),
        coverage=Coverage(
            parameters=found.parameters,
            measured=found.parameters - sum(s.parameters for s in found.skipped),
            skipped=list(found.skipped),
        ),
        sites=rows,
        warnings=[*map(Note, checkpoint.notes), *warnings_for(rows, [])],
        provenance=provenance(started),
    )
    return in_order(report)
