"""A model in memory with an adapter from a folder on it, apart or merged, under the names of the model alone.

Apart, every changed module adds s B A x to what it gives, by a hook outside its forward: whatever quantizes the module
replaces what is inside, so the adapter and its input stay in the model's own type, as servers compute it. Under DoRA
the output is m / |W + s B A| times as large, with the norm of the weights as they are, which is how PEFT computes it.
Merged, weights become W + s B A in their own type, as an export holds them, and no hook is left.

PEFT is not needed. Not here: models that PEFT has wrapped (wrapped.py), and files alone (adapted_files.py).

Worked number: y = W x = 4 with B A x = 0.5 and s = 2 gives 5; with W in mxfp4 and Q(W) x = 3.8 it gives 4.8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # as everybody calls it
from torch.utils.hooks import RemovableHandle

from srdd.documents.parts import Model
from srdd.errors import SourceError, setting
from srdd.models.changes import LowRank, check_shapes, lacks, load, other_shape, tied
from srdd.models.files.adapter import Adapter, Factors
from srdd.models.modules import is_linear, weight_of
from srdd.models.sites import Site, SiteMap


@dataclass
class Adapted:
    """An adapter on a model. It is apart until `merge`."""

    model: nn.Module
    adapter: Adapter
    base: Model  # who the model is without it
    _changed: dict[str, tuple[nn.Module, Factors]] = field(default_factory=dict)
    _hooks: list[RemovableHandle] = field(default_factory=list)

    def pairs(self, sites: SiteMap) -> Iterator[tuple[Site, LowRank, Iterable[Tensor]]]:
        """Of these sites those that factors change: what they add, and the base's matrix [out, in]. Before `merge`."""
        for site in sites.of("weight"):
            if site.module in self._changed and site.parameter == "weight":
                module, factors = self._changed[site.module]
                weight = weight_of(module).detach()
                yield site, LowRank.of(factors), (weight.T if site.transposed else weight,)

    @torch.no_grad()
    def merge(self) -> None:
        """Put the factors into the weights. Raises SourceError for a weight that is tied, or is not in memory."""
        uses: dict[int, int] = {}
        for _, parameter in self.model.named_parameters(remove_duplicate=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
        for name, (module, _) in self._changed.items():
            if uses[id(module.weight)] > 1:
                raise tied(self.adapter, name, self.base.id)
        for module, factors in self._changed.values():
            weight, change = weight_of(module), LowRank.of(factors)
            if isinstance(module, nn.Embedding) or not isinstance(module, nn.Linear):
                weight.copy_(change.applied(weight.T, 0).T)
            else:
                weight.copy_(change.applied(weight, 0))
            if factors.bias is not None:
                weight_of(module, "bias").add_(factors.scaling * load(factors.bias).to(weight))
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


@torch.no_grad()
def adapt(model: nn.Module, adapter: Adapter, base: Model) -> Adapted:
    """Put an adapter beside a model that is in memory. Raises SourceError for an adapter of another base."""
    label = base.id
    if any(p.is_meta for p in model.parameters()):
        raise SourceError(f"{adapter.label} needs the weights of {label} in memory; leave {setting('device_map')} out")
    modules = dict(model.named_modules())
    found: dict[str, tuple[nn.Module, Factors]] = {}
    for name, factors in adapter.factors.items():
        found[name] = (_fitting(modules, adapter, factors, label), factors)
    _replace_whole(model, adapter, label)  # first: DoRA's norms are of what is there then
    adapted = Adapted(model, adapter, base, found)
    for module, factors in found.values():
        adapted._hooks.append(module.register_forward_hook(_hook(module, factors), with_kwargs=True))
    return adapted


def _fitting(modules: dict[str, nn.Module], adapter: Adapter, factors: Factors, label: str) -> nn.Module:
    module = modules.get(factors.module)
    if module is None:
        raise lacks(adapter, factors.module, label)
    if not is_linear(module) and not isinstance(module, nn.Embedding):
        raise SourceError(
            f"{adapter.label} changes {factors.module}, a {type(module).__name__} in {label}; adapters of Linears, "
            "Conv1Ds and embeddings are read"
        )
    rows, columns = weight_of(module).shape
    wanted = (rows, columns) if isinstance(module, nn.Linear) else (columns, rows)
    check_shapes(adapter, factors, wanted, label)
    if factors.embedding != isinstance(module, nn.Embedding):
        raise SourceError(f"{adapter.label}: {factors.a.name} is no factor of a {type(module).__name__}")
    if factors.bias is not None and getattr(module, "bias", None) is None:
        raise SourceError(f"{adapter.label}: {factors.bias.name} has no bias of {factors.module} to add to")
    return module


def _replace_whole(model: nn.Module, adapter: Adapter, label: str) -> None:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in adapter.whole.items():
        old = parameters.get(name)
        if old is None:
            raise lacks(adapter, name, label)
        if tuple(old.shape) != tensor.shape:
            raise other_shape(adapter, name, tensor.shape, str(list(old.shape)), label)
        new = load(tensor).to(old.device, old.dtype)
        if name in adapter.shared:
            old.copy_(new)
            continue
        # a copy was trained, so what was tied to the old one stays as it was
        owner, _, local = name.rpartition(".")
        setattr(model.get_submodule(owner), local, nn.Parameter(new, requires_grad=old.requires_grad))


def _hook(module: nn.Module, factors: Factors) -> Any:
    weight, change = weight_of(module), LowRank.of(factors)
    a, b = change.a.to(weight), change.b.to(weight)
    bias = None if factors.bias is None else load(factors.bias).to(weight) * factors.scaling
    if factors.embedding:
        scale = getattr(module, "embed_scale", 1.0)  # Gemma's embeddings are scaled inside
        return lambda _, args, kwargs, output: (
            output + F.linear(F.embedding(_given(args, kwargs), a.T), b) * (factors.scaling * scale)
        )
    times: Tensor | None = None
    if change.magnitude is not None:
        matrix = weight if isinstance(module, nn.Linear) else weight.T
        whole = matrix.float() + factors.scaling * (change.b @ change.a).to(weight.device)
        times = (change.magnitude.to(weight.device) / whole.norm(dim=1)).to(weight)

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        added = F.linear(F.linear(_given(args, kwargs), a), b) * factors.scaling
        if bias is not None:
            added = added + bias
        if times is None:
            return output + added
        own = getattr(module, "bias", None)
        product = output if own is None else output - own  # DoRA scales the product alone
        return output + (times - 1) * product + times * added

    return hook


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    x: Tensor = args[0] if args else next(iter(kwargs.values()))
    return x
