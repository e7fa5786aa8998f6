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

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from srdd.errors import BackendError, TensorError
from srdd.float64 import home
from srdd.formats import BlockFormat, parse
from srdd.kernels import fused, reference
from srdd.kernels.arguments import check, check_tallies, formats_of
from srdd.plain_defaults import plain_dtype
from srdd.tally import FIELDS, IS_MAX

__all__ = ["Backend", "choose", "fallback_reason", "measure", "measure_each", "measure_many", "merge", "quant_dequant"]

NAMES = ("reference", "eager", "fused")
# Elements times formats from which compiling is repaid, for one compiled graph and for each of its formats. Measured on
# a CPU: cold, it takes 10 s and 10 s a format, against 1/0.02 - 1/0.5 = 48 s saved on a billion. Reckoned for a GPU:
# eager moves some 700 bytes an element, so at 2 TB/s a billion takes 0.35 s.
REPAYS = {"cpu": 200_000_000, "cuda": 20_000_000_000}


@dataclass(frozen=True)
class Backend:
    """The choice, and one sentence why. `strict`: named by the caller, so a failure is an error, not a fallback."""

    name: str
    reason: str
    strict: bool = True


_fallback: list[str] = []  # why compilation failed in this process; at most one entry


def fallback_reason() -> str | None:
    """Why `fused`, chosen by `auto`, fell back to `eager` in this process; None when it did not."""
    return _fallback[0] if _fallback else None


def choose(
    name: str,
    *,
    elements: int | None = None,
    formats: Sequence[str | BlockFormat] = (),
    device: torch.device | str = "cpu",
) -> Backend:
    """Turn a name or "auto" into a backend. `elements` is all that will be measured, None when it is not known.

    Raises BackendError for an unknown name, and for "fused" where it cannot compile. "auto" never raises.
    """
    where = torch.device(device)
    if name == "reference" and home(where) != where:
        raise BackendError(f"backend reference computes in float64, which {device} has not; take --backend eager")
    if name in ("reference", "eager"):
        return Backend(name, "asked for by name")
    if name not in ("auto", "fused"):
        raise BackendError(f"unknown backend {name!r}; known: auto, {', '.join(NAMES)}")
    missing = _missing(where)
    if name == "fused":
        if missing:
            raise BackendError(f"backend fused cannot run: {missing}; or take --backend eager")
        return Backend("fused", "asked for by name")
    lost = "same numbers, about thirty times slower" if where.type == "cpu" else "same numbers, slower"
    if missing:
        return Backend("eager", f"fused cannot run: {missing}; eager gives the {lost}", strict=False)
    if _fallback:
        return Backend("eager", f"{_fallback[0]}; eager gives the {lost}", strict=False)
    if elements is None:
        return Backend("eager", f"the amount of work is not known; eager gives the {lost}", strict=False)
    count = max(len(formats), 1)
    work, enough = elements * count, REPAYS.get(where.type, REPAYS["cpu"]) * (1 + count)
    amount = f"{work / 1e9:.2f} G elements x formats"
    if work < enough:
        return Backend("eager", f"{amount} do not repay compiling (that takes {enough / 1e9:.1f} G)", strict=False)
    return Backend("fused", f"{amount} repay compiling", strict=False)


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
    """The tally of `x`: one float64 vector in the order of `srdd.tally.FIELDS`. Raises as above.

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


def _resolve(backend: str | Backend, x: Tensor, rows: tuple[BlockFormat, ...]) -> Backend:
    if isinstance(backend, Backend):
        return backend
    return choose(backend, elements=x.numel(), formats=rows, device=x.device)


def _run(chosen: Backend, work: Callable[[fused.Engine], Tensor], generator: torch.Generator | None) -> Tensor:
    """Run fused or eager; when compilation fails under `auto`, say so once and go on with eager."""
    if chosen.name == "eager" or (_fallback and not chosen.strict):
        return _plainly(work, fused.EAGER)
    state = None if generator is None else generator.get_state()
    try:
        return _plainly(work, fused.FUSED)
    except Exception as error:
        if not fused.is_compile_error(error):
            raise
        said = " ".join(str(error).split())  # one line; compilers put the cause after the command
        reason = f"compiling failed with {type(error).__name__}: {said[:300]}"
        if chosen.strict:
            raise BackendError(f"backend fused cannot run: {reason}; repair the compiler or take eager") from error
        _fallback.append(reason)
    if generator is not None and state is not None:
        generator.set_state(state)  # the failed attempt may have drawn from it
    return _plainly(work, fused.EAGER)


def _plainly(work: Callable[[fused.Engine], Tensor], engine: fused.Engine) -> Tensor:
    with plain_dtype():  # constants of the expression are of the default type, and counts need float32
        return work(engine)


def _missing(device: torch.device) -> str | None:
    """What torch.compile lacks on this device; None when nothing is known to be missing."""
    if device.type == "cpu":
        default = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
        compiler = os.environ.get("CXX", default)
        if not _is_on_path(compiler.split()[0] if compiler.split() else default, os.environ.get("PATH")):
            return f"no C++ compiler found ({compiler!r} is not on PATH); install g++ or set CXX"
        return None
    if device.type == "cuda":
        if find_spec("triton") is None:
            return "triton is not installed, which torch.compile needs on CUDA; pip install triton"
        return None
    return f"torch.compile is not used on device type {device.type!r}"


@cache
def _is_on_path(program: str, path: str | None) -> bool:
    """Remembered: looking costs 0.1 ms, a tenth of a small measurement."""
    return shutil.which(program, path=path) is not None
