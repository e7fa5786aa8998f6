"""How much Gaussian noise on a weight costs: the trace of its Fisher information, from gradients that are there anyway.

Not here: the labels and the backward pass (fisher.py). With labels drawn from the model and G the gradient of their
-log p, summed over a sequence, the KL of noise d on a weight is 1/2 d' E[G G'] d. For independent d of variance sigma^2
its mean is sigma^2 / 2 * E|G|^2: only the squared length of G is needed. That of a Linear's G = g' x needs no G either
where sequences are short: |g' x|^2 = sum((g g') * (x x')).

Worked number: |G|^2 = 511 over 511 predicted tokens is a trace of 1 a token; sigma = 0.01 costs 0.00005 nats.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from srdd.core.roles import Norm
from srdd.errors import NoiseError
from srdd.kernels.precision import to_float64
from srdd.models.modules import decoder_layers, layer_of
from srdd.models.wrapped import bare, named_modules
from srdd.noise.targets import norm_fed, unit_offset


@dataclass(frozen=True)
class NormWeight:
    """The weight of a norm."""

    name: str
    weight: nn.Parameter
    layer: int | None
    feeds: Norm | None
    offset: float  # 1 where the norm multiplies by 1 + w (Gemma), so that its rms is that of 1 + w


def norm_weights(model: nn.Module) -> list[NormWeight]:
    """Those of all norms, told by their class; one that is shared counts once."""
    stacks, seen, found = decoder_layers(model), set[int](), []
    for path, module in named_modules(model):
        weight = module._parameters.get("weight")
        kind = type(module).__name__
        if "norm" not in kind.lower() or weight is None or weight.dim() != 1 or id(weight) in seen:
            continue
        seen.add(id(weight))
        layer, feeds = layer_of(path, stacks), norm_fed(bare(model), path, kind)
        found.append(NormWeight(f"{path}.weight", weight, layer, feeds, _offset(module)))
    return found


def _offset(module: nn.Module) -> float:
    try:
        return unit_offset(module)
    except NoiseError:  # a norm that cannot run alone; its rms is then that of its weight
        return 0.0


@contextmanager
def gathering(norms: list[NormWeight]) -> Iterator[None]:
    """The weights of these norms take gradients, which start at none; what they had before comes back at the end."""
    before = [(norm.weight, norm.weight.requires_grad, norm.weight.grad) for norm in norms]
    try:
        for norm in norms:
            norm.weight.requires_grad_(True)
            norm.weight.grad = None
        yield
    finally:
        for weight, wanted, grad in before:
            weight.requires_grad_(wanted)
            weight.grad = grad


def taken(norm: NormWeight) -> float | None:
    """The squared length of the gradient that a backward pass has left, which is dropped; None where it left none."""
    grad, norm.weight.grad = norm.weight.grad, None
    return None if grad is None else float(to_float64(grad).square().sum())


def squared_length(g: Tensor, x: Tensor) -> float:
    """|g' x|^2 for g [rows, out] and x [rows, in], by whichever products are fewer."""
    g, x = g.float(), x.float()
    if len(x) * (g.shape[1] + x.shape[1]) < g.shape[1] * x.shape[1]:
        return float(to_float64((g @ g.T) * (x @ x.T)).sum())
    return float(to_float64(g.T @ x).square().sum())
