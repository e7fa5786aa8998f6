"""The modules of a model under the names that they have without PEFT around them.

PEFT puts a layer of its own in a Linear's place, the Linear inside it as `base_layer` and adapters beside it, and keeps
a module that it trains whole beside the original. Here the Linear has its old name, of two copies the one in use
counts, and adapters are no modules of the model: deployment stacks keep them in 16 bit. PEFT is told by these
attributes, so it need not be installed. A model without it has the names of `model.named_modules()`.

Not here: adapters that lie in files (files/adapter.py), and wrappers of other libraries (noise's `canonical`).

Worked number: "base_model.model.model.layers.0.self_attn.q_proj.base_layer" is "model.layers.0.self_attn.q_proj".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

ADAPTER = "adapter: deployment stacks keep it in 16 bit beside the quantized weight"
REPLACED = "replaced by the copy that was trained in its place (modules_to_save)"


def bare(module: nn.Module) -> nn.Module:
    """What computes in a module's place, without the wrappers around it; of a PEFT model the model inside."""
    while (inner := _inside(module)) is not None:
        module = inner
    return module


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module in use with its name, in module order, each once; no adapter and no wrapper."""
    yield from _walk("", bare(model), set())


def beside_model(model: nn.Module) -> dict[int, str]:
    """By id the parameters that are no part of any module in use, with the reason; empty without PEFT."""
    used = {id(p) for _, module in named_modules(model) for p in module.parameters(recurse=False)}
    replaced: set[int] = set()
    for module in model.modules():
        original = module._modules.get("original_module")
        if original is not None:
            replaced |= {id(p) for p in original.parameters()}
    return {id(p): REPLACED if id(p) in replaced else ADAPTER for p in model.parameters() if id(p) not in used}


def computed_anew(model: nn.Module) -> frozenset[str]:
    """Fused experts whose weights PEFT computes with the adapter in each call (target_parameters), by their names."""
    return frozenset(
        name for name, module in _with_wrappers("", model, set()) if type(module).__name__ == "ParamWrapper"
    )


def parameter_names(model: nn.Module) -> Iterator[tuple[str, Tensor, nn.Module]]:
    """Every parameter once, with its name and the module that holds it; adapters under the names that PEFT gives."""
    owners: dict[int, tuple[str, nn.Module]] = {}
    for name, module in named_modules(model):
        for local, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), (f"{name}.{local}".lstrip("."), module))
    for name, parameter in model.named_parameters():
        beside = (name, model.get_submodule(name.rpartition(".")[0]))
        known, owner = owners.get(id(parameter)) or beside
        yield known, parameter, owner


def _walk(name: str, module: nn.Module, seen: set[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    if module in seen:
        return
    seen.add(module)
    yield name, module
    for local, child in module._modules.items():
        if child is not None:
            yield from _walk(f"{name}.{local}" if name else local, bare(child), seen)


def _with_wrappers(name: str, module: nn.Module, seen: set[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """As `_walk`, and every wrapper under the name of what is in it."""
    if module in seen:
        return
    seen.add(module)
    yield name, module
    inner = _inside(module)
    if inner is not None:
        yield from _with_wrappers(name, inner, seen)
        return
    for local, child in module._modules.items():
        if child is not None:
            yield from _with_wrappers(f"{name}.{local}" if name else local, child, seen)


def _inside(module: nn.Module) -> nn.Module | None:
    """The module that a wrapper of PEFT's is around; None for a module that is no wrapper."""
    parts = module._modules
    if "base_layer" in parts and hasattr(type(module), "adapter_layer_names"):
        return parts["base_layer"]
    if "token_adapter" in parts and hasattr(type(module), "adapter_layer_names"):
        return parts["token_adapter"]  # which has the embedding as its base_layer
    if "original_module" in parts and hasattr(type(module), "adapter_layer_names"):
        return _copy_in_use(module)
    if "base_model" in parts and hasattr(module, "peft_config"):
        return parts["base_model"]
    # a tuner (LoraModel) holds the model alone
    if set(parts) == {"model"} and isinstance(getattr(module, "peft_config", None), dict):
        return parts["model"]
    return None


def _copy_in_use(wrapper: Any) -> nn.Module | None:
    """Of a module that PEFT trains whole: the copy of the active adapter, unless adapters are switched off."""
    copies = wrapper._modules.get("modules_to_save")
    active = getattr(wrapper, "active_adapters", None) or ()
    for name in () if getattr(wrapper, "disable_adapters", False) or copies is None else active:
        if name in copies:
            copy: nn.Module = copies[name]
            return copy
    original: nn.Module | None = wrapper._modules["original_module"]
    return original
