"""Fake quantization of a live model: inside a block its Linears compute with quantized weights, inputs, or both.

    with srdd.fake_quantize(model, "mxfp4", mode="both") as handle:
        loss = model(token_ids, labels=token_ids).loss      # W4A4
    print(handle)                                            # 210 modules: 210 weights, 210 inputs; left out: lm_head

LoRA adapters that PEFT has put into the model stay in 16 bit beside the quantized weight, as servers keep them: they
are no modules of the model (wrapped.py), and names are those of the model without them.

Not here: the speed of low-precision hardware. Products run in the model's own type, which gives the error that such
hardware gives, except for its order of accumulation. In 4 bits "weight" is W4A16, "input" W16A4 and "both" W4A4.

Gradients pass straight through (Bengio et al. 2013): backward is that of the same product with quantized operands, with
rounding taken for the identity. Parameters stay where they are and get the gradients, so an optimizer may step inside
the block. With gradient checkpointing, call backward inside the block, since it runs the forward pass again. Only one
thread at a time may run the model. Worked number: y = w * x with w = 0.9 -> 1.0 and x = 2 -> 2 gives y = 2, dy/dw = 2,
dy/dx = 1.

Formats that round stochastically draw weights and inputs anew at every call, by (seed, name, call), each sequence of a
batch for itself; what a checkpoint runs again draws what it drew (calls.py). Nothing of a draw is kept, so every call
quantizes its weights again. `fresh=False` freezes: every call draws what the first one does.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from srdd.core.formats import BlockFormat, parse
from srdd.core.modes import MODES, Mode
from srdd.errors import NoEffectError, SettingError, SiteError, setting
from srdd.kernels.backend import Backend
from srdd.models.calls import Calls
from srdd.models.modules import experts_transposed, fused_experts, is_linear, require_module
from srdd.models.quantizer import Quantizer
from srdd.models.replaced_forward import Forward, ReplacedForward
from srdd.models.straight_through import content_of, straight_through, version_of
from srdd.models.wrapped import computed_anew, named_modules

EXCLUDE = ("*lm_head*", "*embed*")  # deployment stacks keep them in high precision


def left_out_by(exclude: str | Sequence[str], default_exclude: Sequence[str] = EXCLUDE) -> list[str]:
    """All patterns of modules that stay as they are: the defaults, and what a caller adds to them."""
    return list(dict.fromkeys([*default_exclude, *([exclude] if isinstance(exclude, str) else exclude)]))


@dataclass
class _Target:
    """A module that is to compute quantized."""

    name: str
    module: nn.Module
    parameters: tuple[str, ...]  # those that are quantized
    inputs: bool
    transposed: bool
    cache: dict[str, tuple[object, Tensor]] = field(default_factory=dict)  # parameter -> (its content, quantized)
    calls: int = 0


class FakeQuantized:
    """The context manager that `fake_quantize` returns. It can be entered again, but not twice at a time."""

    def __init__(self, targets: Sequence[_Target], left_out: Sequence[str], quantizer: Quantizer) -> None:
        self._targets = {target.name: target for target in targets}
        self._quantizer = quantizer
        modules = {name: target.module for name, target in self._targets.items()}
        self._replaced = ReplacedForward(modules, self._quantized, "fake quantized")
        # The last input quantized: q, k and v read the same tensor. Weak, so that nothing outlives its use.
        self._seen: dict[int, tuple[weakref.ref[Tensor], int | None, Tensor]] = {}
        self._calls = Calls()
        self.modules = tuple(target.name for target in targets)
        self.weights = sum(len(target.parameters) for target in targets)
        self.inputs = sum(target.inputs for target in targets)
        self.left_out = tuple(left_out)

    def __str__(self) -> str:
        out = f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
        return f"{len(self.modules)} modules: {self.weights} weights, {self.inputs} inputs{out}"

    @property
    def calls(self) -> dict[str, int]:
        """How often each module ran while quantized."""
        return {name: target.calls for name, target in self._targets.items()}

    def __enter__(self) -> FakeQuantized:
        self._replaced.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._replaced.__exit__(kind, error, tb)
        for target in self._targets.values():
            target.cache.clear()
        self._seen.clear()

    def _quantized(self, name: str, original: Forward) -> Forward:
        target = self._targets[name]

        def forward(*args: Any, **kwargs: Any) -> Any:
            target.calls += 1
            call = self._calls.number(name, _first(args, kwargs)) if self._quantizer.fresh else 0
            if target.inputs:
                args, kwargs = self._quantize_first(target, args, kwargs, call)
            with _swapped(target.module, {p: self._weight(target, p, call) for p in target.parameters}):
                return original(*args, **kwargs)

        return forward

    def _quantize_first(
        self, target: _Target, args: tuple[Any, ...], kwargs: dict[str, Any], call: int
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args and isinstance(args[0], Tensor):
            return (self._input(target, args[0], call), *args[1:]), kwargs
        for key, value in kwargs.items():
            if isinstance(value, Tensor):
                return args, {**kwargs, key: self._input(target, value, call)}
        raise SiteError(f"{target.name}: its forward pass was given no tensor to quantize")

    def _input(self, target: _Target, x: Tensor, call: int) -> Tensor:
        if self._quantizer.stochastic:  # by the module's own name, whoever read the tensor before
            return straight_through(x, self._quantizer.activation(x, target.name, call))
        seen = self._seen.get(id(x))
        if seen is not None and seen[0]() is x and seen[1] is not None and seen[1] == version_of(x):
            return straight_through(x, seen[2])
        q = self._quantizer.activation(x, target.name)
        self._seen = {id(x): (weakref.ref(x), version_of(x), q)}
        return straight_through(x, q)

    def _weight(self, target: _Target, parameter: str, call: int) -> Tensor:
        w = target.module._parameters[parameter]
        assert w is not None
        name = f"{target.name}.{parameter}"
        if self._quantizer.fresh:
            return straight_through(w, self._quantizer.weight(w, name, call, transposed=target.transposed))
        known, content = target.cache.get(parameter), content_of(w)
        if known is None or known[0] != content:  # an optimizer has stepped
            q = self._quantizer.weight(w, name, transposed=target.transposed)
            known = target.cache[parameter] = (content, q)
        return straight_through(w, known[1])


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The input of a call."""
    return next((value for value in (*args[:1], *kwargs.values()) if isinstance(value, Tensor)), None)


