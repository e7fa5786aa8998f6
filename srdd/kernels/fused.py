"""Runs `expression.py` over tensors of any shape, in chunks: eagerly, or compiled by torch.compile.

Not here: the arithmetic (expression.py), how a tensor becomes groups (tiling.py), argument checks (arguments.py) and
the choice of a backend (backend.py).

Only G, the number of groups, is dynamic, so one compilation serves every shape. The expression always gets at least two
groups, because torch.compile makes special cases of sizes 0 and 1. Padding enters no sum; n follows from the shape.
Worked number: bf16 [256, 576] is 72 groups of 64 x 32, one strip, one compiled call.
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
from srdd.core.tally import FIELDS, WIDTH
from srdd.kernels import blocks, expression
from srdd.kernels.merging import merged
from srdd.kernels.precision import float64_device
from srdd.kernels.tiling import NATIVE, as_sheets, common_block, from_groups, strips, to_groups

_N, _EXCLUDED = FIELDS.index("n"), FIELDS.index("excluded")
_TENSOR_RANGE = 6.0 * 448.0  # nvfp4: largest E2M1 times largest E4M3
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


def quant_dequant(
    engine: Engine,
    x: Tensor,
    fmt: BlockFormat,
    generator: torch.Generator | None,
    global_amax: Tensor | float | None,
) -> Tensor:
    """What x becomes, in its shape and type."""
    noise = _draw(x, fmt, generator)
    scale = _tensor_scale(engine, x, fmt, global_amax)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    sheets, target = as_sheets(x, fmt.block), as_sheets(out, fmt.block)
    noise_sheets = None if noise is None else as_sheets(noise, fmt.block)
    for where in strips(sheets, fmt.block, engine.chunk(x.device)):
        groups = to_groups(sheets[where], fmt.block)
        drawn = None if noise_sheets is None else to_groups(noise_sheets[where], fmt.block)
        spread = [_spread(scale, groups)]
        varying = [(t, 0) for t in (groups, *spread, drawn) if t is not None]
        q = engine.call(expression.quantize, (fmt,), varying, groups, spread, drawn)
        target[where] = from_groups(q, target[where].shape, fmt.block).to(x.dtype)
    return out


def measure(
    engine: Engine,
    x: Tensor,
    fmts: Sequence[BlockFormat],
    generator: torch.Generator | None,
    global_amax: Tensor | float | None,
) -> Tensor:
    """float64 [formats, WIDTH]. Formats whose blocks tile x alike, one row high, share one reading of x."""
    noises = [_draw(x, fmt, generator) for fmt in fmts]  # in the order given, so that a seed draws the same noise
    tiles = [common_block(x, fmt, fmts) for fmt in fmts]
    results: list[Tensor | None] = [None] * len(fmts)
    for block in dict.fromkeys(tiles):
        chosen = [i for i, tile in enumerate(tiles) if tile == block]
        rows = _measure_tiles(
            engine, x, block, tuple(fmts[i] for i in chosen), [noises[i] for i in chosen], global_amax
        )
        for i, row in zip(chosen, rows, strict=True):
            results[i] = row
    return torch.stack([row for row in results if row is not None])


def measure_each(engine: Engine, x: Tensor, fmts: Sequence[BlockFormat]) -> Tensor:
    """float64 [tensors, formats, WIDTH] of the tensors x[0], x[1], ...; in one call when they fill whole groups."""
    size = x[0].numel() if len(x) else 0
    whole = size > 0 and size % expression.GROUP == 0 and x.dtype in NATIVE and size * 2 <= engine.chunk(x.device)
    if not whole or any(f.stochastic or f.block[0] > 1 or x.shape[-1] % f.block[1] for f in fmts):
        return torch.stack([measure(engine, part, fmts, None, None) for part in x])
    results = torch.empty(len(x), len(fmts), WIDTH, dtype=torch.float64, device=float64_device(x.device))
    step = engine.chunk(x.device) // size
    width = max(fmt.block[1] for fmt in fmts)
    for start in range(0, len(x), step):
        groups = x[start : start + step].reshape(-1, expression.GROUP // width, width)
        count = groups.numel() // size
        spread = [_spread(_scale_of_each(engine, groups, fmt, count), groups) for fmt in fmts]
        varying = [(t, 0) for t in (groups, *spread)]
        sums, units, _, each = engine.call(expression.tallies, tuple(fmts), varying, groups, spread, [None] * len(fmts))
        results[start : start + count, :, : len(FIELDS)] = expression.totals(fmts, sums, units, count)
        for i, chosen in enumerate(each):
            results[start : start + count, i, len(FIELDS) :] = blocks.counted(chosen, _unit(fmts, units, i), count)
    results[..., _N] = size - results[..., _EXCLUDED]
    return results


def _scale_of_each(engine: Engine, groups: Tensor, fmt: BlockFormat, count: int) -> Tensor:
    """s_t of `count` tensors of equal size, [count] float32; 1 for formats without one."""
    if not fmt.has_tensor_scale:
        return torch.ones(count, dtype=torch.float32, device=groups.device)
    return _over_range(engine.call(expression.largest_finite, (), [(groups, 0)], groups).view(count, -1).amax(1))


def _measure_tiles(
    engine: Engine,
    x: Tensor,
    block: tuple[int, int],
    fmts: tuple[BlockFormat, ...],
    noises: Sequence[Tensor | None],
    global_amax: Tensor | float | None,
) -> Tensor:
    scales = [_tensor_scale(engine, x, fmt, global_amax) for fmt in fmts]
    sheets = as_sheets(x, block)
    noise_sheets = [None if noise is None else as_sheets(noise, block) for noise in noises]
    ragged = sheets.shape[1] % block[0] != 0 or sheets.shape[2] % block[1] != 0
    total = torch.zeros(len(fmts), WIDTH, dtype=torch.float64, device=float64_device(x.device))
    before = 0
    for where in strips(sheets, block, engine.chunk(x.device)):
        groups = to_groups(sheets[where], block)
        drawn = [None if noise is None else to_groups(noise[where], block) for noise in noise_sheets]
        spread = [_spread(scale, groups) for scale in scales]
        varying = [(t, 0) for t in (groups, *spread, *drawn) if t is not None]
        rows, units, inverses, each = engine.call(expression.tallies, fmts, varying, groups, spread, drawn)
        counts = [blocks.counted(chosen, _unit(fmts, units, i))[0] for i, chosen in enumerate(each)]
        part = torch.cat([expression.totals(fmts, rows, units)[0], torch.stack(counts)], dim=1)
        part[:, -1] += torch.tensor([before * block[1] // fmt.block[1] for fmt in fmts], device=part.device)
        before += -(-sheets[where].shape[0] // block[0]) * -(-sheets.shape[2] // block[1])
        if ragged:  # the compiled sum cannot tell padding from data in a bad block
            real = to_groups(torch.ones_like(sheets[where], dtype=torch.float32), block).sum(2)
            part[:, _EXCLUDED] = torch.where(inverses[0] > 0, 0.0, real).to(total.device).sum(dtype=torch.float64)
        total = merged(total, part)
    total[:, _N] = x.numel() - total[:, _EXCLUDED]
    return total


def _unit(fmts: Sequence[BlockFormat], units: Tensor, i: int) -> Tensor:
    """The unit of each group for format i, from [widths, 3, G]."""
    return units[next(w for w, chosen in enumerate(expression.by_width(fmts)) if i in chosen), 0]


def _draw(x: Tensor, fmt: BlockFormat, generator: torch.Generator | None) -> Tensor | None:
    if not fmt.stochastic:
        return None
    return torch.rand(x.shape, generator=generator, dtype=torch.float32, device=x.device)


def _tensor_scale(engine: Engine, x: Tensor, fmt: BlockFormat, global_amax: Tensor | float | None) -> Tensor:
    """s_t of a two-level format, 0-d float32; 1 where there is none. The same operations as the reference's."""
    one = torch.ones((), dtype=torch.float32, device=x.device)
    if not fmt.has_tensor_scale:
        return one
    if global_amax is None:
        largest = one * 0
        sheets = as_sheets(x, fmt.block)
        for where in strips(sheets, fmt.block, engine.chunk(x.device)):
            groups = to_groups(sheets[where], fmt.block)
            largest = torch.maximum(largest, engine.call(expression.largest_finite, (), [(groups, 0)], groups).amax())
    else:
        largest = torch.as_tensor(global_amax, device=x.device).to(torch.float32).reshape(())
    return _over_range(largest)


def _over_range(largest: Tensor) -> Tensor:
    return largest / torch.full_like(largest, _TENSOR_RANGE)  # by a tensor: see _two_level_scale in reference.py


def _spread(scale: Tensor, groups: Tensor) -> Tensor:
    """A tensor scale for every group, [G, 1]: from one number, or from one number for each of several tensors."""
    return scale.reshape(-1).repeat_interleave(groups.shape[0] // scale.numel())[:, None].contiguous()
