"""A packed checkpoint beside the 16-bit checkpoint that it was made from: which weights are whose, rows side by side.

Names are those of the opened model on both sides (live_names.py), so that fused and single experts, prefixes and tied
weights meet; experts that a file holds one by one where no model of transformers does find their rows in fused ones,
interleaved or not. Rows run along the input axis, as blocks do, whichever way a file lies.

Not here: tallies (srdd.runs.scans.stored) and forms (files/packed).

Worked number: Qwen3-MoE's experts.gate_up_proj of 128 experts is 256 packed tensors; each is a part, with its own
tensor scale, beside 768 rows of the reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from srdd.errors import SiteError, SourceError, setting
from srdd.models.checkpoint_sites import checkpoint_sites, matrices_from
from srdd.models.files.checkpoint import TALLEST_TILE, Checkpoint
from srdd.models.files.packed.contract import Packed
from srdd.models.sites import Site, SiteMap

_VALUES = 1 << 23  # in a chunk: 32 MiB of float32
_SINGLE = re.compile(r"^(.*\.experts)\.(\d+)\.(\w+)$")
# The fused tensor that a single expert's weight is in, and which part of its rows, of how many.
_FUSED = {"gate_proj": ("gate_up_proj", 0, 2), "up_proj": ("gate_up_proj", 1, 2), "down_proj": ("down_proj", 0, 1)}
_INTERLEAVED = frozenset({"gpt_oss"})  # gate and up alternate along the outputs


@dataclass(frozen=True)
class Rows:
    """Rows of one matrix [out, in], in chunks of whole tiles; read anew each time they are gone through."""

    matrix: Iterable[Tensor]
    first: int = 0
    stop: int | None = None
    step: int = 1

    def __iter__(self) -> Iterator[Tensor]:
        """Chunks [rows, in], each a multiple of 128 rows but for the last."""
        held: list[Tensor] = []
        for piece in self._pieces():
            size = max(_VALUES // max(piece.shape[1], 1) // TALLEST_TILE * TALLEST_TILE, TALLEST_TILE)
            while len(piece):
                room = size - sum(map(len, held))
                held.append(piece[:room])
                piece = piece[room:]
                if sum(map(len, held)) == size:
                    yield torch.cat(held) if len(held) > 1 else held[0]
                    held = []
        if held:
            yield torch.cat(held) if len(held) > 1 else held[0]

    def _pieces(self) -> Iterator[Tensor]:
        before = 0
        for chunk in self.matrix:
            skipped = max(-(-(before - self.first) // self.step), 0) * self.step
            start = self.first + skipped - before  # the first row wanted that is not before this chunk
            stop = len(chunk) if self.stop is None else min(self.stop - before, len(chunk))
            before += len(chunk)
            if start < stop:
                yield chunk[start : stop : self.step]


@dataclass(frozen=True)
class Part:
    """One matrix of one packed tensor with the reference's rows in its place."""

    packed: Packed
    matrix: int  # of the packed tensor: which expert
    original: Rows

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]"""
        rows, columns = self.packed.shape[-2:]
        return (columns, rows) if self.packed.transposed else (rows, columns)

    def pairs(self, transposed: bool) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Reference, stored value and its scale, chunk by chunk, each [rows, in]."""
        done = 0
        values, scales = self.packed.rows, self.packed.scales
        for x in self.original:
            if transposed:
                if not done:
                    whole = [read(self.matrix, 0, self.packed.shape[-2]).transpose(0, 1) for read in (values, scales)]
                q, scale = (t[done : done + len(x)] for t in whole)
            else:
                q, scale = (read(self.matrix, done, len(x)) for read in (values, scales))
            done += len(x)
            yield x, q, scale


@dataclass(frozen=True)
class Twins:
    """The weights of both, by the packed checkpoint's names."""

    packed: tuple[tuple[Site, tuple[Part, ...]], ...]
    plain: tuple[tuple[Site, Site], ...]  # sites that are plain in the packed checkpoint, and the reference's
    mixed: tuple[Site, ...]  # made of tensors of several forms, or of packed and plain ones
    left: tuple[str, ...]  # of the reference alone


