"""The error of every Linear's own output with its weight, its input, or both quantized, on clean inputs.

Not here: what the error does further up (sweep.py). Hooks on one clean forward take evenly spaced tokens of each
sequence (0: all) and compute the products again there. The interaction is how far the two errors add up:
(|e_both|^2 - |e_weight|^2 - |e_input|^2) / |e_both|^2, 0 when they are uncorrelated.

Worked number: |e_weight|^2 = 3, |e_input|^2 = 5, |e_both|^2 = 8 beside |y|^2 = 800: relative errors 6.1, 7.9 and 10 %,
interaction 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from srdd.core.modes import MODES
from srdd.kernels.precision import to_float64
from srdd.models.quantizer import Quantizer
from srdd.models.wrapped import named_modules


@dataclass
class OutputErrors:
    """Squared norms by sequence, in the order the sequences ran."""

    output: list[float] = field(default_factory=list)
    errors: dict[str, list[float]] = field(default_factory=lambda: {mode: [] for mode in MODES})


class LinearErrors:
    """Accumulates OutputErrors by (format, module) while its block is open."""

    def __init__(self, model: nn.Module, names: Sequence[str], quantizers: Sequence[Quantizer], tokens: int) -> None:
        modules = dict(named_modules(model))
        self._modules = {name: modules[name] for name in names}
        self._quantizers, self._tokens = quantizers, tokens  # of each sequence; 0: all
        self._shape: Sequence[int] = (0, 0)
        self.results: dict[tuple[str, str], OutputErrors] = {}

    @contextmanager
    def measuring(self, length: int) -> Iterator[None]:
        """For one pass over one sequence of this length."""
        self._shape = (1, length)
        handles = [m.register_forward_pre_hook(self._hook(name)) for name, m in self._modules.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            x = by_sequence(name, args[0].detach(), self._shape)
            if x is None:  # rows of another shape, and all of one sequence, or a table of no sequence in particular
                x = args[0].detach().reshape(1, -1, args[0].shape[-1])
            with torch.no_grad():
                self._measure(name, module, x)

        return hook

    def _measure(self, name: str, module: nn.Module, x: Tensor) -> None:
        transposed = not isinstance(module, nn.Linear)
        w = module.weight.detach()  # type: ignore[operator]
        kept = _spaced(x.shape[1], self._tokens, x.device)
        some = x[:, kept]
        matrix = w if transposed else w.T
        output = _norms(some @ matrix)
        for quantizer in self._quantizers:
            dw = quantizer.weight(w, f"{name}.weight", transposed=transposed) - w
            dw = dw if transposed else dw.T
            dx = quantizer.activation(x, name)[:, kept] - some  # blocks and tensor scales of the whole sequence
            of_weight, of_input = some @ dw, dx @ matrix
            result = self.results.setdefault((quantizer.name, name), OutputErrors())
            result.output += output
            result.errors["weight"] += _norms(of_weight)
            result.errors["input"] += _norms(of_input)
            result.errors["both"] += _norms(of_weight + of_input + dx @ dw)


def by_sequence(name: str, x: Tensor, shape: Sequence[int]) -> Tensor | None:
    """The input of a Linear as [sequences, rows, features] for a batch [sequences, length].

    Some models flatten a batch (OPT, shared experts) or add an axis (DeepSeek). None for rows routed to one expert:
    no telling which sequence they belong to.
    """
    if x.dim() == 3:
        return x
    count, length = shape
    if ".experts." in name or x.shape[0] not in (count, count * length) or x.shape[:-1].numel() != count * length:
        return None
    return x.reshape(count, length, x.shape[-1])


def _spaced(length: int, count: int, device: torch.device) -> Tensor:
    """The places of `count` evenly spaced tokens; all where count is 0."""
    if count <= 0 or count >= length:
        return torch.arange(length, device=device)
    return torch.linspace(0, length - 1, count, device=device).round().long()


def _norms(x: Tensor) -> list[float]:
    result: list[float] = to_float64(x).flatten(1).square().sum(1).tolist()
    return result
