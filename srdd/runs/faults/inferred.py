"""The input that a Linear must have had, where its output is not its weight times the input that it was given.

Inputs that one number describes are tried first (a threshold, a limit, an offset), then those in which few channels or
few values changed, and with at least as many outputs as inputs what solving gives. The first that explains the output
is taken. Not here: what the deviation means.

Worked number: y = W x' is given and x' = x but for 0 at the values below 0.01 of the largest; of all thresholds 0.01
leaves no error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from srdd.documents.fault import Deviation
from srdd.runs.faults.capture import Call
from srdd.runs.faults.deviation import deviation
from srdd.runs.faults.expected import Expected, matrix_of, wide

_LEFT = 0.01  # of the error's power may remain
_GRID = 48  # thresholds that are tried at first
_REFINED = 5  # times that a tenth of the neighbourhood is tried again
_FEW, _FEW_CHANNELS = 8, 20  # values of a token, and channels, that may have changed


def inferred_input(call: Call, output: Expected, rows: Tensor, heads: int | None) -> Deviation | None:
    """How the input deviates; None where no input that could be found explains the output."""
    assert call.given is not None
    x, w = wide(call.given[rows]), matrix_of(call.module)
    error = output.found - output.expected
    power = float(error.square().sum())
    if not torch.isfinite(error).all() or not power:
        return None
    for candidate, tolerance in _candidates(x, w, error, output.tolerance, heads):
        left = float((error - (candidate - x) @ w.T).square().sum()) / power
        if left < _LEFT:
            return deviation(candidate, x, tolerance, heads, 1 - left)
    return None


def _candidates(
    x: Tensor, w: Tensor, error: Tensor, rounding: Tensor, heads: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs that may have been, and by how much each is uncertain; the more telling ones first."""
    amax, rms = x.abs().amax(1, keepdim=True), x.square().mean(1, keepdim=True).sqrt()
    exact = torch.full_like(x, 1e-12) * amax
    yield _of_threshold(x, w, error, lambda s: torch.where(x.abs() < s * amax, 0.0, x), 1e-7), exact
    yield _of_threshold(x, w, error, lambda s: torch.clamp(x, -s * amax, s * amax), 1e-2), exact
    if heads and x.shape[1] % heads == 0:
        yield _without_heads(x, w, error, heads), exact
    column = rms * w.sum(1)
    yield x + rms * (error * column).sum() / column.square().sum().clamp_min(1e-300), exact
    fuzzy = torch.maximum(1e-3 * x.abs(), 1e-4 * rms.expand_as(x))
    yield _few_channels(x, w, error), fuzzy
    yield _few_values(x, w, error), fuzzy
    if w.shape[0] >= w.shape[1]:
        inverse = torch.linalg.pinv(w)
        yield x + error @ inverse.T, rounding @ inverse.abs().T + 1e-6 * x.abs()


def _without_heads(x: Tensor, w: Tensor, error: Tensor, heads: int) -> Tensor:
    """Without the heads whose whole part of the product is missing."""
    split = x.view(len(x), heads, -1), w.view(len(w), heads, -1)
    parts = torch.einsum("nhc,ohc->noh", *split).reshape(-1, heads)
    missing = torch.linalg.lstsq(parts, error.reshape(-1, 1), driver="gelsd").solution[:, 0] < -0.5
    return x.masked_fill(missing.repeat_interleave(x.shape[1] // heads), 0.0)


def _few_channels(x: Tensor, w: Tensor, error: Tensor) -> Tensor:
    """Channel by channel the one that takes most of what is left (orthogonal matching pursuit, all tokens together)."""
    norm = w.square().sum(0).sqrt().clamp_min(1e-300)
    chosen: list[int] = []
    rest, change = error, torch.zeros(error.shape[0], 0, dtype=error.dtype, device="cpu")
    for _ in range(min(_FEW_CHANNELS, w.shape[1])):
        score = ((rest @ w) / norm).square().sum(0)
        score[chosen] = 0
        chosen.append(int(score.argmax()))
        change = torch.linalg.lstsq(w[:, chosen], error.T, driver="gelsd").solution.T
        rest = error - change @ w[:, chosen].T
        if float(rest.square().sum()) < 1e-8 * float(error.square().sum()):
            break
    made = x.clone()
    made[:, chosen] += change
    return made


def _few_values(x: Tensor, w: Tensor, error: Tensor) -> Tensor:
    """The same, each token by itself: its few values that changed."""
    norm = w.square().sum(0).sqrt().clamp_min(1e-300)
    made = x.clone()
    for row in range(len(x)):
        whole = float(error[row].square().sum())
        chosen: list[int] = []
        rest = error[row]
        while whole and len(chosen) < min(_FEW, w.shape[1]) and float(rest.square().sum()) > 1e-8 * whole:
            score = (rest @ w / norm).abs()
            score[chosen] = 0
            chosen.append(int(score.argmax()))
            change = torch.linalg.lstsq(w[:, chosen], error[row][:, None], driver="gelsd").solution[:, 0]
            rest = error[row] - w[:, chosen] @ change
        if chosen:
            made[row, chosen] += change
    return made


def _of_threshold(x: Tensor, w: Tensor, error: Tensor, made: Callable[[float], Tensor], lowest: float) -> Tensor:
    """With the threshold of a grid that leaves the smallest error, refined around the best again and again."""

    def left(s: float) -> float:
        return float((error - (made(s) - x) @ w.T).square().sum())

    step = lowest ** (-1 / _GRID)
    tried = {s: left(s) for s in (lowest * step**i for i in range(_GRID))}
    for _ in range(_REFINED):
        best = min(tried, key=tried.__getitem__)
        step **= 1 / 5
        tried |= {s: left(s) for s in (best * step**i for i in range(-5, 6)) if s not in tried and s < 1}
    return made(min(tried, key=tried.__getitem__))
