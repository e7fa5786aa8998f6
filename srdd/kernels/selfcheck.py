"""Checks before a run that the kernel chosen for this device gives the numbers of the reference.

Compilers fuse multiplications into additions, and some GPU divisions miss by one ulp; tests on other machines cannot
show that. So the chosen backend measures some 130,000 values on the spot, and the reference measures them on the CPU:
in every piece of 2048 the counts must be equal and the sums agree to 1e-5. The values: all bfloat16 of 128 binades;
every amax from 1 to 2 in steps of 1/2048; every amax at which a scale rule steps up, with its neighbours; the formats'
values and midpoints; a NaN and an infinity. Not here: subnormals, which some devices flush to zero (the tests cover
them), and any switch to go on with a wrong kernel.

Worked number: mxfp4, nvfp4 and mxfp8 take 0.3 s, most of it in the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from srdd import kernels
from srdd.core.blocks import SQNR_BINS
from srdd.core.formats import BlockFormat, Element
from srdd.core.tally import FIELDS
from srdd.errors import BackendError, setting
from srdd.kernels.backend import Backend
from srdd.kernels.precision import plain_defaults
from srdd.kernels.tiling import NATIVE

_PIECE = (64, 32)
_TOLERANCE = 1e-5  # of sums: what float32 may cost inside a piece, see kernels/__init__.py
_COUNTS = ("n", "nonzero", "deadzone", "clipped", "at_max", "nonfinite", "excluded", "zero_scale")
_SIZE_OF = {"sum_x": "sum_abs_x", "sum_e": "sum_abs_e"}  # signs cancel, so the slack is of the magnitudes

# Finds a difference between a backend and the reference: one of the two functions below.
Find = Callable[[Backend, tuple[BlockFormat, ...], torch.device, torch.dtype], str | None]


@cache
def tallies_differ(
    backend: Backend, formats: tuple[BlockFormat, ...], device: torch.device, dtype: torch.dtype
) -> str | None:
    """The first difference in what a scan measures, in words; None when there is none."""
    x = _pieces(formats, dtype)
    got = kernels.measure_each(x.to(device), formats, backend=backend).cpu()
    want = kernels.measure_each(x, formats, backend="reference")
    size = want.abs()
    for name, other in _SIZE_OF.items():
        size[..., FIELDS.index(name)] = want[..., FIELDS.index(other)]
    slack = _TOLERANCE * size
    slack[..., [FIELDS.index(name) for name in _COUNTS]] = 0
    off = ~((got - want).abs() <= slack)[..., : len(FIELDS)]
    if not off.any():
        return _blocks_differ(got[..., len(FIELDS) :], want[..., len(FIELDS) :], formats)
    piece, fmt, field = off.nonzero()[0].tolist()
    found, expected = float(got[piece, fmt, field]), float(want[piece, fmt, field])
    return f"{formats[fmt].spec} {FIELDS[field]} {found:.9g} instead of {expected:.9g} in {x[0].numel()} values"


def _blocks_differ(got: Tensor, want: Tensor, formats: Sequence[BlockFormat]) -> str | None:
    """The same for the counts of blocks. One block of a piece may stand on the other side of a bin's edge."""
    sqnr = (got - want)[..., :SQNR_BINS].cumsum(-1).abs().amax((0, 2)) > 1
    scales = (got - want)[..., SQNR_BINS:-2].abs().amax((0, 2)) > 0
    for what, off in (("SQNR", sqnr), ("scales", scales)):
        if off.any():
            return f"{formats[int(off.nonzero()[0])].spec} counts blocks in other bins of {what}"
    return None


@cache
def values_differ(
    backend: Backend, formats: tuple[BlockFormat, ...], device: torch.device, dtype: torch.dtype
) -> str | None:
    """The first difference in quantized values, which must agree bit for bit, in words; None when there is none."""
    x = _pieces(formats, dtype)
    there = x.to(device)
    for fmt in formats:
        got = torch.stack([kernels.quant_dequant(piece, fmt, backend=backend) for piece in there]).cpu()
        want = torch.stack([kernels.quant_dequant(piece, fmt, backend="reference") for piece in x])
        off = ~((got == want) & (got.signbit() == want.signbit()) | got.isnan() & want.isnan())
        if off.any():
            place = tuple(off.nonzero()[0].tolist())
            return f"{fmt.spec} makes {got[place]:.9g} of {x[place]:.9g} instead of {want[place]:.9g}"
    return None


