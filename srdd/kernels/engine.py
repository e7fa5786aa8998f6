"""Engines: how an expression is run, eagerly or compiled by torch.compile, with the options that keep it exact.

Not here: what is run (expression.py), over which tensors (fused.py) and the choice of an engine (backend.py).

Only G, the number of groups, is dynamic, so one compilation serves every shape. Worked number: mxfp4 takes 10 s to
compile, once in a process.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor

from srdd.core.formats import BlockFormat

Expression = Callable[..., Any]  # a function of expression.py; its first argument is the formats


@dataclass(frozen=True)
class Engine:
    """How an expression is run: eagerly, or compiled once for every set of formats."""

    compiled: bool
    _bound: dict[tuple[Expression, tuple[BlockFormat, ...]], Callable[..., Any]] = field(default_factory=dict)
    _marked: set[tuple[object, ...]] = field(default_factory=set)

    def chunk(self, device: torch.device) -> int:
        """How many elements are given to the expression at once."""
        # Eager steps hand their results on through a CPU's cache and hold some twenty copies; one compiled pass does
        # neither, but waits for Python between chunks. On a GPU it leaves 600 MB at 2^28 elements.
        if device.type != "cpu":
            return 1 << 28 if self.compiled else 1 << 24
        return 1 << 24 if self.compiled else 1 << 16

    def call(
        self, function: Expression, fmts: tuple[BlockFormat, ...], dynamic: Sequence[tuple[Tensor, int]], *args: Any
    ) -> Any:
        """Run a function of expression.py with the formats bound; `dynamic` names the varying axis of each tensor."""
        fmts = tuple(fmt.for_weights for fmt in fmts)  # tiles are outside the expression: one compilation for both
        bound = self._bound.get((function, fmts))
        if bound is None:
            bound = self._bound[function, fmts] = self._bind(function, fmts)
        if self.compiled:
            key = (function, fmts, *((t.dtype, t.device, t.shape[1:]) for t, _ in dynamic))
            if key not in self._marked:
                import torch._dynamo

                for tensor, dim in dynamic:
                    torch._dynamo.mark_dynamic(tensor, dim)
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="CUDA_HOME not set")  # concerns pow and erf alone
                    result = bound(*args)
                self._marked.add(key)
                return result
        return bound(*args)

    def _bind(self, function: Expression, fmts: tuple[BlockFormat, ...]) -> Callable[..., Any]:
        if not self.compiled:
            return lambda *args: function(fmts, *args)
        # Dynamo counts recompilations per code object and gives up at eight: every set of formats gets its own.
        given = cast(FunctionType, function)
        own = FunctionType(given.__code__.replace(), given.__globals__, given.__name__, given.__defaults__)

        def bound(*args: Any) -> Any:
            return own(fmts, *args)

        bound = FunctionType(
            bound.__code__.replace(), bound.__globals__, f"srdd_{given.__name__}", None, bound.__closure__
        )
        # dynamic=False: only what `call` marks varies. By default Dynamo takes the constants of a second set of formats
        # for changing inputs and computes 2^-m at every element: five times slower.
        return torch.compile(bound, fullgraph=True, dynamic=False, options=_options())


def is_compile_error(error: Exception) -> bool:
    """True when torch.compile failed, not the arithmetic; its errors share no base class, so modules tell."""
    compilers = ("torch._dynamo", "torch._inductor", "triton")
    return any(kind.__module__.startswith(compilers) for kind in type(error).__mro__)


def _options() -> dict[str, Any]:
    """No reassociation and no fused multiply-add: (a + m) - m must survive, and e must be 0 where x is on the grid.

    On CUDA, emulate_precision_casts is what keeps Triton from fusing; division follows IEEE, subnormals are kept.
    """
    import torch._inductor

    wanted: dict[str, Any] = {
        "cpp.enable_unsafe_math_opt_flag": False,
        "cpp.enable_floating_point_contract_flag": "off",
        "emulate_precision_casts": True,
        "eager_numerics.division_rounding": True,
        "eager_numerics.disable_ftz": True,
    }
    known = torch._inductor.list_options()
    return {name: value for name, value in wanted.items() if name in known}


EAGER = Engine(compiled=False)
FUSED = Engine(compiled=True)
