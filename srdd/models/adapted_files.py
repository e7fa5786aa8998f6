"""A checkpoint's files with an adapter: which of its weights change, without a model and without weights in memory.

Apart, the weights that are quantized are the base's, and factors stay beside them in 16 bit; what the adapter replaces
whole (modules_to_save) is taken from it either way. Merged, they are W + s B A in the base's own type.

Not here: models in memory (adapted.py) and the arithmetic (changes.py).

Worked number: an adapter of q_proj and v_proj in 30 layers changes 60 weights of 211 merged, and none apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from srdd.core.adapters import AdapterForm
from srdd.errors import SourceError
from srdd.models.changes import Change, LowRank, Whole, check_shapes, lacks, listed_beside, other_shape, tied
from srdd.models.checkpoint_sites import matrices_from
from srdd.models.files.adapter import Adapter
from srdd.models.files.checkpoint import Checkpoint
from srdd.models.files.packed.contract import read
from srdd.models.files.safetensors import StoredTensor
from srdd.models.sites import Site, SiteMap


@dataclass(frozen=True)
class AdaptedFiles:
    """A checkpoint with an adapter on it: whose weights are measured, and what changes them."""

    base: Checkpoint
    adapter: Adapter
    form: AdapterForm
    sites: SiteMap  # all of the base's; the adapter's own tensors are listed as left out
    changes: Mapping[str, Change]  # by site, of the weights that are measured
    notes: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> Checkpoint:
        """The base, called after both."""
        notes = (*self.base.notes, *self.adapter.notes(self.form), *self.notes)
        return replace(self.base, identity=self.adapter.on(self.base.identity, self.form), notes=notes)

    def matrices(self, site: Site) -> Iterator[Iterable[Tensor]]:
        """As `matrices_from`, changed where the adapter changes what is measured."""
        change = self.changes.get(site.name)
        for matrix in matrices_from(self.base, site):
            yield matrix if change is None else _Changed(matrix, change)

    def pairs(self, sites: SiteMap) -> Iterator[tuple[Site, LowRank, Iterable[Tensor]]]:
        """Of these sites those that factors change: what they add, and the base's matrix in chunks of rows."""
        for site in sites.sites:
            factors = self.adapter.factors.get(site.name)
            if factors is not None:
                yield site, LowRank.of(factors), next(matrices_from(self.base, site))


@dataclass(frozen=True)
class _Changed:
    """The row chunks of a matrix after a change; they can be read again as those of the matrix can."""

    matrix: Iterable[Tensor]
    change: Change

    def __iter__(self) -> Iterator[Tensor]:
        first = 0
        for chunk in self.matrix:
            yield self.change.applied(chunk, first)
            first += len(chunk)


def adapted_files(
    base: Checkpoint, sites: SiteMap, adapter: Adapter, form: AdapterForm, notes: tuple[str, ...] = ()
) -> AdaptedFiles:
    """`sites` are all of the base's. Raises SourceError for an adapter of another base."""
    name, by_name = base.identity.id, {site.name: site for site in sites.sites}
    changes: dict[str, Change] = {}
    for module, factors in adapter.factors.items():
        site = by_name.get(module)
        if site is None:
            dim, rows = factors.b.shape[0], factors.a.shape[1]
            shape = (rows, dim) if factors.embedding else (dim, rows)
            _check_unmeasured(base, sites, adapter, f"{module}.weight", shape)
            continue
        rows, columns = _out_in(site, adapter, name)
        check_shapes(adapter, factors, (rows, columns), name)
        if form == "merged":
            _refuse_tied(base, site, adapter)
            changes[module] = LowRank.of(factors)
    for parameter, tensor in adapter.whole.items():
        site = by_name.get(parameter.removesuffix(".weight")) if parameter.endswith(".weight") else None
        if site is not None and parameter not in adapter.shared:
            if site.shape != tensor.shape:
                raise other_shape(adapter, parameter, tensor.shape, str(list(site.shape)), name)
            changes[site.name] = _whole(tensor, site.transposed)
        else:
            _check_unmeasured(base, sites, adapter, parameter, tensor.shape)
    if form == "merged":
        return AdaptedFiles(base, adapter, form, sites, changes, notes)
    return AdaptedFiles(base, adapter, form, listed_beside(sites, adapter), changes, notes)


def _out_in(site: Site, adapter: Adapter, base: str) -> tuple[int, int]:
    if len(site.shape) != 2:
        raise SourceError(
            f"{adapter.label} changes {site.name} of {base}, which holds several matrices; merge it first"
        )
    rows, columns = site.shape
    return (columns, rows) if site.transposed else (rows, columns)


def _check_unmeasured(
    base: Checkpoint, sites: SiteMap, adapter: Adapter, parameter: str, shape: tuple[int, ...]
) -> None:
    """An embedding, a norm or a bias is no site, and has to fit all the same.

    Raises SourceError for what the base has neither in its files nor, as the model that is opened names it, elsewhere.
    """
    sizes = {row.name: row.parameters for row in sites.skipped}
    # files may lack the first part of a name ("transformer."), or have one more
    same = [name for name in base.tensors if f".{parameter}".endswith(f".{name}") or name.endswith(f".{parameter}")]
    stored = base.tensors[max(same, key=len)] if same else None
    if stored is None and parameter not in sizes:
        raise lacks(adapter, parameter, base.identity.id)
    fits = math.prod(shape) == sizes[parameter] if stored is None else stored.shape == shape
    if not fits:
        has = f"{sizes[parameter]} values" if stored is None else str(list(stored.shape))
        raise other_shape(adapter, parameter, shape, has, base.identity.id)


def _refuse_tied(base: Checkpoint, site: Site, adapter: Adapter) -> None:
    own = f"{site.name}.weight" in base.tensors
    if not own and len(site.stored) == 1 and re.search("embed|wte", site.stored[0]):
        raise tied(adapter, site.name, base.identity.id)


def _whole(tensor: StoredTensor, transposed: bool) -> Whole:
    if not transposed:
        return Whole(lambda first, count: read(tensor, first, count))
    return Whole(lambda first, count: read(tensor).T[first : first + count])
