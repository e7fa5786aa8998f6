"""Finds the tensors of a model that are measured, by type and not from a list of names.

Towers for pictures or sounds and heads that predict further tokens stand outside the layers: their blocks have numbers
of their own, in their names.

Not here: hooks and numbers. A site is a weight (of nn.Linear, transformers' Conv1D or fused 3-D experts), the input of
such a module, or the output of a decoder layer. Every parameter of the model is either a weight site or listed as
skipped with its reason.

Worked number: SmolLM2-135M has 30 layers of 7 Linears and a tied lm_head, so 211 Linears; q/k/v and gate/up share their
input, which leaves 4 input tensors a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from srdd.core.roles import fusion_group, is_beside_text
from srdd.documents.parts import KINDS, Kind
from srdd.documents.schema import Skipped
from srdd.errors import SiteError, TensorError, setting
from srdd.models.modules import (
    blocks_beside_text,
    decoder_layers,
    experts_transposed,
    fused_experts,
    is_linear,
    layer_of,
    weight_of,
)
from srdd.models.wrapped import beside_model, named_modules, parameter_names


@dataclass(frozen=True)
class Site:
    """One tensor to measure. `module` is the module's name; `parameter` its weight's attribute for weight sites."""

    kind: Kind
    name: str
    module: str
    role: str
    layer: int | None
    group: str | None
    parameter: str | None = None
    transposed: bool = False  # weight stored [in, out]: blocks run along in, so it is transposed before measuring
    may_be_idle: bool = False  # an expert, to which the router may send no tokens
    numel: int = 0  # of a weight
    index: int = 0  # place among the sites of the model, in module order
    beside_text: bool = False  # of a tower or a further head of a model that has a text stack too
    stored: tuple[str, ...] = ()  # of files: the tensors whose rows make this weight, one matrix after the other
    shape: tuple[int, ...] = ()  # of files

    @property
    def routed(self) -> bool:
        """A module of one expert: its rows are those that the router sent it, no telling of which sequence."""
        return self.may_be_idle and self.role != "experts"


@dataclass(frozen=True)
class SiteMap:
    """The sites of a model, and the parameters that are not sites."""

    sites: tuple[Site, ...]
    skipped: tuple[Skipped, ...]
    parameters: int
    layer_count: int
    kinds: tuple[Kind, ...] = KINDS  # that were looked for
    beside: int = 0  # of `parameters`: those of adapters and of replaced modules
    selection: str | None = None  # of layers or modules, as the user gave it
    architecture: str | None = None  # of files: the class whose names these are; None where the names are the files'

    def of(self, kind: Kind) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if site.kind == kind)


def find_sites(model: nn.Module, kinds: Sequence[Kind] = KINDS) -> SiteMap:
    """All sites of the kinds asked for, in module order. Raises SiteError when there is none.

    Raises TensorError for a weight that holds codes, which mean nothing without the scales beside them.
    """
    stacks, beside = decoder_layers(model), blocks_beside_text(model)
    sites: list[Site] = []
    for name, module in named_modules(model):
        layer = layer_of(name, stacks)
        of_module = _module_sites(name, module, layer)
        if name in stacks or name in beside:
            of_module.append(Site("output", name, name, "decoder_layer", layer, None))
        outside = bool(beside) and is_beside_text(name)
        sites += [replace(site, beside_text=True) for site in of_module] if outside else of_module
    chosen = tuple(replace(site, index=index) for index, site in enumerate(sites) if site.kind in kinds)
    if not chosen:
        raise SiteError(f"nothing to measure: {type(model).__name__} has no {' or '.join(kinds)} site")
    _refuse_codes(model, chosen)
    parameters = sum(p.numel() for p in model.parameters())
    wanted = tuple(kind for kind in KINDS if kind in kinds)
    around = beside_model(model)
    beside_count = sum(p.numel() for p in model.parameters() if id(p) in around)
    return SiteMap(chosen, _skipped(model, chosen, kinds), parameters, len(stacks), wanted, beside_count)


def _refuse_codes(model: nn.Module, sites: Sequence[Site]) -> None:
    modules = dict(named_modules(model))
    for site in sites:
        if site.kind == "weight":
            module = modules[site.module]
            dtype = weight_of(module, site.parameter).dtype
            if not dtype.is_floating_point or dtype.itemsize < 2:
                raise TensorError(
                    f"{site.module}.{site.parameter} holds codes ({str(dtype).removeprefix('torch.')}) in "
                    f"{type(module).__name__}, which are not measured without their scales; dequantize the model, "
                    f"or scan its files alone: {setting('sites', 'weight')}"
                )


def _module_sites(name: str, module: nn.Module, layer: int | None) -> list[Site]:
    role = name.rsplit(".", 1)[-1]
    idle = "expert" in name.lower()
    experts = fused_experts(module)
    if experts:
        transposed = experts_transposed(module)
        weights = [
            Site("weight", f"{name}.{p}", name, p, layer, name, p, transposed, idle, getattr(module, p).numel())
            for p in experts
        ]
        return [*weights, Site("input", name, name, "experts", layer, name, may_be_idle=idle)]
    if not is_linear(module):
        return []
    group = fusion_group(name, role)
    transposed = not isinstance(module, nn.Linear)
    size = weight_of(module).numel()
    return [
        Site("weight", name, name, role, layer, group, "weight", transposed, idle, size),
        Site("input", name, name, role, layer, group, may_be_idle=idle),
    ]


def _skipped(model: nn.Module, sites: Sequence[Site], kinds: Sequence[Kind]) -> tuple[Skipped, ...]:
    """Every parameter that no weight site covers. A tied weight counts once and is covered by any of its names."""
    modules, beside = dict(named_modules(model)), beside_model(model)
    covered = {id(weight_of(modules[s.module], s.parameter)) for s in sites if s.kind == "weight"}
    rows = []
    for name, parameter, owner in parameter_names(model):
        if id(parameter) in covered:
            continue
        reason = beside.get(id(parameter)) or _reason(name, parameter, owner, kinds)
        rows.append(Skipped(name=name, parameters=parameter.numel(), reason=reason))
    return tuple(rows)


def _reason(name: str, parameter: Tensor, owner: nn.Module, kinds: Sequence[Kind]) -> str:
    if "weight" not in kinds and (is_linear(owner) or fused_experts(owner)) and parameter.dim() >= 2:
        return "not selected"
    if isinstance(owner, nn.Embedding):
        return "embedding: looked up, never multiplied"
    if parameter.dim() <= 1 or "bias" in name.rpartition(".")[2]:
        return "vector (norm, bias): deployment stacks keep it in high precision"
    if "router" in type(owner).__name__.lower() or "gate" in type(owner).__name__.lower():
        return "router: deployment stacks keep it in high precision"
    if type(owner).__name__ == "ParametrizationList" or (is_linear(owner) and "weight" not in owner._parameters):
        return "part of a weight that is computed when it is used (weight_norm and its kin)"
    if is_linear(owner):
        return f"{type(owner).__name__} holds it beside its weight"
    return f"{type(owner).__name__} is no Linear, Conv1D or fused experts"
