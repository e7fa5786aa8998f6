"""Runs `expression.py` over tensors of any shape, in chunks: eagerly, or compiled by torch.compile.

Not here: the arithmetic (expression.py), argument checks and the choice of backend (__init__.py).

A tensor becomes a stack of sheets, cut into strips of whole blocks, each strip a float tensor [G, K, L] of groups of
2048 elements. G alone is dynamic, so one compilation serves every shape; at least two groups are given, because
torch.compile treats 0 and 1 as types of their own. Padding is zeros, which enter no sum; n follows from the shape.
Worked number: bf16 [256, 576] is 147,456 elements = 72 groups of 64 x 32, one strip, one compiled call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from srdd.formats import BlockFormat, Rule, Scale
from srdd.kernels import expression
from srdd.tally import FIELDS, IS_MAX

_N, _EXCLUDED = FIELDS.index("n"), FIELDS.index("excluded")
_NATIVE = (torch.bfloat16, torch.float16, torch.float32)  # other types are cast strip by strip
_TENSOR_RANGE = 6.0 * 448.0  # nvfp4: largest E2M1 times largest E4M3


@dataclass(frozen=True)
class Engine:
    """How the expression is run. `chunk` is in elements."""

    compiled: bool
    _functions: dict[tuple[str, tuple[BlockFormat, ...]], Callable[..., Any]] = field(default_factory=dict)
    _marked: set[tuple[object, ...]] = field(default_factory=set)

    def chunk(self, device: torch.device) -> int:
        if device.type != "cpu":
            return 1 << 26
        # Eager steps meet in the cache; one compiled pass needs no cache, and waits for Python between chunks.
        return 1 << 24 if self.compiled else 1 << 16

    def call(self, name: str, fmts: tuple[BlockFormat, ...], dynamic: Sequence[tuple[Tensor, int]], *args: Any) -> Any:
        """Run `expression.name` with the formats bound; `dynamic` names the dimension of each tensor that varies."""
        function = self._functions.get((name, fmts))
        if function is None:
            function = self._functions[name, fmts] = self._bind(name, fmts)
        if self.compiled:
            key = (name, fmts, *((t.dtype, t.device) for t, _ in dynamic))
            if key not in self._marked:
                import torch._dynamo

                for tensor, dim in dynamic:
                    torch._dynamo.mark_dynamic(tensor, dim)
                result = function(*args)
                self._marked.add(key)
                return result
        return function(*args)

    def _bind(self, name: str, fmts: tuple[BlockFormat, ...]) -> Callable[..., Any]:
        function = cast(FunctionType, getattr(expression, name))
        if not self.compiled:
            return lambda *args: function(fmts, *args)
        # Dynamo counts recompilations per code object and gives up at eight: every set of formats gets its own.
        own = FunctionType(function.__code__.replace(), function.__globals__, name, function.__defaults__)

        def bound(*args: Any) -> Any:
            return own(fmts, *args)

        bound = FunctionType(bound.__code__.replace(), bound.__globals__, f"srdd_{name}", None, bound.__closure__)
        # dynamic=False: only what `call` marks varies. Left to itself Dynamo takes the numbers of a second set of
        # formats for changing inputs, and computes 2^-m at every element: five times slower.
        return torch.compile(bound, fullgraph=True, dynamic=False, options=_options())


def is_compile_error(error: Exception) -> bool:
    """Whether torch.compile failed, rather than the arithmetic. Imports late: the compiler takes a second to load."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError

    return isinstance(error, (TorchDynamoException, CppCompileError))


