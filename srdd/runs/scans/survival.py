"""How much of what an adapter adds to a weight arrives when the merged weight is quantized.

Row chunk by row chunk, as everything that is read from files; of each chunk only sums remain. Both quantizations of a
format that rounds stochastically draw the same numbers, so that what differs is the adapter's.

Not here: the sums' meaning (srdd.core.adapters) and the weights themselves (srdd.models.adapted, adapted_files).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from srdd import kernels
from srdd.core.adapters import AdapterForm
from srdd.core.formats import BlockFormat
from srdd.documents.adapter import AdapterPart, Survival
from srdd.kernels.backend import Backend
from srdd.kernels.precision import to_float64
from srdd.kernels.seeds import generator_for
from srdd.kernels.selfcheck import values_differ
from srdd.models.changes import LowRank
from srdd.models.files.adapter import Adapter
from srdd.models.sites import Site
from srdd.runs.setup import Progress, kernel_for, silent

Pairs = Iterable[tuple[Site, LowRank, Iterable[Tensor]]]


def adapter_part(
    adapter: Adapter,
    form: AdapterForm,
    pairs: Pairs,
    formats: Sequence[BlockFormat],
    *,
    backend: str = "auto",
    seed: int = 0,
    progress: Progress = silent,
) -> AdapterPart:
    """What a report says of an adapter. `pairs` are the weights that its factors change, before they change."""
    rows: list[Survival] = []
    listed = list(pairs)
    total = sum(site.numel for site, _, _ in listed)
    kernel: Backend | None = None
    for done, (site, change, chunks) in enumerate(listed):
        if kernel is None:
            first = next(iter(chunks))
            kernel = kernel_for(backend, formats, 2 * total, first.device, torch.float32, values_differ)
        rows += [_survival(site, change, chunks, fmt, kernel, seed) for fmt in formats]
        progress("adapter", done + 1, len(listed))
    return AdapterPart(
        id=adapter.label,
        form=form,
        method=adapter.method,
        base=adapter.base,
        weights_hash=adapter.weights_hash,
        parameters=adapter.parameters,
        modules=len(adapter.factors),
        ranks=adapter.ranks,
        whole=sorted(adapter.whole),
        survival=rows,
    )


def _survival(
    site: Site, change: LowRank, chunks: Iterable[Tensor], spec: BlockFormat, kernel: Backend, seed: int
) -> Survival:
    fmt = spec.for_weights
    base_amax, new_amax = _amax(chunks, change) if fmt.has_tensor_scale else (None, None)
    device = next(iter(chunks)).device
    draws = [generator_for((fmt,), device, seed, site.name) for _ in range(2)]  # the same numbers twice
    sums = torch.zeros(6, dtype=torch.float64)
    count = moved = first = 0
    for chunk in chunks:
        w = chunk.float()
        d = change.difference(chunk, first)
        # what an export quantizes has been rounded to the weight's own type
        new = change.applied(chunk, first).float()
        q = kernels.quant_dequant(w, fmt, generator=draws[0], global_amax=base_amax, backend=kernel)
        q_new = kernels.quant_dequant(new, fmt, generator=draws[1], global_amax=new_amax, backend=kernel)
        w, d, q, q_new = (to_float64(x).cpu() for x in (w, d, q, q_new))
        p, whole = q_new - q, w + d
        parts = (whole * whole, d * d, p * d, (p - d) ** 2, (q - w) ** 2, (q_new - whole) ** 2)
        sums += torch.stack([part.sum() for part in parts])
        moved += int((p != 0).sum())
        count += p.numel()
        first += len(chunk)
    w2, d2, pd, r2, apart, merged = sums.tolist()
    return Survival(
        name=site.name,
        role=site.role,
        layer=site.layer,
        rank=change.a.shape[0],
        format=spec.spec,
        n=count,
        moved=moved,
        sum_w2=w2,
        sum_d2=d2,
        sum_pd=pd,
        sum_r2=r2,
        sum_e2_apart=apart,
        sum_e2_merged=merged,
    )


def _amax(chunks: Iterable[Tensor], change: LowRank) -> tuple[Tensor, Tensor]:
    """The largest magnitudes of the whole matrix before and after the change."""
    before, after, first = [], [], 0
    for chunk in chunks:
        before.append(chunk.float().abs().amax())
        after.append(change.applied(chunk, first).float().abs().amax())
        first += len(chunk)
    return torch.stack(before).amax(), torch.stack(after).amax()
