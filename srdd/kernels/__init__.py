"""The kernel's contract: quant_dequant, measure, measure_many, merge, and the one place that chooses a backend.

Not here: arithmetic (reference.py is the spec, expression.py the fast equivalent that fused.py runs).

Three backends give bit-equal values and counts: `reference` (slow, obviously right), `eager` (the fast expression
without a compiler) and `fused` (the same under torch.compile). Sums of data agree to 1e-6. What float32 inside a group
of 2048 elements can cost at worst: fused adds 64 numbers in a row, off by 1e-6 for a constant tensor (the worst of 400
tried), by 4e-6 for one large number among equal small ones; and shares of noise power 2^-63 below the group's largest
magnitude are lost, as with nvfp4:single_level on magnitudes above 1e22. The reference has neither. Worked number: a
tensor of 64M elements takes 20 s in the reference, 3 to 5 s eager and 0.1 s fused, after 10 to 22 s of compilation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from srdd.core.formats import BlockFormat, parse
from srdd.core.tally import FIELDS, IS_MAX
from srdd.errors import TensorError
from srdd.kernels import fused, reference
from srdd.kernels.arguments import check, check_tallies, formats_of
from srdd.kernels.backend import Backend, _resolve, _run, choose, fallback_reason
from srdd.kernels.precision import home

__all__ = ["Backend", "choose", "fallback_reason", "measure", "measure_each", "measure_many", "merge", "quant_dequant"]


def quant_dequant(
    x: Tensor,
    fmt: str | BlockFormat,
    *,
    generator: torch.Generator | None = None,
    global_amax: Tensor | float | None = None,
    backend: str | Backend = "auto",
) -> Tensor:
    """What `x` becomes after a trip through the format: same shape, same dtype, exact in float32.

    A value that is rounded up beyond what the type holds becomes infinite, as on hardware: float16 65504 under
    mxfp4:even is 65536. `global_amax` replaces the tensor's largest magnitude in a two-level scale; other formats have
    none. The result carries no gradient (`srdd.fake_quantize` passes them on). Raises FormatError, TensorError for what
    cannot be quantized or scaled by, BackendError for a backend named in vain.
    """
    row = parse(fmt)
    check(x, (row,), generator, global_amax)
    chosen = _resolve(backend, x, (row,))
    with torch.no_grad():
        if chosen.name == "reference":
            return reference.quant_dequant(x, row, generator=generator, global_amax=global_amax)
        return _run(chosen, lambda engine: fused.quant_dequant(engine, x, row, generator, global_amax), generator)


def measure(
    x: Tensor,
    fmt: str | BlockFormat,
    *,
    generator: torch.Generator | None = None,
    global_amax: Tensor | float | None = None,
    backend: str | Backend = "auto",
) -> Tensor:
    """The tally of `x`: one float64 vector in the order of `srdd.core.tally.FIELDS`. Raises as above.

    It lies on x's device, or on the CPU where that has no float64 (MPS).
    """
    return measure_many(x, (fmt,), generator=generator, global_amax=global_amax, backend=backend)[0]


def measure_many(
    x: Tensor,
    fmts: str | Sequence[str | BlockFormat],
    *,
    generator: torch.Generator | None = None,
    global_amax: Tensor | float | None = None,
    backend: str | Backend = "auto",
) -> Tensor:
    """Tallies of one tensor under several formats, float64 [formats, fields]; cheaper than one `measure` each.

    `fmts` is a list, or a text such as "mxfp4,nvfp4". Stochastic formats draw from the generator in the order given.
    """
    rows = formats_of(fmts)
    check(x, rows, generator, global_amax)
    if not rows:
        return torch.zeros(0, len(FIELDS), dtype=torch.float64, device=home(x.device))
    chosen = _resolve(backend, x, rows)
    with torch.no_grad():
        if chosen.name == "reference":
            each = [reference.measure(x, row, generator=generator, global_amax=global_amax) for row in rows]
            return torch.stack(each)
        return _run(chosen, lambda engine: fused.measure(engine, x, rows, generator, global_amax), generator)


def measure_each(x: Tensor, fmts: str | Sequence[str | BlockFormat], *, backend: str | Backend = "auto") -> Tensor:
    """Tallies of the tensors x[0], x[1], ... apart, float64 [tensors, formats, fields]: one call for a batch.

    Equal to `measure_many` of each; formats with stochastic rounding need that one, for its generators.
    """
    rows = formats_of(fmts)
    check(x, rows, None, None)
    if not x.dim():
        raise TensorError("expected a stack of tensors [count, ...], found a single number")
    if not rows or not len(x):
        return torch.zeros(len(x), len(rows), len(FIELDS), dtype=torch.float64, device=home(x.device))
    chosen = _resolve(backend, x, rows)
    with torch.no_grad():
        if chosen.name == "reference":
            return torch.stack([torch.stack([reference.measure(part, row) for row in rows]) for part in x])
        return _run(chosen, lambda engine: fused.measure_each(engine, x, rows), None)


def merge(a: Tensor, b: Tensor) -> Tensor:
    """Two tallies (or stacks of them, [..., fields]) as one: sums add, maxima take the larger. Raises TensorError."""
    check_tallies(a, b, fields=len(FIELDS))
    is_max = torch.tensor(IS_MAX, device=a.device)
    return torch.where(is_max, torch.maximum(a, b), a + b)