@contextmanager
def _swapped(module: nn.Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """Replaces attributes for one call, as torch.func.functional_call does; the parameters themselves never move."""
    kept = {name: module._parameters[name] for name in tensors}
    try:
        module._parameters.update(tensors)  # type: ignore[arg-type]  # plain tensors stand in for one call
        yield
    finally:
        module._parameters.update(kept)


def fake_quantize(
    model: nn.Module,
    spec: str | BlockFormat | Quantizer,
    mode: Mode = "both",
    *,
    modules: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] = (),
    default_exclude: Sequence[str] = EXCLUDE,
    backend: str | Backend = "auto",
    seed: int = 0,
    fresh: bool | None = None,
) -> FakeQuantized:
    """A context manager in which the Linears, Conv1Ds and fused experts of `model` compute quantized.

    `spec` names the format; a Quantizer brings format, backend, seed and freshness. `modules` and `exclude` are globs
    over module names (`*` crosses dots). `exclude` adds to `default_exclude`, which leaves lm_head and embeddings out;
    () there quantizes them too. `fresh` is for formats that round stochastically: they draw anew at every call, or with
    False what the first call draws.
    Raises FormatError, SettingError for an unknown mode, NoEffectError for `fresh` with any other format, and SiteError
    for a pattern that matches nothing or when nothing is left.
    """
    if mode not in MODES:
        raise SettingError("mode", mode, f"expected one of {', '.join(MODES)} (W4A16, W16A4, W4A4 in 4 bits)")
    quantizer = spec if isinstance(spec, Quantizer) else _quantizer(parse(spec), backend, seed, fresh)
    if quantizer is spec and fresh is not None:
        raise NoEffectError("fresh", "with a Quantizer, which says it itself")
    require_module(model)
    patterns = [modules] if isinstance(modules, str) else list(modules) if modules is not None else ["*"]
    exclude = left_out_by(exclude, default_exclude)
    candidates = {name: m for name, m in named_modules(model) if is_linear(m) or fused_experts(m)}
    wanted = [("modules", p) for p in patterns] + [("exclude", p) for p in exclude if p not in EXCLUDE]
    for name, pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in candidates):
            matched = f"none of the {len(candidates)} Linears of {type(model).__name__}"
            raise SiteError(f"{setting(name, repr(pattern))} matches {matched}")
    chosen = {n: m for n, m in candidates.items() if any(fnmatchcase(n, p) for p in patterns)}
    left_out = [name for name in chosen if any(fnmatchcase(name, pattern) for pattern in exclude)]
    anew = [name for name in chosen if name not in left_out and name in computed_anew(model)]
    if anew:
        raise SiteError(
            f"{anew[0]}: PEFT adds the adapter to its weights in every call (target_parameters), so that there is none "
            f"to quantize by itself; merge the adapter first, or leave it out with {setting('exclude', repr(anew[0]))}"
        )
    targets = [_target(name, module, mode) for name, module in chosen.items() if name not in left_out]
    if not targets:
        some = ", ".join(left_out[:3]) + (" ..." if len(left_out) > 3 else "")
        found = f"every module that matches is left out by {setting('exclude')}: {some}"
        raise SiteError(found if chosen else f"{setting('modules')} is empty")
    return FakeQuantized(targets, left_out, quantizer)


def _quantizer(fmt: BlockFormat, backend: str | Backend, seed: int, fresh: bool | None) -> Quantizer:
    if fresh is not None and not fmt.stochastic:
        raise NoEffectError("fresh", f"with {fmt.spec}, which rounds to nearest")
    return Quantizer(fmt, backend, seed, fresh=fmt.stochastic and fresh is not False)


def _target(name: str, module: nn.Module, mode: Mode) -> _Target:
    experts = fused_experts(module)
    transposed = experts_transposed(module) if experts else not isinstance(module, nn.Linear)
    parameters = (experts or ("weight",)) if mode != "input" else ()
    if any(parameter not in module._parameters for parameter in parameters):  # weight_norm and its kin
        raise SiteError(f"{name}: its weight is computed from other parameters; fold them into one parameter first")
    return _Target(name, module, parameters, mode != "weight", transposed)
