"""The decoder layers of a model, run one by one inside the model's own forward pass.

Not here: what is measured. A model's masks and position embeddings are not rebuilt. Instead each layer's forward is
replaced for one pass: the visitor gets a `LayerCall` with everything the model passed, and may run the layer on any
hidden state, as often as it likes, before it returns the clean output. `tail` runs what comes after the last layer
(norm and head) on a given hidden state by letting every layer pass its input through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from srdd.errors import SiteError
from srdd.models.modules import decoder_layers
from srdd.models.replaced_forward import Forward, ReplacedForward
from srdd.models.running import run
from srdd.models.wrapped import named_modules


@dataclass(frozen=True)
class LayerCall:
    """One layer as the model is about to call it."""

    index: int
    name: str
    hidden: Tensor
    _forward: Callable[..., Any]
    _args: tuple[Any, ...]
    _kwargs: dict[str, Any]

    def output(self, hidden: Tensor) -> Any:
        """What the layer returns for this hidden state, in the form that the model expects."""
        if self._args:
            return self._forward(hidden, *self._args[1:], **self._kwargs)
        return self._forward(**{**self._kwargs, "hidden_states": hidden})

    def run(self, hidden: Tensor) -> Tensor:
        """The hidden state that the layer makes of this one."""
        return first(self.output(hidden))


Visitor = Callable[[LayerCall], Any]


def first(output: Any) -> Tensor:
    """The hidden state of a layer's output, which some models wrap in a tuple."""
    while isinstance(output, tuple | list):
        output = output[0]
    if not isinstance(output, Tensor):
        raise SiteError(f"a decoder layer returned {type(output).__name__}, expected a tensor")
    return output


class LayerStack:
    """The layers of one stack in order, that of the text where there are towers for pictures or sounds.

    Raises SiteError when the model has none, or has two (encoder and decoder).
    """

    def __init__(self, model: nn.Module) -> None:
        index_of = decoder_layers(model)
        if not index_of:
            raise SiteError(
                f"{type(model).__name__}: no decoder layers found; looked for an nn.ModuleList of alike blocks that "
                "hold Linears"
            )
        names = list(index_of)
        parents = {name.rpartition(".")[0] for name in names}
        if len(parents) > 1:
            raise SiteError(
                f"{type(model).__name__} has {len(parents)} stacks of layers ({', '.join(sorted(parents))}); impact "
                "follows the hidden state through one"
            )
        modules = dict(named_modules(model))
        self.model = model
        self.names = names
        self.layers = [modules[name] for name in self.names]
        self._beside: dict[int, int | None] = {}  # values a layer returns beside the state; None: a bare tensor

    def __len__(self) -> int:
        return len(self.layers)

    def visit(self, token_ids: Tensor, visitor: Visitor) -> Any:
        """One forward pass in which `visitor` replaces every layer; returns what the model returns."""
        index_of = {name: index for index, name in enumerate(self.names)}
        ran: set[int] = set()  # layers that this pass has run

        def visited(name: str, forward: Forward) -> Forward:
            return self._visited(index_of[name], forward, visitor, ran)

        with ReplacedForward(dict(zip(self.names, self.layers, strict=True)), visited):
            return run(self.model, token_ids)

    def tail(self, token_ids: Tensor, hidden: Tensor) -> Any:
        """What the model returns when its last layer gives `hidden`."""

        def visitor(call: LayerCall) -> Any:
            passed = hidden if call.index == len(self.layers) - 1 else call.hidden
            beside = self._beside.get(call.index)
            return passed if beside is None else (passed, *(None,) * beside)

        return self.visit(token_ids, visitor)

    def _visited(self, index: int, forward: Forward, visitor: Visitor, ran: set[int]) -> Forward:
        def visit_instead(*args: Any, **kwargs: Any) -> Any:
            if index in ran:
                raise SiteError(
                    f"{self.names[index]} runs more than once in a pass; impact needs layers that each run once"
                )
            ran.add(index)
            hidden = args[0] if args else kwargs["hidden_states"]
            output = visitor(LayerCall(index, self.names[index], hidden, forward, args, kwargs))
            self._beside[index] = len(output) - 1 if isinstance(output, tuple) else None
            return output

        return visit_instead


def logits_of(output: Any) -> Tensor | None:
    """The logits of a model's output; None for a model without a language-model head."""
    logits = getattr(output, "logits", None)
    return logits if isinstance(logits, torch.Tensor) and logits.dim() == 3 else None
