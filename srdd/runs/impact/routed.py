"""Calls of a mixture's experts, taken apart into rows: one for every token and expert that the token went to.

Not here: what a change of such a row costs (fisher.py). Three forms are understood: fused experts called with hidden
states, expert indices and weights (most of transformers); fused experts called with every token once for each expert
(Llama 4), in which a row of zeros was not routed; and lists of experts that are modules, each called with its rows,
whose places are found by comparing them with the rows that the mixture got.

Worked number: 100 tokens with the top 2 of 8 experts are 200 rows; a run of the module on 200 tokens with one expert
each gives every expert's part by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from srdd.models.modules import fused_experts

_ENOUGH = 16  # values by which a row is found again, before all are compared


@dataclass(frozen=True)
class RoutedCall:
    """A call of fused experts on one sequence; `expert` and `position` tell what its rows are."""

    module: nn.Module
    hidden: Tensor  # as given
    expert: Tensor  # [rows]
    position: Tensor  # [rows]
    routed: Tensor  # [rows], False for a row that no router chose
    _weights: Tensor | None  # [rows, 1]; None: all rows are given as they are

    def run(self, hidden: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """The output of every row by itself, with some parameters replaced."""
        if self._weights is None:
            output = torch.func.functional_call(self.module, dict(parameters), (hidden,))
        else:
            rows = hidden.reshape(-1, hidden.shape[-1])[self.position]
            output = torch.func.functional_call(
                self.module, dict(parameters), (rows, self.expert[:, None], self._weights)
            )
        return output.reshape(len(self.expert), -1)  # type: ignore[no-any-return]

    def tokens(self) -> list[int]:
        """How many tokens each expert got."""
        experts = getattr(self.module, fused_experts(self.module)[0]).shape[0]
        counts: list[int] = torch.bincount(self.expert[self.routed], minlength=experts).tolist()
        return counts

    def rows_of(self, g: Tensor) -> Tensor:
        """The gradient at the module's output, by row."""
        flat = g.reshape(-1, g.shape[-1])
        return flat if self._weights is None else flat[self.position]


def routed_call(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], length: int) -> RoutedCall | None:
    """What fused experts were called with on a sequence of `length` tokens; None in a form that is not understood."""
    given = [*args, *kwargs.values()]
    if not given or not all(isinstance(x, Tensor) for x in given):
        return None
    experts = getattr(module, fused_experts(module)[0]).shape[0]
    hidden, *others = (x.detach() for x in given)
    if not others and hidden.dim() == 2 and len(hidden) == experts * length:
        expert = torch.arange(experts, device=hidden.device).repeat_interleave(length)
        position = torch.arange(length, device=hidden.device).repeat(experts)
        return RoutedCall(module, hidden, expert, position, hidden.ne(0).any(-1), None)
    if len(others) != 2 or hidden.shape[:-1].numel() != length:
        return None
    index, weights = others
    if index.is_floating_point() or index.shape != weights.shape or index.dim() != 2 or len(index) != length:
        return None
    position = torch.arange(length, device=hidden.device).repeat_interleave(index.shape[1])
    expert = index.flatten()
    return RoutedCall(
        module, hidden, expert, position, torch.ones_like(expert, dtype=torch.bool), weights.reshape(-1, 1)
    )


def expert_of(name: str) -> tuple[str, int] | None:
    """The expert that a Linear is part of, where each is a module: ("experts.3", 3) of "experts.3.down_proj"."""
    before, found, after = f".{name}".rpartition(".experts.")
    number = after.partition(".")[0]
    return (f"{before}.experts.{number}".lstrip("."), int(number)) if found and number.isdecimal() else None


def places(rows: Tensor, among: Tensor) -> Tensor | None:
    """Where each of `rows` stands in `among`; None when one is not found, or two stand at one place."""
    few = min(_ENOUGH, rows.shape[-1])
    same = (rows[:, None, :few] == among[None, :, :few]).all(-1)
    found = same.int().argmax(1)
    if len(set(found.tolist())) != len(found) or not torch.equal(among[found], rows):
        return None
    return found
