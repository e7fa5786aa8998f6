"""The same layers on another device: each gets the input that it had on the first, and gives nearly the same.

Not here: opening the model there. The other model runs its own pass, for its masks and positions, and every layer of it
is given the hidden state that the first model's layer was given.

Worked number: two healthy CPUs agree exactly, a CPU and a GPU in float32 to about 1e-6, in bfloat16 to about 1e-2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from srdd.documents.fault import ModuleHealth
from srdd.errors import SettingError
from srdd.kernels.precision import to_float64
from srdd.models.placement import device_of
from srdd.models.running import evaluating
from srdd.models.stack import LayerStack, first


def note_agreement(rows: Sequence[ModuleHealth], model: nn.Module, other: nn.Module, token_ids: Tensor) -> None:
    """Sets `agreement` of every layer: rms of the difference over that of the output. Raises SettingError."""
    here, there = LayerStack(model), LayerStack(other)
    if len(here) != len(there):
        raise SettingError("against", None, f"that model has {len(there)} layers, this one {len(here)}")
    given: list[Tensor] = []
    gave: list[Tensor] = []
    handles = []
    for layer in here.layers:  # hooks see what other hooks do to a layer
        handles.append(layer.register_forward_pre_hook(_keeping(given), with_kwargs=True, prepend=True))
        handles.append(layer.register_forward_hook(lambda m, a, y: gave.append(first(y).detach())))
    try:
        here.visit(token_ids, lambda call: call.output(call.hidden))
    finally:
        for handle in handles:
            handle.remove()
    found: dict[int, float] = {}

    def visitor(call):  # type: ignore[no-untyped-def]
        mine = to_float64(gave[call.index]).cpu()
        output = call.output(given[call.index].to(call.hidden))
        theirs = to_float64(first(output)).cpu()
        off = (mine - theirs).square().mean().sqrt() / theirs.square().mean().sqrt().clamp_min(1e-300)
        found[call.index] = float(off) if torch.isfinite(off) else 1e300
        return output

    with evaluating(other), torch.no_grad():
        there.visit(token_ids.to(device_of(other)), visitor)
    for row in rows:
        if not row.module:
            row.agreement = found[row.layer]


def _keeping(kept: list[Tensor]):  # type: ignore[no-untyped-def]
    def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        assert isinstance(hidden, Tensor)
        kept.append(hidden.detach())

    return hook
