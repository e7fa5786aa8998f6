"""Tensors that are plain in two checkpoints, compared: norms, embeddings, and weights that nobody quantized.

Not here: packed weights (beside_reference.py).

Worked number: a norm of 1 in the reference and 1.5 in a checkpoint whose activations were smoothed differs by 50 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from srdd.models.beside_reference import Rows
from srdd.models.checkpoint_sites import matrices_from
from srdd.models.files.checkpoint import Checkpoint
from srdd.models.files.packed.contract import Packed
from srdd.models.sites import Site


def differing(
    ours: Checkpoint, reference: Checkpoint, sites: Sequence[tuple[Site, Site]], *, others: bool
) -> dict[str, float]:
    """By name, the relative rms error of what is not equal; inf where the reference is zero, or of another shape.

    `sites` are compared wherever they lie in the files, all `others` of one name and shape where `others` says so. What
    is stored in a narrower type is equal when it is the reference rounded to that.
    """
    found: dict[str, float] = {}
    seen: set[str] = set()
    for site, twin in sites:
        seen.update(site.stored)
        pairs = zip(matrices_from(ours, site), matrices_from(reference, twin), strict=True)
        found[site.name] = _error(pair for a, b in pairs for pair in zip(Rows(a), Rows(b), strict=True))
    for name, tensor in ours.tensors.items() if others else ():
        other = reference.tensors.get(name)
        packed = isinstance(tensor, Packed) or isinstance(other, Packed)
        if name not in seen and not packed and other is not None and tensor.numel:
            if other.shape != tensor.shape:
                found[name] = math.inf
                continue
            if not (tensor.torch_dtype.is_floating_point and other.torch_dtype.is_floating_point):
                continue
            both = zip(Rows(_Chunks(ours, name)), Rows(_Chunks(reference, name)), strict=True)
            found[name] = _error(both)
    return {name: error for name, error in found.items() if error}


class _Chunks:
    """The rows of a tensor as they lie."""

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self._checkpoint, self._name = checkpoint, name

    def __iter__(self) -> Iterator[Tensor]:
        return self._checkpoint.row_chunks(self._name)


def _error(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """sqrt(sum (a - b)^2 / sum b^2) of float64; 0 where all values are equal, NaN to NaN."""
    noise = signal = 0.0
    unequal = False
    for a, b in pairs:
        rounded = b.to(a.dtype) if a.dtype.itemsize < b.dtype.itemsize else b
        unequal |= not torch.equal(a.float().nan_to_num(nan=math.pi), rounded.float().nan_to_num(nan=math.pi))
        x, y = a.to(torch.float64), rounded.to(torch.float64)
        both = x.isfinite() & y.isfinite()
        noise += float((x - y).where(both, 0.0).square().sum())
        signal += float(y.where(both, 0.0).square().sum())
    if not unequal:
        return 0.0
    return math.sqrt(noise / signal) if signal and noise else math.inf
