"""Passes gradients through rounding, and tells when a tensor is no longer what was rounded.

Not here: rounding. Worked number: w = 0.9 rounded to 1.0 and used as y = 2 w gives y = 2 and dy/dw = 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _StraightThrough(torch.autograd.Function):
    """q forward, the identity backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, q: Tensor) -> Tensor:
        return q.view_as(q)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return grads[0], None


def straight_through(x: Tensor, q: Tensor) -> Tensor:
    """q with the gradient of x."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return q
    result: Tensor = _StraightThrough.apply(x, q)  # type: ignore[no-untyped-call]
    return result


def version_of(x: Tensor) -> int | None:
    """How often `x` was changed in place; None for tensors of torch.inference_mode, which do not count it."""
    return None if x.is_inference() else x._version


def content_of(w: Tensor) -> tuple[int | None, torch.dtype, int]:
    """A fingerprint that changes when the content of `w` does.

    The version alone is not enough: writes through `.data`, and kernels that get a bare pointer (8-bit optimizers),
    leave it unchanged. So all bits are added up as integers, which costs a hundredth of quantizing them.
    """
    return version_of(w), w.dtype, _bits(w)


def _bits(w: Tensor) -> int:
    if w.is_meta or type(w) not in (Tensor, nn.Parameter):  # sharded or packed: the version must do
        return 0
    flat = w.detach().reshape(-1)
    size = flat.element_size()
    wide = flat.numel() * size % 8 == 0 and flat.storage_offset() * size % 8 == 0
    return int(flat.view(torch.int64 if wide else torch.uint8).sum())
