"""Numbers through a format: quant_dequant, measure, measure_many, measure_each and merge are the contract.

Not here: arithmetic (reference.py is the spec, expression.py its fast equivalent, which fused.py runs), the choice of a
backend (backend.py) and the check of a backend before a run (selfcheck.py). A new format is a row in
`srdd.core.formats`; a new scale rule is a line in reference.py and one in scales.py (or reaching.py, where a scale is
for more than a block), and tests hold them equal.

Three backends give bit-equal values and counts: `reference` (slow, obviously right), `eager` (the fast expression
without a compiler) and `fused` (the same under torch.compile). Sums agree to 1e-6. Two costs of float32 inside a group
of 2048 elements can exceed that, and the reference has neither. fused adds 64 numbers in a row: off by 1e-6 for a
constant tensor (the worst of 400 tried), by 4e-6 for one large number among equal small ones. And shares of noise power
2^-63 below the group's largest magnitude are lost, as under nvfp4:single_level on magnitudes above 1e22.

Worked number: a tensor of 64M elements takes 20 s in the reference, 3 to 5 s eager and 0.1 s fused, after 10 to 22 s of
compilation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from srdd.core.formats import BlockFormat, parse
from srdd.core.tally import WIDTH
from srdd.errors import TensorError
from srdd.kernels import fused, reference
from srdd.kernels.arguments import check, check_tallies, formats_of
from srdd.kernels.backend import Backend, choose, fallback_reason, resolve, run
from srdd.kernels.merging import merged
from srdd.kernels.precision import float64_device

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

    A value that rounds up beyond the type's range becomes infinite, as on hardware: float16 65504 under mxfp4:even is
    65536. `global_amax` replaces the tensor's largest magnitude where a scale is made of it (nvfp4, fp8); other formats
    have no use for it. A weight is given under `fmt.for_weights`: its tiles may be others than an input's (fp8_block).
    The result carries no gradient (`srdd.fake_quantize` passes gradients through). Raises FormatError; TensorError for
    what cannot be quantized or scaled by; BackendError if the named backend cannot run here.
    """
    parsed = parse(fmt)
    check(x, (parsed,), generator, global_amax)
    chosen = resolve(backend, x, (parsed,))
    with torch.no_grad():
        if chosen.name == "reference":
            return reference.quant_dequant(x, parsed, generator=generator, global_amax=global_amax)
        return run(chosen, lambda engine: fused.quant_dequant(engine, x, parsed, generator, global_amax), generator)


def measure(
    x: Tensor,
    fmt: str | BlockFormat,
    *,
    generator: torch.Generator | None = None,
    global_amax: Tensor | float | None = None,
    backend: str | Backend = "auto",
) -> Tensor:
    """The tally of `x`: one float64 vector for `Tally.from_vector`. Raises what quant_dequant raises.

    It holds the sums in the order of `srdd.core.tally.FIELDS`, then the counts of blocks (`srdd.core.blocks`). It is on
    x's device, or on the CPU if that device has no float64 (MPS).
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
    """Tallies of one tensor under several formats, float64 [formats, WIDTH]; cheaper than a `measure` for each.

    `fmts` is a list, or a string such as "mxfp4,nvfp4". Stochastic formats draw from the generator in the order given.
    """
    formats = formats_of(fmts)
    check(x, formats, generator, global_amax)
    if not formats:
        return torch.zeros(0, WIDTH, dtype=torch.float64, device=float64_device(x.device))
    chosen = resolve(backend, x, formats)
    with torch.no_grad():
        if chosen.name == "reference":
            each = [reference.measure(x, fmt, generator=generator, global_amax=global_amax) for fmt in formats]
            return torch.stack(each)
        return run(chosen, lambda engine: fused.measure(engine, x, formats, generator, global_amax), generator)


def measure_each(x: Tensor, fmts: str | Sequence[str | BlockFormat], *, backend: str | Backend = "auto") -> Tensor:
    """Separate tallies of the tensors x[0], x[1], ..., float64 [tensors, formats, WIDTH]: one call for a batch.

    Equal to `measure_many` of each. Stochastic formats are refused: they need a generator, so call `measure_many`.
    """
    formats = formats_of(fmts)
    check(x, formats, None, None)
    if not x.dim():
        raise TensorError("expected a stack of tensors [count, ...], found a single number")
    if not formats or not len(x):
        return torch.zeros(len(x), len(formats), WIDTH, dtype=torch.float64, device=float64_device(x.device))
    chosen = resolve(backend, x, formats)
    with torch.no_grad():
        if chosen.name == "reference":
            return torch.stack([torch.stack([reference.measure(part, fmt) for fmt in formats]) for part in x])
        return run(chosen, lambda engine: fused.measure_each(engine, x, formats), None)


def merge(a: Tensor, b: Tensor) -> Tensor:
    """Two tallies (or stacks of them, [..., WIDTH]) as one. Raises TensorError."""
    check_tallies(a, b, fields=WIDTH)
    return merged(a, b)
