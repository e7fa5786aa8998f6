"""Tallies of weights: of a model in memory, or of a checkpoint read piece by piece.

Not here: which tensors are weights (srdd.models.sites, srdd.models.checkpoint_sites). Blocks run along the input axis,
the one that a matrix product sums over, so Conv1D's [in, out] is turned first. Each expert of a fused 3-D tensor is a
matrix of its own, with its own tensor scale under nvfp4 and fp8. Formats with other tiles for weights have them here.

Worked number: a [4096, 4096] bfloat16 matrix is read in chunks of 64 MiB (8192 rows), so one chunk; nvfp4 reads it
twice, first for the amax of the whole tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from srdd import kernels
from srdd.core.blocks import block_number
from srdd.core.formats import BlockFormat
from srdd.kernels.backend import Backend
from srdd.kernels.precision import to_float64
from srdd.kernels.seeds import generator_for
from srdd.models.modules import weight_of
from srdd.models.sites import Site

_OF_ROWS, _OF_COLUMNS = 2**0.5, (1 + 5**0.5) / 2  # two, so that a matrix that was turned is told too


def measure_matrices(
    matrices: Iterable[Iterable[Tensor]], formats: Sequence[BlockFormat], *, name: str, seed: int, backend: Backend
) -> tuple[Tensor, float]:
    """The tally [formats, WIDTH] of matrices given as re-readable runs of row chunks, merged; and their `order_sum`."""
    formats = [fmt.for_weights for fmt in formats]
    merged: Tensor | None = None
    order = 0.0
    before = 0  # rows: blocks are numbered through all matrices
    generator: torch.Generator | None = None
    for chunks in matrices:
        amax = finite_amax(chunks) if any(fmt.has_tensor_scale for fmt in formats) else None
        for chunk in chunks:
            if generator is None:
                generator = generator_for(formats, chunk.device, seed, name)
            vectors = kernels.measure_many(chunk, formats, generator=generator, global_amax=amax, backend=backend)
            for vector, fmt in zip(vectors, formats, strict=True):
                vector[-1] += block_number(before, chunk.shape[-1], fmt.block)
            order += order_sum(chunk, before)
            before += len(chunk)
            merged = vectors if merged is None else kernels.merge(merged, vectors)
    if merged is None:
        return kernels.measure_many(torch.empty(0), formats, generator=torch.Generator(), backend=backend), order
    return merged, order


def order_sum(chunk: Tensor, first_row: int) -> float:
    """sum of v_r u_c x_rc with v_r = frac(r sqrt(2)) and u_c = frac(c * 1.618...): another one when places change.

    `chunk` is [rows, columns] from row `first_row` on. No other sum tells a weight from the same values elsewhere. In
    float32 along a row, so that of equal weights it is equal to about 1e-6 of sqrt(sum x^2). nan where x is not finite.
    """
    if not chunk.numel():
        return 0.0
    along = chunk.float() @ _parts(_OF_COLUMNS, 0, chunk.shape[1]).float().to(chunk.device)
    return float(to_float64(along.cpu()) @ _parts(_OF_ROWS, first_row, len(chunk)))


def _parts(ratio: float, first: int, count: int) -> Tensor:
    """float64 [count] of the fractional parts of i * ratio, i from `first` on: no two are alike."""
    return (torch.arange(first, first + count, device="cpu", dtype=torch.float64) * ratio).frac()


def finite_amax(chunks: Iterable[Tensor]) -> Tensor:
    """The largest finite magnitude of a matrix. One pass when all is finite, which is the rule."""
    largest = []
    for chunk in chunks:
        low, high = chunk.aminmax() if chunk.numel() else (torch.zeros(()), torch.zeros(()))
        amax = torch.maximum(-low.float(), high.float())
        if not amax.isfinite():
            amax = chunk.float().abs().where(chunk.isfinite(), 0).amax()
        largest.append(amax)
    return torch.stack(largest).amax()


def zero_rows(matrices: Iterable[Iterable[Tensor]]) -> list[int]:
    """The rows of all matrices, numbered through, that hold nothing but zeros: dead output channels."""
    found: list[int] = []
    first = 0
    for chunks in matrices:
        for chunk in chunks:
            dead = (chunk == 0).all(-1).nonzero().flatten()
            found += (dead + first).tolist()
            first += len(chunk)
    return found


def zero_columns(matrices: Iterable[Iterable[Tensor]]) -> list[int]:
    """The columns that hold nothing but zeros in all matrices: dead input channels."""
    alive: Tensor | None = None
    for chunks in matrices:
        for chunk in chunks:
            found = (chunk != 0).any(0)
            alive = found if alive is None else alive | found
    return [] if alive is None else [int(column) for column in (~alive).nonzero().flatten()]


def matrices_of(module: nn.Module, site: Site) -> Iterator[tuple[Tensor]]:
    """The matrices [out, in] of a weight site in memory: one, or one per fused expert."""
    weight = weight_of(module, site.parameter).detach()
    for matrix in weight.unbind(0) if weight.dim() == 3 else (weight,):
        yield (matrix.transpose(-1, -2) if site.transposed else matrix,)