def twins(packed: Checkpoint, reference: Checkpoint, sites: SiteMap) -> Twins:
    """Every weight site of the packed checkpoint with the reference's.

    Raises SourceError for a checkpoint without packed weights, and for a reference that is no reference of it.
    """
    if not any(isinstance(tensor, Packed) for tensor in packed.tensors.values()):
        raise SourceError(
            f"{packed.identity.id} holds no packed weights, so that {setting('reference')} has nothing to be compared "
            "with; scan it without, or compare two reports"
        )
    by_name = _by_name(reference, packed, sites)
    found: list[tuple[Site, tuple[Part, ...]]] = []
    plain: list[tuple[Site, Site]] = []
    mixed: list[Site] = []
    used: set[str] = set()
    for site in sites.sites:
        forms = {_form(packed, name) for name in site.stored}
        twin = by_name.get(site.name)
        if twin is None and (other := _in_fused(site, by_name, reference)) is not None and None not in forms:
            used.add(other[0].name)
            found.append((site, (_part(packed, site.stored[0], 0, other[1], site),)))
            continue
        if twin is None:
            raise SourceError(_missing(site, packed, reference))
        used.add(twin.name)
        _same_shape(site, twin, packed, reference)
        if forms == {None}:
            plain.append((site, twin))
        elif len(forms) > 1:
            mixed.append(site)
        else:
            found.append((site, tuple(_parts(packed, reference, site, twin))))
    if not found:
        raise SiteError(f"none of the {len(sites.sites)} weights that were chosen is packed; choose others")
    rest = [site.name for name, site in by_name.items() if name not in used] if sites.selection is None else []
    return Twins(tuple(found), tuple(plain), tuple(mixed), tuple(rest))


def _by_name(reference: Checkpoint, packed: Checkpoint, sites: SiteMap) -> dict[str, Site]:
    """The reference's sites; under the packed checkpoint's config where its own names nothing alike."""
    found = checkpoint_sites(reference)
    ours = packed.identity.architecture
    theirs = reference.identity.architecture
    if ours and theirs and ours != theirs:
        raise SourceError(f"{reference.identity.id} is a {theirs}, no reference of {packed.identity.id}, a {ours}")
    depths = [checkpoint.identity.layer_count for checkpoint in (reference, packed)]
    if depths[0] and depths[1] and depths[0] != depths[1]:
        raise SourceError(
            f"{reference.identity.id} has {depths[0]} layers, no reference of {packed.identity.id} with {depths[1]}"
        )
    names = {site.name for site in found.sites}
    if not reference.config and not all(site.name in names for site in sites.sites):  # a file without a folder
        found = checkpoint_sites(replace(reference, config=packed.config))
    return {site.name: site for site in found.sites}


def _form(checkpoint: Checkpoint, name: str) -> str | None:
    tensor = checkpoint.tensors[name]
    return tensor.form if isinstance(tensor, Packed) else None


def _parts(packed: Checkpoint, reference: Checkpoint, site: Site, twin: Site) -> Iterator[Part]:
    """The parts of a site in the order of its rows: expert by expert, and of each tensor by tensor."""
    experts = site.shape[0] if len(site.shape) == 3 else 1
    each = max(len(site.stored) // experts, 1)
    for expert, matrix in enumerate(matrices_from(reference, twin)):
        single = len(site.stored) > 1
        names = site.stored[expert * each : (expert + 1) * each] if single else site.stored
        first = 0
        for name in names:
            part = _part(packed, name, 0 if single else expert, Rows(matrix), site)
            stop = first + part.shape[0]
            yield replace(part, original=Rows(matrix, first, stop))
            first = stop


def _part(packed: Checkpoint, name: str, matrix: int, original: Rows, site: Site) -> Part:
    tensor = packed.tensors[name]
    assert isinstance(tensor, Packed), "forms were looked at"
    return Part(replace(tensor, transposed=site.transposed), matrix, original)


def _in_fused(site: Site, by_name: dict[str, Site], reference: Checkpoint) -> tuple[Site, Rows] | None:
    """The rows of a single expert in the reference's fused ones."""
    single = _SINGLE.match(site.name.removesuffix(".weight"))
    if single is None or single[3] not in _FUSED or len(site.stored) != 1:
        return None
    local, place, count = _FUSED[single[3]]
    fused = next((by_name[n] for n in (f"{single[1]}.{local}", f"{single[1]}.{local}.weight") if n in by_name), None)
    expert = int(single[2])
    if fused is None or len(fused.shape) != 3 or expert >= fused.shape[0]:
        return None
    out, inputs = _out_in(fused)
    if (out // count, inputs) != _out_in(site):
        return None
    matrix = next(m for index, m in enumerate(matrices_from(reference, fused)) if index == expert)
    if reference.config.get("model_type") in _INTERLEAVED and count == 2:
        return fused, Rows(matrix, place, out, 2)
    return fused, Rows(matrix, place * out // count, (place + 1) * out // count)


def _out_in(site: Site) -> tuple[int, int]:
    rows, columns = site.shape[-2:]
    return (columns, rows) if site.transposed else (rows, columns)


def _same_shape(site: Site, twin: Site, packed: Checkpoint, reference: Checkpoint) -> None:
    ours, theirs = ((*s.shape[:-2], *_out_in(s)) for s in (site, twin))
    if ours != theirs:
        raise SourceError(
            f"{reference.identity.id} is no reference of {packed.identity.id}: {site.name} (outputs, inputs) is "
            f"{list(theirs)} there and {list(ours)} in the packed checkpoint"
        )


def _missing(site: Site, packed: Checkpoint, reference: Checkpoint) -> str:
    return (
        f"{reference.identity.id} is no reference of {packed.identity.id}: it holds no weight {site.name}; expected "
        "the 16-bit checkpoint that was quantized"
    )
