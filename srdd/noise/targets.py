"""Which weights of a model get noise, by the class of their module, checked against the layers of rin.yaml.

A target is the weight of a module whose class matches `target_classes` and whose name matches no `exclude`. Anything
that would lose a multiplier without a word is an error: a layer in rin.yaml that the model lacks, a layer of the model
without a multiplier, a multiplier whose layer holds no target, a pattern without a match.

Not here: how much noise a target gets (plan.py).

Worked number: SmolLM2 has 61 RMSNorms: two in each of 30 layers, and the final norm outside them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from srdd.core.roles import BEFORE_ATTENTION, BEFORE_MLP, SANDWICH, Norm, is_beside_text
from srdd.documents.rin import CLASSES, EXCLUDE, RinConfig
from srdd.errors import NoiseError
from srdd.models.modules import decoder_layers, fused_experts, layer_of
from srdd.noise.draw import canonical


@dataclass(frozen=True)
class Target:
    """One weight. `name` is the parameter's as the bare model has it; `path` as this model has it."""

    name: str
    path: str
    module: nn.Module
    attribute: str
    layer: int | None
    norm: Norm | None


def find_targets(model: nn.Module, config: RinConfig) -> tuple[Target, ...]:
    """All targets in module order; a weight that two modules share counts once. Raises NoiseError, as said above."""
    stacks = decoder_layers(model)
    check_layers(model, config, len(stacks))
    _check_excludes(model, config)
    beside = not any(is_beside_text(name) for name in stacks)  # the text alone has multipliers
    targets: dict[str, Target] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        kind = type(module).__name__
        if not any(fnmatchcase(kind, pattern) for pattern in config.target_classes):
            continue
        if any(fnmatchcase(path, pattern) for pattern in config.exclude) or not _in_use(model, path):
            continue
        if beside and is_beside_text(path):
            continue
        for attribute in _weights_of(module, path):
            weight = getattr(module, attribute, None)
            name = canonical(f"{path}.{attribute}")
            if name in targets or id(weight) in seen:
                continue
            if weight is not None:
                seen.add(id(weight))
            layer = layer_of(path, stacks)
            targets[name] = Target(name, f"{path}.{attribute}", module, attribute, layer, norm_fed(model, path, kind))
    _check_matches(model, config, tuple(targets.values()))
    return tuple(targets.values())


def unit_offset(module: nn.Module) -> float:
    """1.0 for norms that multiply by 1 + w (Gemma's, Qwen3-Next's), else 0.0; found by running a copy with w = 0.

    Raises NoiseError when the module cannot be run alone (sharded weights).
    """
    if not any(fnmatchcase(type(module).__name__, pattern) for pattern in CLASSES["rmsnorm"]):
        return 0.0
    try:
        trial = copy.deepcopy(module)
        trial = (trial.to_empty(device="cpu") if any(p.is_meta for p in trial.parameters()) else trial).float()
        with torch.no_grad():
            for parameter in trial.parameters():
                parameter.zero_()
            width = trial.weight.shape[-1]  # type: ignore[index]
            output = trial(torch.linspace(0.5, 1.5, width, device=trial.weight.device).view(1, 1, width))  # type: ignore[arg-type]
    except Exception as problem:
        raise NoiseError(
            f"relative noise: cannot run {type(module).__name__} alone to see whether it multiplies by w or by 1 + w "
            f"({type(problem).__name__}: {problem}); set relative: false"
        ) from problem
    return float(bool(output.any()))


def _weights_of(module: nn.Module, path: str) -> Sequence[str]:
    if "weight" in module._parameters or hasattr(module, "weight"):
        return ("weight",) if getattr(module, "weight", None) is not None else ()
    experts = fused_experts(module)
    if experts:
        return experts
    if not list(module.parameters(recurse=False)):
        return ()  # a norm without weights (elementwise_affine=False), or a wrapper whose child is matched itself
    raise NoiseError(f"{path}: {type(module).__name__} matches target_classes but has no weight to add noise to")


