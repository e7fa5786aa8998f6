"""A tiny Llama, data for it, and an observer of the weights that forward passes really see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

LAYERS = 2


def tiny_llama(seed: int = 0, **settings: Any) -> Any:
    """Norms of 512 values, so that a measured standard deviation is good to 3 %."""
    torch.manual_seed(seed)
    config = {
        "vocab_size": 32,
        "hidden_size": 512,
        "intermediate_size": 16,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 64,
    }
    return LlamaForCausalLM(LlamaConfig(**{**config, **settings}))


def rows(count: int) -> list[dict[str, Tensor]]:
    """Sequences of 8 tokens."""
    tokens = torch.randint(2, 32, (count, 8), generator=torch.Generator().manual_seed(3))
    return [{"input_ids": row, "labels": row} for row in tokens]


def norms(model: nn.Module) -> dict[str, Tensor]:
    """Copies of everything that noise on norms reaches."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if "norm" in n}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@dataclass(frozen=True)
class Forward:
    """One forward pass: the optimizer step it came in, its mode, its weights and those without noise.

    kind: "rollout" with a cache, "loss" with gradients, "score" without either.
    """

    step: int
    kind: str
    training: bool
    seen: dict[str, Tensor]
    clean: dict[str, Tensor]

    @property
    def noise(self) -> dict[str, Tensor]:
        return {name: self.seen[name] - self.clean[name] for name in self.seen}

    @property
    def noisy(self) -> bool:
        return not same(self.seen, self.clean)


class Observer(TrainerCallback):
    """Records the weights of every forward pass. Noise is off at a step's end, so what it keeps there is clean."""

    def __init__(self) -> None:
        self.forwards: list[Forward] = []
        self.after: dict[int, dict[str, Tensor]] = {}  # clean weights by the number of steps done
        self._state: Any = None
        self._clean: dict[str, Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self._state, self._clean = state, norms(model)
        self.after[state.global_step] = self._clean
        model.register_forward_pre_hook(self._watch, with_kwargs=True)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self._clean = norms(model)
        self.after[state.global_step] = self._clean

    def of(self, *, training: bool, kind: str | None = None) -> Iterator[Forward]:
        return (f for f in self.forwards if f.training is training and kind in (None, f.kind))

    def _watch(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        cached = named.get("past_key_values") is not None
        kind = "rollout" if cached else "loss" if torch.is_grad_enabled() else "score"
        self.forwards.append(Forward(self._state.global_step, kind, module.training, norms(module), self._clean))
