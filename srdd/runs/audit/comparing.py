"""A packed checkpoint beside its 16-bit original: sums for each matrix, in row chunks of both.

Names, and how experts are fused or transposed, are those of the opened model (srdd.models.checkpoint_sites), so that
single and fused experts meet. A strip is the part of a matrix that one tensor of the packed file holds.

Not here: why a matrix is far off (matching.py), and what is said of it (srdd.analysis.audit.reference).

Worked number: experts.gate_up_proj of 8 experts, stored as 16 packed tensors, is 16 strips in 8 matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from srdd.analysis.audit.facts import Compared
from srdd.errors import SourceError
from srdd.models.checkpoint_sites import checkpoint_sites, matrices_from, stored_sites
from srdd.models.files.checkpoint import Checkpoint
from srdd.models.files.packed.contract import Packed
from srdd.models.sites import Site

_WRONG = 0.5  # of a row's squares: half of it is error
_TINY = 1e-4  # of the mean row's squares: such a row may fall below what the format can hold


@dataclass(frozen=True)
class Strip:
    """Rows of a matrix that one tensor of the packed file holds, and how to read them beside the reference's."""

    name: str
    tensor: str  # of the packed file
    expert: int | None  # of a fused tensor
    transposed: bool
    pairs: Callable[[], Iterator[tuple[Tensor, Tensor]]]  # float32 [rows, columns], packed and reference


@dataclass(frozen=True)
class Sums:
    """A strip's sums, and which of its rows are not the reference's."""

    strip: Strip
    compared: Compared
    wrong: Tensor  # int64


@dataclass(frozen=True)
class Pairing:
    """Sites of both, by name, and what only one has."""

    sites: tuple[tuple[Site, Site], ...]
    packed_only: tuple[str, ...]
    reference_only: tuple[str, ...]


def paired(packed: Checkpoint, reference: Checkpoint) -> Pairing:
    """The weights of both by name. Raises SourceError where they are no two forms of one model."""
    if any(isinstance(tensor, Packed) for tensor in reference.tensors.values()):
        raise SourceError(f"the reference {reference.identity.id} is packed itself; give its 16-bit original")
    best = _by_name(checkpoint_sites(packed).sites, checkpoint_sites(reference).sites)
    if best.packed_only:  # a folder without a config.json knows the names in its files alone
        bare = _by_name(stored_sites(packed).sites, stored_sites(reference).sites)
        best = bare if len(bare.packed_only) < len(best.packed_only) else best
    known = len(best.sites) + len(best.packed_only)
    if 2 * len(best.sites) < known:
        first = best.packed_only[0]
        raise SourceError(
            f"the reference {reference.identity.id} is of another architecture: it lacks {len(best.packed_only)} of "
            f"{known} weights, {first} first; give the original of {packed.identity.id}"
        )
    for mine, other in best.sites:
        if _shape(mine) != _shape(other):
            raise SourceError(
                f"{mine.name} is {list(_shape(mine))} in {packed.identity.id} and {list(_shape(other))} in the "
                f"reference {reference.identity.id}; give the original of the same model"
            )
    return best


def compared(packed: Checkpoint, reference: Checkpoint, mine: Site, other: Site) -> Iterator[Sums]:
    """The sums of every strip of one site."""
    theirs = matrices_from(reference, other)
    for expert, (matrix, original) in enumerate(zip(matrices_from(packed, mine), theirs, strict=True)):
        first = 0
        for name, fused, rows in _parts(packed, mine, expert):
            pairs = _strip_of(matrix, original, first, rows)
            strip = Strip(_label(mine, name, fused), name, fused, mine.transposed, pairs)
            yield _sums(strip)
            first += rows


def _by_name(mine: Sequence[Site], others: Sequence[Site]) -> Pairing:
    by_name = {site.name: site for site in others}
    names = {site.name for site in mine}
    pairs = tuple((site, by_name[site.name]) for site in mine if site.name in by_name)
    lacks = tuple(site.name for site in mine if site.name not in by_name)
    return Pairing(pairs, lacks, tuple(name for name in by_name if name not in names))


def _shape(site: Site) -> tuple[int, ...]:
    """[out, in] of a site's matrices, whatever the file has."""
    *lead, rows, columns = site.shape
    return (*lead, columns, rows) if site.transposed else (*lead, rows, columns)


def _parts(packed: Checkpoint, site: Site, expert: int) -> Iterator[tuple[str, int | None, int]]:
    """Tensor, expert in it, and rows of the strips of one matrix."""
    if len(site.stored) == 1:
        yield site.stored[0], expert if len(site.shape) == 3 else None, _shape(site)[-2]
        return
    count = len(site.stored) // (site.shape[0] if len(site.shape) == 3 else 1)
    for name in site.stored[expert * count : (expert + 1) * count]:
        yield name, None, packed.tensors[name].shape[-2]


def _label(site: Site, tensor: str, expert: int | None) -> str:
    if len(site.stored) > 1:
        return tensor.removesuffix(".weight")
    return site.name if expert is None else f"{site.name}, expert {expert}"


def _strip_of(
    matrix: Iterable[Tensor], original: Iterable[Tensor], first: int, rows: int
) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        at = 0
        for x, r in _side_by_side(matrix, original):
            start, stop = max(first - at, 0), min(first + rows - at, len(x))
            if start < stop:
                yield x[start:stop].float(), r[start:stop].float()
            at += len(x)
            if at >= first + rows:
                return

    return pairs


def _side_by_side(a: Iterable[Tensor], b: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Chunks of the same rows of both, cut where either ends."""
    others = iter(b)
    rest: Tensor | None = None
    for chunk in a:
        while len(chunk):
            if rest is None or not len(rest):
                rest = next(others)
            count = min(len(chunk), len(rest))
            yield chunk[:count], rest[:count]
            chunk, rest = chunk[count:], rest[count:]


def _sums(strip: Strip) -> Sums:
    errors, originals = [], []
    packed2 = product = 0.0
    columns = 0
    for x, r in strip.pairs():
        x, r, columns = finite(x), finite(r), x.shape[1]
        errors.append((x - r).square().sum(1, dtype=torch.float64))
        originals.append(r.square().sum(1, dtype=torch.float64))
        packed2 += float(x.square().sum(dtype=torch.float64))
        product += float((x * r).sum(dtype=torch.float64))
    error, original = torch.cat(errors), torch.cat(originals)
    wrong = (error > _WRONG * original) & (original > _TINY * original.mean())
    found = Compared(
        strip.name, (len(error), columns), float(original.sum()), packed2, float(error.sum()), product, int(wrong.sum())
    )
    return Sums(strip, found, wrong.nonzero().flatten())


def finite(values: Tensor) -> Tensor:
    """NaN and infinite values as zeros, huge ones at 1e18, whose squares float32 still holds; others tell of them."""
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).clamp(-1e18, 1e18)