def _options() -> dict[str, Any]:
    """No reassociation, no fused multiply-add on CPU: (a + m) - m must stay. Division on CUDA as IEEE wants it."""
    import torch._inductor

    wanted: dict[str, Any] = {
        "cpp.enable_unsafe_math_opt_flag": False,
        "cpp.enable_floating_point_contract_flag": "off",
        "eager_numerics.division_rounding": True,
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
    noise = _draw(x, fmt, generator)
    scale = _tensor_scale(engine, x, fmt, global_amax)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    sheets, target = _sheets(x, fmt.block), _sheets(out, fmt.block)
    noise_sheets = None if noise is None else _sheets(noise, fmt.block)
    for where in _strips(sheets, fmt.block, engine.chunk(x.device)):
        groups = _to_groups(sheets[where], fmt.block)
        drawn = None if noise_sheets is None else _to_groups(noise_sheets[where], fmt.block)
        spread = [_spread(scale, groups)]
        varying = [(t, 0) for t in (groups, *spread, drawn) if t is not None]
        q = engine.call("quantize", (fmt,), varying, groups, spread, drawn)
        target[where] = _from_groups(q, target[where].shape, fmt.block).to(x.dtype)
    return out


def measure(
    engine: Engine,
    x: Tensor,
    fmts: Sequence[BlockFormat],
    generator: torch.Generator | None,
    global_amax: Tensor | float | None,
) -> Tensor:
    """float64 [formats, fields]. Formats of the same block share the reading of x and every sum over x alone."""
    noises = [_draw(x, fmt, generator) for fmt in fmts]  # in the order given: the same seed draws the same noise
    results: list[Tensor | None] = [None] * len(fmts)
    for block in dict.fromkeys(fmt.block for fmt in fmts):
        chosen = [i for i, fmt in enumerate(fmts) if fmt.block == block]
        rows = _measure_block(
            engine, x, block, tuple(fmts[i] for i in chosen), [noises[i] for i in chosen], global_amax
        )
        for i, row in zip(chosen, rows, strict=True):
            results[i] = row
    return torch.stack([row for row in results if row is not None])


def measure_each(engine: Engine, x: Tensor, fmts: Sequence[BlockFormat]) -> Tensor:
    """float64 [tensors, formats, fields] of the tensors x[0], x[1], ...; in one call where they are whole groups."""
    size = x[0].numel() if len(x) else 0
    whole = size > 0 and size % expression.GROUP == 0 and x.dtype in _NATIVE and size * 2 <= engine.chunk(x.device)
    if not whole or any(f.stochastic or f.block[0] > 1 or x.shape[-1] % f.block[1] for f in fmts):
        return torch.stack([measure(engine, part, fmts, None, None) for part in x])
    results = torch.empty(len(x), len(fmts), len(FIELDS), dtype=torch.float64, device=x.device)
    step = engine.chunk(x.device) // size
    for width in dict.fromkeys(fmt.block[1] for fmt in fmts):
        chosen = [i for i, fmt in enumerate(fmts) if fmt.block[1] == width]
        rows = tuple(fmts[i] for i in chosen)
        for start in range(0, len(x), step):
            groups = x[start : start + step].reshape(-1, expression.GROUP // width, width)
            count = groups.numel() // size
            spread = [_spread(_scale_of_each(engine, groups, fmt, count), groups) for fmt in rows]
            varying = [(t, 0) for t in (groups, *spread)]
            sums, units, _ = engine.call("tallies", rows, varying, groups, spread, [None] * len(rows))
            results[start : start + count, chosen] = expression.totals(len(rows), sums, units, count)
    results[..., _N] = size - results[..., _EXCLUDED]
    return results


def _scale_of_each(engine: Engine, groups: Tensor, fmt: BlockFormat, count: int) -> Tensor:
    """s_t of `count` equal tensors, [count] float32; 1 for formats without one."""
    if fmt.scale is Scale.E8M0 or fmt.rule is Rule.SINGLE_LEVEL:
        return torch.ones(count, dtype=torch.float32, device=groups.device)
    return _over_range(engine.call("largest_finite", (), [(groups, 0)], groups).view(count, -1).amax(1))


def _measure_block(
    engine: Engine,
    x: Tensor,
    block: tuple[int, int],
    fmts: tuple[BlockFormat, ...],
    noises: Sequence[Tensor | None],
    global_amax: Tensor | float | None,
) -> Tensor:
    scales = [_tensor_scale(engine, x, fmt, global_amax) for fmt in fmts]
    sheets = _sheets(x, block)
    noise_sheets = [None if noise is None else _sheets(noise, block) for noise in noises]
    ragged = sheets.shape[1] % block[0] != 0 or sheets.shape[2] % block[1] != 0
    is_max = torch.tensor(IS_MAX, device=x.device)
    total = torch.zeros(len(fmts), len(FIELDS), dtype=torch.float64, device=x.device)
    for where in _strips(sheets, block, engine.chunk(x.device)):
        groups = _to_groups(sheets[where], block)
        drawn = [None if noise is None else _to_groups(noise[where], block) for noise in noise_sheets]
        spread = [_spread(scale, groups) for scale in scales]
        varying = [(t, 0) for t in (groups, *spread, *drawn) if t is not None]
        rows, units, inverse = engine.call("tallies", fmts, varying, groups, spread, drawn)
        part = expression.totals(len(fmts), rows, units)[0]
        if ragged:  # the compiled sum cannot tell padding from data in a bad block
            real = _to_groups(torch.ones_like(sheets[where], dtype=torch.float32), block).sum(2)
            part[:, _EXCLUDED] = torch.where(inverse > 0, 0.0, real).sum(dtype=torch.float64)
        total = torch.where(is_max, torch.maximum(total, part), total + part)
    total[:, _N] = x.numel() - total[:, _EXCLUDED]
    return total


def _draw(x: Tensor, fmt: BlockFormat, generator: torch.Generator | None) -> Tensor | None:
    if not fmt.stochastic:
        return None
    return torch.rand(x.shape, generator=generator, dtype=torch.float32, device=x.device)


def _tensor_scale(engine: Engine, x: Tensor, fmt: BlockFormat, global_amax: Tensor | float | None) -> Tensor:
    """s_t of a two-level format, 0-d float32; 1 where there is none. The same operations as the reference's."""
    one = torch.ones((), dtype=torch.float32, device=x.device)
    if fmt.scale is Scale.E8M0 or fmt.rule is Rule.SINGLE_LEVEL:
        return one
    if global_amax is None:
        largest = one * 0
        sheets = _sheets(x, fmt.block)
        for where in _strips(sheets, fmt.block, engine.chunk(x.device)):
            groups = _to_groups(sheets[where], fmt.block)
            largest = torch.maximum(largest, engine.call("largest_finite", (), [(groups, 0)], groups).amax())
    else:
        largest = torch.as_tensor(global_amax, device=x.device).to(torch.float32).reshape(())
    return _over_range(largest)


def _over_range(largest: Tensor) -> Tensor:
    return largest / torch.full_like(largest, _TENSOR_RANGE)  # by a tensor: see reference.py


def _spread(scale: Tensor, groups: Tensor) -> Tensor:
    """A tensor scale for every group, [G, 1]; from one number, or from one for each of several equal tensors."""
    return scale.reshape(-1).repeat_interleave(groups.shape[0] // scale.numel())[:, None].contiguous()


def _sheets(x: Tensor, block: tuple[int, int]) -> Tensor:
    """[stack, rows, columns] holding x; runs of whole blocks along the last axis become rows of one block."""
    rows, columns = block
    if rows > 1 and x.dim() >= 2:
        return x.reshape(x.shape[:-2].numel(), *x.shape[-2:])
    width = x.shape[-1] if x.dim() else 1
    if rows > 1 or width % columns:
        return x.reshape(1, x.numel() // max(width, 1), width)
    return x.reshape(1, x.numel() // columns, columns)


def _strips(sheets: Tensor, block: tuple[int, int], chunk: int) -> Iterator[tuple[int, slice]]:
    """Where to cut: whole rows of blocks, about `chunk` elements each."""
    stack, rows, columns = sheets.shape
    if not sheets.numel():
        return
    padded = -(-columns // block[1]) * block[1]
    step = max(chunk // (padded * block[0]), 1) * block[0]
    for sheet in range(stack):
        for start in range(0, rows, step):
            yield sheet, slice(start, min(start + step, rows))


def _to_groups(strip: Tensor, block: tuple[int, int]) -> Tensor:
    """[rows, columns] -> [G, K, L], a view of the strip where nothing needs padding or moving."""
    height, width = block
    if strip.dtype not in _NATIVE:
        strip = strip.to(torch.float32)
    if strip.shape[0] % height or strip.shape[1] % width:
        strip = pad(strip, (0, -strip.shape[1] % width, 0, -strip.shape[0] % height))
    rows, columns = strip.shape
    tiles = strip.reshape(rows // height, height, columns // width, width).transpose(1, 2)
    flat = tiles.reshape(strip.numel())
    missing = max(-flat.numel() % expression.GROUP, 2 * expression.GROUP - flat.numel())
    if missing:
        flat = pad(flat, (0, missing))
    return flat.view(-1, expression.GROUP // width, width)


def _from_groups(groups: Tensor, shape: torch.Size, block: tuple[int, int]) -> Tensor:
    """The inverse of `_to_groups`: padding is cut off."""
    height, width = block
    down, across = -(-shape[0] // height), -(-shape[1] // width)
    flat = groups.reshape(-1)[: down * height * across * width]
    tiles = flat.view(down, across, height, width).transpose(1, 2)
    return tiles.reshape(down * height, across * width)[: shape[0], : shape[1]]
