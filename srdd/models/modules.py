"""What the modules of a model are, Linears, fused experts or decoder layers, told by type and not by name.

Not here: which of them are measured (sites.py). A new kind of Linear or of fused experts is a line here.
"""

from __future__ import annotations

from torch import Tensor, nn

from srdd.core.roles import is_tower
from srdd.errors import SiteError


def decoder_layers(model: nn.Module) -> dict[str, int]:
    """The decoder (or encoder) layers by module name with their index: the outermost ModuleLists of alike blocks.

    Two stacks (an encoder and a decoder) are numbered consecutively, in module order; towers for pictures or sounds
    come last, so that the layers of the text count from 0.
    """
    stacks: list[tuple[str, int]] = []  # name with a dot, and depth
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) == 0:
            continue
        prefix = f"{name}." if name else ""
        if any(prefix.startswith(f"{outer}{i}.") for outer, depth in stacks for i in range(depth)):
            continue
        if all(_holds_linear(block) for block in module) and len({type(block) for block in module}) <= 2:
            stacks.append((prefix, len(module)))
    layers: dict[str, int] = {}
    for prefix, depth in sorted(stacks, key=lambda stack: is_tower(stack[0])):
        layers.update({f"{prefix}{i}": len(layers) + i for i in range(depth)})
    return layers


def layer_of(path: str, stacks: dict[str, int]) -> int | None:
    """The layer that a module or parameter belongs to, by `decoder_layers`; None outside all layers."""
    parts = path.split(".")
    return next((stacks[p] for d in range(len(parts), 0, -1) if (p := ".".join(parts[:d])) in stacks), None)


def is_linear(module: nn.Module) -> bool:
    """True for nn.Linear and transformers' Conv1D, told by its name so that transformers need not be imported."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def fused_experts(module: nn.Module) -> tuple[str, ...]:
    """Names of 3-D parameters [experts, out, in] held directly by an experts module; empty for anything else."""
    if "expert" not in type(module).__name__.lower():
        return ()
    return tuple(name for name, p in module.named_parameters(recurse=False) if p.dim() == 3 and "bias" not in name)


def experts_transposed(module: nn.Module) -> bool:
    """True for fused experts stored [experts, in, out].

    transformers says so on most such modules (`is_transposed`). Otherwise the shapes tell: gate and up side by side are
    twice as wide as what down takes, so [experts, in, 2 * middle] goes with [experts, middle, in].
    """
    said = getattr(module, "is_transposed", None)
    if said is not None:
        return bool(said)
    shapes = [tuple(getattr(module, name).shape) for name in fused_experts(module)]
    return any(a[2] == 2 * b[1] and a[1] == b[2] for a in shapes for b in shapes)


def weight_of(module: nn.Module, parameter: str | None = None) -> Tensor:
    """The parameter of a weight site as stored, by default `weight`."""
    weight = getattr(module, parameter or "weight", None)  # packed modules have none
    if not isinstance(weight, Tensor):
        raise SiteError(f"{type(module).__name__}: expected a tensor as weight, found {type(weight).__name__}")
    return weight


def require_module(model: nn.Module) -> None:
    """Raises SiteError for anything but a model in memory, e.g. a name that the command line would open."""
    if not isinstance(model, nn.Module):
        raise SiteError(
            f"expected a model in memory (torch.nn.Module), found {type(model).__name__}; open it first: "
            "srdd.models.open_model(name).model"
        )


def _holds_linear(block: nn.Module) -> bool:
    """A block is a layer when Linears sit below it; a plain list of Linears is no stack of layers."""
    return not is_linear(block) and any(is_linear(m) or fused_experts(m) for m in block.modules())
