"""What an adapter makes of a weight, row by row: W + s B A, DoRA's m (W + s B A) / |W + s B A|, or another tensor.

Not here: which weights an adapter changes (adapted.py for models, adapted_files.py for files). A weight comes as rows
of [out, in] and its change is computed for these rows alone, in float32; the result is rounded once, to the type of
the weight, as an export holds it.

Worked number: W = (1, 0), B A = (0, 0.1) and s = 2 make (1, 0.2). Under DoRA with m = 2 that is 2 / 1.0198 times as
much: (1.961, 0.392).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from srdd.documents.schema import Skipped
from srdd.errors import SourceError, setting
from srdd.models.files.adapter import Adapter, Factors
from srdd.models.files.packed.contract import read
from srdd.models.files.safetensors import StoredTensor
from srdd.models.sites import SiteMap
from srdd.models.wrapped import ADAPTER


class Change(Protocol):
    """A weight from a weight."""

    def difference(self, w: Tensor, first: int) -> Tensor:
        """What is added to rows [count, in] of a weight from row `first` on, float32."""
        ...

    def applied(self, w: Tensor, first: int) -> Tensor:
        """The changed rows, in the type of `w`."""
        ...


@dataclass(frozen=True)
class LowRank:
    """scaling * B A, and DoRA's magnitude where there is one."""

    a: Tensor  # [r, in] float32
    b: Tensor  # [out, r] float32
    scaling: float
    magnitude: Tensor | None = None  # [out] float32

    @classmethod
    def of(cls, factors: Factors) -> LowRank:
        magnitude = None if factors.magnitude is None else load(factors.magnitude).float().flatten()
        return cls(load(factors.a).float(), load(factors.b).float(), factors.scaling, magnitude)

    def difference(self, w: Tensor, first: int) -> Tensor:
        rows = slice(first, first + len(w))
        added: Tensor = self.scaling * (self.b[rows].to(w.device) @ self.a.to(w.device))
        if self.magnitude is None:
            return added
        whole: Tensor = w.float() + added
        times = self.magnitude[rows].to(w.device) / whole.norm(dim=1)
        changed: Tensor = whole * times[:, None] - w.float()
        return changed

    def applied(self, w: Tensor, first: int) -> Tensor:
        return (w.float() + self.difference(w, first)).to(w.dtype)


@dataclass(frozen=True)
class Whole:
    """Another tensor in the weight's place; `read` gives rows [count, in] of it."""

    rows: Callable[[int, int], Tensor]

    def difference(self, w: Tensor, first: int) -> Tensor:
        return self.rows(first, len(w)).to(w.device).float() - w.float()

    def applied(self, w: Tensor, first: int) -> Tensor:
        rows: Tensor = self.rows(first, len(w)).to(w.device, w.dtype)
        return rows


def listed_beside(sites: SiteMap, adapter: Adapter) -> SiteMap:
    """Sites with an adapter's own tensors among what is left out of them."""
    tensors = [tensor for factors in adapter.factors.values() for tensor in factors.tensors]
    rows = [Skipped(name=tensor.name, parameters=tensor.numel, reason=ADAPTER) for tensor in tensors]
    count = sum(row.parameters for row in rows)
    skipped = (*sites.skipped, *rows)
    return replace(sites, skipped=skipped, parameters=sites.parameters + count, beside=sites.beside + count)


def load(tensor: StoredTensor) -> Tensor:
    """A whole tensor of an adapter, in its own shape and type; no part of the file any more."""
    return read(tensor).clone().view(tensor.shape)


def check_shapes(adapter: Adapter, factors: Factors, wanted: tuple[int, int], base: str) -> None:
    """Raises SourceError for factors that do not fit a weight of [out, in]."""
    for tensor, has, axis, needs in ((factors.a, 1, 1, wanted[1]), (factors.b, 0, 0, wanted[0])):
        if tensor.shape[has] != needs:
            fits = [tensor.shape[0], needs] if axis else [needs, tensor.shape[1]]
            raise SourceError(
                f"{adapter.label}: {tensor.name} is {list(tensor.shape)}, and {factors.module} of {base}, whose weight "
                f"is {list(wanted)} (out, in), takes {fits}; it is an adapter of another base"
            )
    if factors.bias is not None and factors.bias.numel != wanted[0]:
        raise SourceError(f"{adapter.label}: {factors.bias.name} is {list(factors.bias.shape)}; expected [{wanted[0]}]")


def lacks(adapter: Adapter, name: str, base: str) -> SourceError:
    """That an adapter changes something which the base has not."""
    return SourceError(f"{adapter.label} changes {name}, which {base} lacks; it is an adapter of another base")


def other_shape(adapter: Adapter, name: str, shape: tuple[int, ...], base_has: str, base: str) -> SourceError:
    """That what an adapter brings for a parameter has another shape than the base's own."""
    return SourceError(
        f"{adapter.label} makes {name} {list(shape)}, and in {base} it is {base_has}; it is an adapter of another "
        "base, or of one whose vocabulary was resized"
    )


def tied(adapter: Adapter, name: str, base: str) -> SourceError:
    """That a weight cannot take an adapter in, since it is another's too."""
    return SourceError(
        f"{adapter.label} changes {name}, whose weight in {base} is the embedding's too, which merged would change as "
        f"well; keep it beside: {setting('adapter_as', 'apart')}"
    )