def _in_use(model: nn.Module, path: str) -> bool:
    """False for what PEFT keeps beside the weights in use: adapters, and the copy of a module it trains another of."""
    parts = path.split(".")
    if any(part.startswith("lora_") for part in parts):
        return False
    for depth, part in enumerate(parts):
        if part not in ("original_module", "modules_to_save"):
            continue
        wrapper = model.get_submodule(".".join(parts[:depth]))
        active = getattr(wrapper, "active_adapter", None)
        names = [active] if isinstance(active, str) else list(active or ())
        kept = getattr(wrapper, "modules_to_save", None) or {}
        replaced = not getattr(wrapper, "disable_adapters", False) and any(name in kept for name in names)
        return replaced == (part == "modules_to_save") and (part == "original_module" or parts[depth + 1] in names)
    return True


def norm_fed(model: nn.Module, path: str, kind: str) -> Norm | None:
    """What the norm at `path`, of the class `kind`, stands before; None for what is no norm, or one before neither."""
    if "norm" not in kind.lower():
        return None
    last = canonical(f"{path}.weight").split(".")[-2]
    path = path.partition(".modules_to_save.")[0].removesuffix(".original_module")  # PEFT's wrapper stands for the norm
    if last in BEFORE_ATTENTION:
        return "attention"
    if last == "post_attention_layernorm":
        owner = model.get_submodule(path.rpartition(".")[0])
        return None if hasattr(owner, SANDWICH) else "mlp"
    return "mlp" if last in BEFORE_MLP else None


def check_layers(model: nn.Module, config: RinConfig, count: int) -> None:
    """Raise NoiseError unless the document's layers are exactly 0 .. count - 1."""
    wanted = config.layer_multipliers.keys()
    kind = type(model).__name__
    made = f"rin.yaml was made for {config.provenance.model} with {len(wanted)} layers"
    if not count:
        raise NoiseError(f"{made}; no decoder layers were found in {kind} (looked for a ModuleList of alike blocks)")
    if extra := sorted(layer for layer in wanted if layer >= count):
        raise NoiseError(f"{made}; {kind} has {count}, so the multipliers of layer(s) {extra} would be lost")
    if missing := sorted(set(range(count)) - wanted):
        raise NoiseError(f"{made}; {kind} has {count}, and layer(s) {missing} have no multiplier")


def _check_excludes(model: nn.Module, config: RinConfig) -> None:
    names = [name for name, _ in model.named_modules()]
    for pattern in config.exclude:
        if pattern not in EXCLUDE and not any(fnmatchcase(name, pattern) for name in names):
            raise NoiseError(f"exclude {pattern!r} matches no module of {type(model).__name__}; correct or remove it")


def _check_matches(model: nn.Module, config: RinConfig, targets: Sequence[Target]) -> None:
    kinds = {type(target.module).__name__ for target in targets}
    families = ("rmsnorm", "linear") if config.target == "both" else (config.target,)
    # Of the usual norms a model has one kind; a pattern of the user's own must match by itself.
    usual = {"rmsnorm": {*CLASSES["rmsnorm"], "*RMSNorm", "*LayerNorm", "LayerNorm"}, "linear": set(CLASSES["linear"])}
    groups = [[p for p in config.target_classes if p in usual[family]] for family in families]
    groups += [[p] for p in config.target_classes if p not in usual["rmsnorm"] | usual["linear"]]
    for patterns in groups:
        if patterns and not any(fnmatchcase(kind, pattern) for kind in kinds for pattern in patterns):
            held = sorted({type(m).__name__ for m in model.modules() if list(m.parameters(recurse=False))})
            raise NoiseError(
                f"no module of class {' or '.join(patterns)} gets noise in {type(model).__name__}, "
                f"whose modules with weights are {', '.join(held)}; correct target, target_classes or exclude"
            )
    reached = {target.layer for target in targets}
    if unused := sorted(config.layer_multipliers.keys() - reached):
        raise NoiseError(f"the multipliers of layer(s) {unused} reach no weight: target_classes and exclude leave none")
    for norm, values in (config.norm_multipliers or {}).items():
        fed = {target.layer for target in targets if target.norm == norm}
        if unused := sorted(values.keys() - fed):
            raise NoiseError(f"norm_multipliers.{norm}: layer(s) {unused} have no {norm} norm among the targets")
