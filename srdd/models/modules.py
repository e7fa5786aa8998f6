"""What the modules of a model are, Linears, fused experts or decoder layers, told by type and not by name.

Not here: which of them are measured (sites.py). A new kind of Linear or of fused experts is a line here.
"""

from __future__ import annotations

from torch import Tensor, nn

from srdd.core.roles import is_beside_text
from srdd.errors import SiteError
from srdd.models.wrapped import named_modules

_CALLED = frozenset({"layers", "layer", "h", "blocks", "block", "decoder_layers"})


def decoder_layers(model: nn.Module) -> dict[str, int]:
    """The decoder (or encoder) layers of the text by module name with their index: the outermost ModuleLists of blocks.

    Two stacks (an encoder and a decoder) are numbered consecutively, in module order. Layers of towers for pictures or
    sounds, and of heads that predict further tokens, are layers of none but such a model alone: `blocks_beside_text`.
    """
    stacks = _stacks(model)
    text = [stack for stack in stacks if not is_beside_text(stack[0])]
    return _numbered(text or stacks)


def blocks_beside_text(model: nn.Module) -> frozenset[str]:
    """The names of the blocks of towers and further heads of a model that has a text stack too."""
    stacks = _stacks(model)
    beside = [stack for stack in stacks if is_beside_text(stack[0])]
    return frozenset(_numbered(beside)) if len(beside) < len(stacks) else frozenset()


def _numbered(stacks: list[tuple[str, int]]) -> dict[str, int]:
    layers: dict[str, int] = {}
    for prefix, depth in stacks:
        layers.update({f"{prefix}{i}": len(layers) + i for i in range(depth)})
    return layers


def _stacks(model: nn.Module) -> list[tuple[str, int]]:
    """Name with a dot, and depth, of the outermost lists of layers, in module order."""
    stacks: list[tuple[str, int]] = []
    for name, module in named_modules(model):
        if not isinstance(module, nn.ModuleList) or len(module) == 0:
            continue
        prefix = f"{name}." if name else ""
        if any(prefix.startswith(f"{outer}{i}.") for outer, depth in stacks for i in range(depth)):
            continue
        if _are_layers(name.rpartition(".")[2], module):
            stacks.append((prefix, len(module)))
    return stacks


def _are_layers(name: str, blocks: nn.ModuleList) -> bool:
    """A list that is called one of layers may hold pruned ones (nn.Identity) and any number of classes."""
    holding = sum(_holds_linear(block) for block in blocks)
    if name in _CALLED and len(blocks) > 1:
        return 2 * holding >= len(blocks)
    return holding == len(blocks) and len({type(block) for block in blocks}) <= 2


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
