"""Chooses a backend, by name or by whether compiling repays itself on this device, and runs what was chosen.

Not here: the contract (`srdd.kernels`), engines (engine.py) and arithmetic (reference.py, expression.py).
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

from srdd.core.formats import BlockFormat
from srdd.errors import BackendError, setting
from srdd.kernels.engine import EAGER, FUSED, Engine, is_compile_error
from srdd.kernels.precision import float64_device, plain_dtype

NAMES = ("reference", "eager", "fused")
# Elements times formats that repay compiling: this many for the graph, and as many again for each of its formats.
# Measured on a CPU: a cold compilation takes 10 s and 10 s a format, and saves 1/0.02 - 1/0.5 = 48 s on a billion.
# Estimated for a GPU: eager moves some 700 bytes an element, so at 2 TB/s a billion takes 0.35 s.
REPAYS = {"cpu": 200_000_000, "cuda": 20_000_000_000}
_fallback: list[str] = []  # why compilation failed in this process; at most one entry


@dataclass(frozen=True)
class Backend:
    """The choice and one sentence why. `strict`: the caller named it, so a failure is an error and not a fallback."""

    name: str
    reason: str
    strict: bool = True


def fallback_reason() -> str | None:
    """Why `fused`, chosen by "auto", fell back to `eager` in this process; None when it did not."""
    return _fallback[0] if _fallback else None


def choose(
    name: str,
    *,
    elements: int | None = None,
    formats: Sequence[str | BlockFormat] = (),
    device: torch.device | str = "cpu",
) -> Backend:
    """Turn a name or "auto" into a backend. `elements` counts all that will be measured; None when it is not known.

    Raises BackendError for an unknown name, and for "fused" where it cannot compile. "auto" never raises.
    """
    where = torch.device(device)
    if name == "reference" and float64_device(where) != where:
        eager = setting("backend", "eager")
        raise BackendError(f"backend reference computes in float64, which {device} has not; take {eager}")
    if name in ("reference", "eager"):
        return Backend(name, "asked for by name")
    if name not in ("auto", "fused"):
        raise BackendError(f"{setting('backend', name)}: unknown backend; known: auto, {', '.join(NAMES)}")
    missing = _missing(where)
    if name == "fused":
        if missing:
            raise BackendError(f"backend fused cannot run: {missing}; or take {setting('backend', 'eager')}")
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


def resolve(backend: str | Backend, x: Tensor, formats: tuple[BlockFormat, ...]) -> Backend:
    """The backend for one call; a choice made before passes through."""
    if isinstance(backend, Backend):
        return backend
    return choose(backend, elements=x.numel(), formats=formats, device=x.device)


def run(chosen: Backend, work: Callable[[Engine], Tensor], generator: torch.Generator | None) -> Tensor:
    """Run fused or eager. When compiling fails under "auto", keep the reason and go on with eager."""
    if chosen.name == "eager" or (_fallback and not chosen.strict):
        return _plainly(work, EAGER)
    state = None if generator is None else generator.get_state()
    try:
        return _plainly(work, FUSED)
    except Exception as error:
        if not is_compile_error(error):
            raise
        said = " ".join(str(error).split())  # one line; compilers put the cause after the command
        reason = f"compiling failed with {type(error).__name__}: {said[:300]}"
        if chosen.strict:
            raise BackendError(f"backend fused cannot run: {reason}; repair the compiler or take eager") from error
        _fallback.append(reason)
    if generator is not None and state is not None:
        generator.set_state(state)  # the failed attempt may have drawn from it
    return _plainly(work, EAGER)


def _plainly(work: Callable[[Engine], Tensor], engine: Engine) -> Tensor:
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
    """Cached: looking costs 0.1 ms, a tenth of a small measurement."""
    return shutil.which(program, path=path) is not None
