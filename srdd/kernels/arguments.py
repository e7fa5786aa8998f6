"""Checks the kernels' arguments: one clear error for everything that they cannot take.

Notebooks hand over lists, arrays, sparse tensors and models on "meta"; unchecked, they would fail with an
AttributeError somewhere inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from srdd.core.formats import BlockFormat, parse
from srdd.errors import TensorError


def formats_of(fmts: str | BlockFormat | Sequence[str | BlockFormat]) -> tuple[BlockFormat, ...]:
    """The formats of a list of specs, or of a string such as "mxfp4,nvfp4". Raises FormatError."""
    if isinstance(fmts, BlockFormat):
        return (fmts,)
    return tuple(parse(fmt) for fmt in (fmts.split(",") if isinstance(fmts, str) else fmts))


def check(
    x: Tensor, formats: Sequence[BlockFormat], generator: torch.Generator | None, global_amax: Tensor | float | None
) -> None:
    """Raises TensorError for what cannot be quantized, drawn from or scaled by."""
    _check_tensor(x)
    for fmt in formats:
        if fmt.stochastic and generator is None:
            raise TensorError(f"{fmt.name} rounds stochastically: pass generator=torch.Generator(...).manual_seed(...)")
    if generator is not None and any(fmt.stochastic for fmt in formats):
        if not isinstance(generator, torch.Generator):
            raise TensorError(
                f"generator: expected a torch.Generator, found {type(generator).__name__}; e.g. "
                "torch.Generator(device).manual_seed(0)"
            )
        if generator.device.type != x.device.type:
            raise TensorError(f"the generator is on {generator.device}, the tensor on {x.device}; make both the same")
    if x.is_meta:
        raise TensorError("the tensor is on device meta and holds no values; load them first")
    if global_amax is not None:
        _check_amax(global_amax)


def check_tallies(*tallies: Tensor, fields: int) -> None:
    """Raises TensorError for anything but tallies and stacks of them."""
    for tally in tallies:
        if not isinstance(tally, Tensor) or not tally.dim() or tally.shape[-1] != fields:
            found = f"shape {tuple(tally.shape)}" if isinstance(tally, Tensor) else type(tally).__name__
            raise TensorError(f"expected tallies [..., {fields}] as measure returns them, found {found}")


def _check_tensor(x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TensorError(f"expected a torch.Tensor, found {type(x).__name__}; convert it, e.g. torch.as_tensor(x)")
    if not x.is_floating_point():
        raise TensorError(f"cannot quantize a tensor of {x.dtype}; expected a real floating-point type")
    if x.layout != torch.strided:
        raise TensorError(f"cannot quantize a tensor of layout {x.layout}; pass x.to_dense()")


def _check_amax(amax: Tensor | float) -> None:
    if isinstance(amax, str) or (isinstance(amax, Tensor) and amax.numel() != 1):
        found = f"a tensor {tuple(amax.shape)}" if isinstance(amax, Tensor) else repr(amax)
        raise TensorError(f"global_amax: expected one number, found {found}")
    value = float(amax.detach()) if isinstance(amax, Tensor) else float(amax)
    if not 0 <= value <= torch.finfo(torch.float32).max:
        raise TensorError(f"global_amax {value:g}: expected a magnitude that float32 holds")
