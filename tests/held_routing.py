"""A mixture whose tokens go to the experts that they went to before, whatever has changed below."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class HeldRouting:
    """Records which experts each router of `model` chooses for a sequence, and holds it to them later.

    For transformers' TopKRouters, which return (logits, weights, indices): the weights are computed anew from the held
    indices, so that only the choice is held and not how much each expert counts.
    """

    def __init__(self, model: nn.Module) -> None:
        self._routers = {name: m for name, m in model.named_modules() if type(m).__name__.endswith("TopKRouter")}
        assert self._routers, "no router that is known"
        self._chosen: dict[tuple[str, int], Tensor] = {}

    @contextmanager
    def recording(self, sequence: int) -> Iterator[None]:
        yield from self._hooked(lambda name, module, out: self._chosen.update({(name, sequence): out[2].clone()}))

    @contextmanager
    def holding(self, sequence: int) -> Iterator[None]:
        def held(name: str, module: Any, out: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            indices = self._chosen[name, sequence]
            weights = torch.softmax(out[0].float(), -1).gather(-1, indices)
            if getattr(module, "norm_topk_prob", True):
                weights = weights / weights.sum(-1, keepdim=True)
            return out[0], weights.to(out[1].dtype), indices

        yield from self._hooked(held)

    def _hooked(self, hook: Any) -> Iterator[None]:
        handles = [
            module.register_forward_hook(lambda m, _, out, name=name: hook(name, m, out))
            for name, module in self._routers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
