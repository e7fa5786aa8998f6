"""What a module must give, told by what is around it: a Linear by its weight, a layer by the sum of its parts.

Redundancy that every transformer has is enough, and no model of health is needed. A Linear's output is its weight times
its input, computed here in float64 on the CPU. A layer, an attention or an MLP gives a sum of its input and of what its
parts gave, with the same few coefficients for all values; they are found by least squares that leave out what does not
fit. And one of its parts gets its input as it is. Checking sums by computing them otherwise is how Huang and Abraham
(1984) find faults in matrix hardware.

Not here: how found and expected differ (deviation.py).

Worked number: a Llama layer gives 1 x its input + 1 x self_attn + 1 x mlp, exactly but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product as product_of
from typing import NamedTuple

import torch
from torch import Tensor, nn

from srdd.kernels.precision import to_float64
from srdd.models.modules import is_linear, weight_of
from srdd.runs.faults.capture import Call

_ROUNDS = 8  # of least squares
_FITS = 1e-6  # half of the values are this near, by their largest term
_MOST_PARTS = 6  # whose sums are all tried
_ADD_UP = 0.05  # of the values must, which by chance a millionth does
_SNAP = 0.02  # coefficients this near to a whole number are that number
_EPS32 = torch.finfo(torch.float32).eps


class Expected(NamedTuple):
    """Found and expected values of the same places, and by how much they may differ by rounding; float64, CPU."""

    found: Tensor
    expected: Tensor
    tolerance: Tensor


def product(call: Call, rows: Tensor) -> Expected | None:
    """A Linear's output against its weight and input; None for weights that are none of floats."""
    weight = getattr(call.module, "weight", None)
    if not is_linear(call.module) or call.given is None or call.output is None or not isinstance(weight, Tensor):
        return None
    if weight.dim() != 2 or not weight.is_floating_point() or weight.is_meta:
        return None
    x, y, w = wide(call.given[rows]), wide(call.output[rows]), matrix_of(call.module)
    if x.shape[1] != w.shape[1] or y.shape[1] != w.shape[0]:
        return None
    b = getattr(call.module, "bias", None)
    bias = wide(b) if isinstance(b, Tensor) else torch.zeros(w.shape[0], dtype=torch.float64, device="cpu")
    expected = x @ w.T + bias
    magnitude = x.float().abs() @ w.float().abs().T + bias.float().abs()
    return Expected(y, expected, _rounding(call.output.dtype, expected, to_float64(magnitude)))


def matrix_of(module: nn.Module) -> Tensor:
    """[out, in] in float64 on the CPU."""
    weight = weight_of(module)
    return wide(weight if isinstance(module, nn.Linear) else weight.T)


def sum_of_parts(call: Call, inside: Sequence[Call], rows: Tensor) -> Expected | None:
    """The output of what has parts against the sum of its input and theirs; None where they do not fit together."""
    if call.output is None:
        return None
    shape = call.output.shape
    parts = [c.output for c in nearest(call, inside) if c.output is not None and c.output.shape == shape]
    if not parts:
        return None
    if call.given is not None and call.given.shape == shape:
        parts.insert(0, call.given)
    y, terms = wide(call.output[rows]), [wide(part[rows]) for part in parts]
    if not all(torch.isfinite(term).all() for term in terms):
        return None
    a = torch.stack([term.reshape(-1) for term in terms], 1)
    near = max(_FITS, torch.finfo(call.output.dtype).eps)
    c = _plain_sum(a, y.reshape(-1), near)
    if c is None:
        c, misfit = _robust_coefficients(a, y.reshape(-1))
        if misfit > near:  # half of the values do not fit: perhaps a bias, which the mean of each token holds
            level = [(term - term.mean(1, keepdim=True)).reshape(-1) for term in (*terms, y)]
            other, its_misfit = _robust_coefficients(torch.stack(level[:-1], 1), level[-1])
            c = other if its_misfit < misfit else c
    expected = (a @ c).view_as(y)
    magnitude = (a.abs() @ c.abs()).view_as(y)
    # every addition on the way is rounded to the type of the output
    return Expected(y, expected, _rounding(call.output.dtype, magnitude, magnitude))


def untouched_input(call: Call, inside: Sequence[Call], rows: Tensor) -> Expected | None:
    """The input of what has parts against what the part gets that gets it nearly unchanged; None where none does."""
    if call.given is None:
        return None
    best: Tensor | None = None
    fewest = call.given.numel() + 1
    for c in nearest(call, inside):
        if c.given is None or c.given.shape != call.given.shape:
            continue
        differing = int((c.given != call.given).sum())
        if differing < fewest:
            best, fewest = c.given, differing
    if best is None:
        return None
    x = wide(call.given[rows])
    return Expected(wide(best[rows]), x, torch.zeros_like(x))


def nearest(call: Call, inside: Sequence[Call]) -> list[Call]:
    """The calls right below: those of no other module that was called inside this one."""
    prefix = f"{call.name}." if call.name else ""
    below = [c for c in inside if c.name.startswith(prefix) and c.name != call.name]
    names = {c.name for c in below}

    def parents(name: str) -> list[str]:
        parts = name.split(".")
        return [".".join(parts[:n]) for n in range(1, len(parts))]

    return [c for c in below if not any(p in names for p in parents(c.name) if p != call.name)]


def some_rows(count: int, most: int = 64) -> Tensor:
    """Up to `most` of `count` rows, evenly spread."""
    if count <= most:
        return torch.arange(count, device="cpu")
    return torch.linspace(0, count - 1, most, dtype=torch.float64, device="cpu").round().long()


def wide(x: Tensor) -> Tensor:
    return to_float64(x.detach().to("cpu"))


def _plain_sum(a: Tensor, y: Tensor, near: float) -> Tensor | None:
    """The parts that simply add up for the most values; None where they do for few, or there are many parts."""
    parts = a.shape[1]
    if parts > _MOST_PARTS:
        return None
    scale, best = a.abs().amax(1).clamp_min(1e-30), _ADD_UP + 8 * near
    found = None
    for chosen in product_of((1.0, 0.0), repeat=parts):
        c = torch.tensor(chosen, dtype=torch.float64, device="cpu")
        share = float(to_float64((y - a @ c).abs() <= near * scale).mean())
        if share > best:
            best, found = share, c
    return found


def _robust_coefficients(a: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """Least squares on the half that fits best, again and again; whole numbers where they are near; median misfit."""
    keep = fine = torch.isfinite(y)
    scale = a.abs().amax(1).clamp_min(1e-30)  # values count alike, not by their size
    c = torch.zeros(a.shape[1], dtype=torch.float64, device="cpu")
    for _ in range(_ROUNDS):
        if not keep.any():
            return c, math.inf
        w = (1 / scale[keep])[:, None]
        c = torch.linalg.lstsq(a[keep] * w, (y[keep] / scale[keep])[:, None], driver="gelsd").solution[:, 0]
        c = torch.where((c - c.round()).abs() < _SNAP, c.round(), c)
        misfit = ((y - a @ c).abs() / scale).nan_to_num(torch.inf)
        middle = float(misfit[fine].median())
        if middle < _FITS:
            break
        keep = fine & (misfit <= middle)
    return c, middle


def _rounding(dtype: torch.dtype, expected: Tensor, magnitude: Tensor) -> Tensor:
    """What rounding may do: to the output's type at the end, and in float32 on the way there."""
    return 4 * torch.finfo(dtype).eps * expected.abs() + 64 * _EPS32 * magnitude
