"""Why a matrix is far from its original: another order of rows, the transpose, another matrix, an inverted scale.

Rows are told apart by 32 random projections: a quantized row stays within 0.3 of its original there, and lies 1.4 from
any other. So a row is matched by its nearest, and no order has to be guessed.

Not here: which matrices are far off (comparing.py), and the words (srdd.analysis.audit).

Worked number: 4096 rows of 4096 are 4096 x 32 projections of each side, and 16.8 million distances, 512 rows at a time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from srdd.analysis.audit.facts import Compared, Permuted
from srdd.models.files.checkpoint import Checkpoint
from srdd.models.files.packed.codes import e8m0
from srdd.models.files.packed.contract import Packed, read
from srdd.models.files.packed.groups import POWERS
from srdd.runs.audit.comparing import Strip, Sums, finite
from srdd.runs.audit.reading import tensor_scale_of, tile_of

_FITS = 0.25  # of the squares: nearer than half of its size
_ENOUGH = 0.9  # of the wrong rows must find a place
_ROWS = 16384  # more wrong rows than that are not matched
_AT_ONCE = 512
_PROJECTIONS = 32
_NEAR, _OFF = 1.1, 1.25  # factors: of what is right but for rounding, and of what is not
_ALIKE = 0.75  # squared cosine


@dataclass(frozen=True)
class _Whole:
    """Projections [32, 32] of a strip and of the reference beside it, and where the strip stands in the answer."""

    at: int
    packed: Tensor
    reference: Tensor


def explained(far: Iterable[Sums], checkpoint: Checkpoint) -> list[Compared]:
    """What is known of each strip that is far off. Each is read a second time, rows and all."""
    done: list[Compared] = []
    open_: dict[tuple[int, int], list[_Whole]] = defaultdict(list)  # by shape, what nothing of its own explains
    for sums in far:
        found = _inverted(sums, checkpoint)
        if found.inverted is None:
            rows, packed, reference, turned = _projections(sums.strip)
            found = replace(found, permuted=_order(sums.wrong, packed, reference))
            if found.permuted is None and turned is not None:
                found = replace(found, transposed=bool(_distance2(packed, turned) < _FITS * reference.square().sum()))
            if found.permuted is None and not found.transposed:
                whole = _Whole(len(done), rows.T @ packed, rows.T @ reference)
                open_[found.shape].append(whole)
        done.append(found)
    for alike in open_.values():
        for at, other in _places(alike):
            done[at] = replace(done[at], holds=done[other].name)
    return done


def _inverted(sums: Sums, checkpoint: Checkpoint) -> Compared:
    """With the tensor of scales whose inverse fits the reference, if there is one."""
    found, strip = sums.compared, sums.strip
    weight = checkpoint.tensors[strip.tensor]
    gain = found.gain
    if not isinstance(weight, Packed) or not gain or gain <= 0 or 1 / _OFF < gain < _OFF:
        return found
    whole = tensor_scale_of(weight)
    if whole is not None and found.cosine2 > _ALIKE:
        value = whole.values[(strip.expert or 0) if len(whole.values) > 1 else 0]
        # stored 1 / g: c s / (1 / g) is g^2 times c s / g
        right = gain * (value**2 if whole.divides else value**-2) if value else 0.0
        if 1 / _NEAR < right < _NEAR:
            return replace(found, inverted=whole.name, factor=gain)
    if not strip.transposed and _fits_inverted(strip, weight, found.reference2):
        return replace(found, inverted=weight.parts[1].name, factor=gain)
    return found


def _fits_inverted(strip: Strip, weight: Packed, reference2: float) -> bool:
    """Whether values with every scale s taken as 1 / s are near the reference."""
    first, error2 = 0, 0.0
    for x, r in strip.pairs():
        scale2 = _factors(weight, strip.expert or 0, first, len(x)).to(torch.float64).square()
        error2 += float((finite(x.to(torch.float64) / scale2) - r.to(torch.float64)).square().sum())
        first += len(x)
    return error2 < _FITS * reference2


def _factors(weight: Packed, expert: int, first: int, count: int) -> Tensor:
    """The scale of each value, float32 [count, columns], tensor scales apart."""
    scale, (high, wide), (rows, columns) = weight.parts[1], tile_of(weight), weight.shape[-2:]
    down, across = -(-rows // high), -(-columns // wide)
    grid = replace(scale, shape=(scale.numel // max(across, 1), across))
    before = expert * down if scale.numel > down * across else 0
    top = first // high
    raw = (weight.lines or read)(grid, before + top, -(-(first + count) // high) - top)
    factors = e8m0(raw) if scale.dtype in POWERS else raw.float()
    return factors[torch.arange(first, first + count) // high - top].repeat_interleave(wide, 1)[:, :columns]


def _projections(strip: Strip) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The directions [rows, 32], the rows of both sides [rows, 32], and the columns of a square reference."""
    packed, reference = [], []
    turned: Tensor | None = None
    along: Tensor | None = None
    first = 0
    rows = sum(len(r) for _, r in strip.pairs())
    down = _directions(rows)
    for x, r in strip.pairs():
        along = _directions(r.shape[1]) if along is None else along
        packed.append(finite(x) @ along)
        reference.append(finite(r) @ along)
        if r.shape[1] == rows:
            part = finite(r).T @ down[first : first + len(r)]
            turned = part if turned is None else turned + part
        first += len(r)
    return down, torch.cat(packed), torch.cat(reference), turned


def _directions(count: int) -> Tensor:
    """float32 [count, 32], the same at every call: |x @ directions| is about |x|."""
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, _PROJECTIONS, generator=generator).div_(math.sqrt(_PROJECTIONS))


def _order(wrong: Tensor, packed: Tensor, reference: Tensor) -> Permuted | None:
    """Which row of the reference each wrong row is; None where too few find one."""
    if not 2 <= len(wrong) <= _ROWS:
        return None
    sizes = reference[wrong].square().sum(1)
    nearest = torch.full((len(wrong),), -1)
    for start in range(0, len(wrong), _AT_ONCE):
        far = torch.cdist(packed[wrong[start : start + _AT_ONCE]], reference[wrong]).square()
        distance, at = far.min(1)
        nearest[start : start + len(at)] = torch.where(distance < _FITS * sizes[at], at, -1)
    counts = torch.bincount(nearest[nearest >= 0], minlength=len(wrong))
    good = (nearest >= 0) & (counts[nearest.clamp(min=0)] == 1)  # two rows that fit one: neither is told
    if int(good.sum()) < _ENOUGH * len(wrong):
        return None
    order: list[int | None] = list(range(len(packed)))
    for place, row, is_good in zip(wrong.tolist(), wrong[nearest.clamp(min=0)].tolist(), good.tolist(), strict=True):
        order[place] = row if is_good else None
    return Permuted(tuple(order))


def _places(alike: list[_Whole]) -> Iterator[tuple[int, int]]:
    """Pairs: a strip, and the one whose reference it holds."""
    if len(alike) < 2:
        return
    packed = torch.stack([whole.packed.flatten() for whole in alike])
    reference = torch.stack([whole.reference.flatten() for whole in alike])
    for index, row in enumerate(packed):
        far = (reference - row).square().sum(1)
        best = int(far.argmin())
        if best != index and float(far[best]) < _FITS * float(reference[best].square().sum()):
            yield alike[index].at, alike[best].at


def _distance2(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum()