def checked(
    backend: Backend,
    formats: Sequence[BlockFormat],
    device: torch.device,
    dtype: torch.dtype,
    differ: Find = tallies_differ,
) -> Backend:
    """The backend with the result of the check in its reason; eager if "auto" chose fused and its numbers are wrong.

    Stochastic rounding draws other numbers on every device, so it is not checked, and the reason says so. Raises
    BackendError when the numbers are wrong and there is nothing to fall back to.
    """
    if backend.name == "reference" or not formats:
        return backend
    if any(fmt.stochastic for fmt in formats):
        return replace(backend, reason=f"{backend.reason}; not compared with the reference: stochastic rounding")
    dtype = dtype if dtype in NATIVE else torch.float32  # as the kernel itself takes it
    wrong = differ(backend, tuple(formats), device, dtype)
    if wrong and backend.name == "fused" and not backend.strict:
        reason = f"fused does not give the reference's numbers here ({wrong}); eager does, about thirty times slower"
        backend = Backend("eager", reason, strict=False)
        wrong = differ(backend, tuple(formats), device, dtype)
    if wrong:
        fused = backend.name == "fused"
        instead = f"take {setting('backend', 'eager')}" if fused else f"measure with {setting('device', 'cpu')}"
        raise BackendError(
            f"backend {backend.name} on {device} does not give the reference's numbers: {wrong}; {instead}"
        )
    return replace(backend, reason=f"{backend.reason}; agrees with the reference here")


@plain_defaults()
def _pieces(formats: Sequence[BlockFormat], dtype: torch.dtype) -> Tensor:
    """[pieces, 64, 32]."""
    elements = dict.fromkeys(fmt.element for fmt in formats)
    low, high = 0x1F80, 0x5F80  # 2^-64 and 2^64
    patterns = torch.arange(low, high, dtype=torch.int16).view(torch.bfloat16).float()
    sweep = (1 + torch.arange(2048) / 2048)[:, None] * torch.linspace(-1, 1, 32)
    sweep[5, 7], sweep[1900, 0] = torch.nan, torch.inf
    parts = [patterns, -patterns, sweep.flatten(), _turns(elements), *(_grid(element) for element in elements)]
    size = math.prod(_PIECE)  # every part has its own pieces: next to 2^60, float32 sums would lose squares of 2^-60
    return torch.cat([pad(part, (0, -part.numel() % size)) for part in parts]).view(-1, *_PIECE).to(dtype)


def _turns(elements: Collection[Element]) -> Tensor:
    """Tiles led by an amax at which a scale rule steps up, or by the float32 just below or above it.

    Beside the leader are values of its size, and for every element format one that too large a scale makes zero.
    """
    points = [1.0, *(e.max / 2.0**e.emax for e in elements), *(2 - 2.0**-bits for bits in range(1, 8))]
    exact = torch.tensor(points)
    around = [exact, exact.nextafter(torch.tensor(0.0)), exact.nextafter(torch.tensor(torch.inf))]
    powers = torch.tensor([e.emin - e.mantissa_bits - 1 - e.emax for e in elements])
    spread = (torch.arange(31 - len(powers)) * 0.618034) % 1.9 - 0.95  # irregular, so that no two scales give the same
    row = torch.cat([torch.ones(1), 1.5 * 2.0**powers, spread])
    return (torch.cat(around)[:, None] * row).repeat_interleave(32, dim=0).flatten()


def _grid(element: Element) -> Tensor:
    """Every value and every midpoint, with alternating signs, in blocks of 16 that the largest value leads."""
    values = torch.tensor(element.magnitudes)
    points = torch.cat([values, (values[1:] + values[:-1]) / 2])
    points[1::2] *= -1
    rows = pad(points, (0, -points.numel() % 15)).view(-1, 15)
    return torch.cat([torch.full((len(rows), 1), element.max), rows], dim=1).flatten()
