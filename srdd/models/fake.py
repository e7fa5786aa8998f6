"""Fake quantization of a live model: inside a block its Linears compute with quantized weights, inputs, or both.

    with srdd.fake_quantize(model, "mxfp4", mode="both") as handle:
        loss = model(token_ids, labels=token_ids).loss      # W4A4
    print(handle)                                            # 210 modules: 210 weights, 210 inputs; left out: lm_head

Not here: the speed of low-precision hardware. Products run in the model's own type, which gives the error that such
hardware gives, except for its order of accumulation. In 4 bits "weight" is W4A16, "input" W16A4 and "both" W4A4.

Gradients pass straight through (Bengio et al. 2013): backward is that of the same product with quantized operands, with
rounding taken for the identity. Parameters stay where they are and get the gradients, so an optimizer may step inside
the block. With gradient checkpointing, call backward inside the block, since it runs the forward pass again. Only one
thread at a time may run the model. Worked number: y = w * x with w = 0.9 -> 1.0 and x = 2 -> 2 gives y = 2, dy/dw = 2,
dy/dx = 1.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from srdd import kernels
from srdd.core.formats import BlockFormat, parse
from srdd.core.modes import MODES, Mode
from srdd.errors import SettingError, SiteError, setting
from srdd.kernels.backend import Backend
from srdd.kernels.seeds import generator_for
from srdd.models.modules import experts_transposed, fused_experts, is_linear, require_module
from srdd.models.replaced_forward import Forward, ReplacedForward
from srdd.models.straight_through import content_of, straight_through, version_of

EXCLUDE = ("*lm_head*", "*embed*")  # deployment stacks keep them in high precision


@dataclass(frozen=True)
class Quantizer:
    """A format applied to tensors of a running model; `fmt` None leaves every tensor as it is (the control)."""

    fmt: BlockFormat | None
    backend: str | Backend = "auto"
    seed: int = 0
    # Quantized weights by name, with the version they were made from; None: none are kept between blocks.
    kept: dict[str, tuple[int, Tensor]] | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        return "identity" if self.fmt is None else self.fmt.spec

    def activation(self, x: Tensor, name: str) -> Tensor:
        """An activation [sequences, ..., features], quantized; each sequence has its own tensor scale, as in a scan."""
        if self.fmt is not None and self.fmt.has_tensor_scale and x.dim() > 2:
            return torch.stack([self._apply(part, name) for part in x])
        return self._apply(x, name)

    def weight(self, w: Tensor, name: str, *, transposed: bool = False) -> Tensor:
        """A weight [out, in], [in, out] if transposed, or [experts, out, in], each expert with its own tensor scale."""
        version = version_of(w)
        known = None if self.kept is None or version is None else self.kept.get(name)
        if known is not None and known[0] == version:
            return known[1]
        turned = w.transpose(-1, -2) if transposed else w
        if turned.dim() == 3:
            q = torch.stack([self._apply(part, name) for part in turned])
        else:
            q = self._apply(turned, name)
        q = q.transpose(-1, -2) if transposed else q
        if self.kept is not None and version is not None:
            self.kept[name] = (version, q)
        return q

    def _apply(self, x: Tensor, name: str) -> Tensor:
        if self.fmt is None:
            return x
        generator = generator_for((self.fmt,), x.device, self.seed, name)
        return kernels.quant_dequant(x.detach(), self.fmt, generator=generator, backend=self.backend)


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
            if target.inputs:
                args, kwargs = self._quantize_first(target, args, kwargs)
            with _swapped(target.module, {p: self._weight(target, p) for p in target.parameters}):
                return original(*args, **kwargs)

        return forward

    def _quantize_first(
        self, target: _Target, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args and isinstance(args[0], Tensor):
            return (self._input(target, args[0]), *args[1:]), kwargs
        for key, value in kwargs.items():
            if isinstance(value, Tensor):
                return args, {**kwargs, key: self._input(target, value)}
        raise SiteError(f"{target.name}: its forward pass was given no tensor to quantize")

    def _input(self, target: _Target, x: Tensor) -> Tensor:
        seen = self._seen.get(id(x))
        if seen is not None and seen[0]() is x and seen[1] is not None and seen[1] == version_of(x):
            return straight_through(x, seen[2])
        q = self._quantizer.activation(x, target.name)
        self._seen = {id(x): (weakref.ref(x), version_of(x), q)}
        return straight_through(x, q)

    def _weight(self, target: _Target, parameter: str) -> Tensor:
        w = target.module._parameters[parameter]
        assert w is not None
        known, content = target.cache.get(parameter), content_of(w)
        if known is None or known[0] != content:  # an optimizer has stepped
            q = self._quantizer.weight(w, f"{target.name}.{parameter}", transposed=target.transposed)
            known = target.cache[parameter] = (content, q)
        return straight_through(w, known[1])


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
    exclude: str | Sequence[str] = EXCLUDE,
    backend: str | Backend = "auto",
    seed: int = 0,
) -> FakeQuantized:
    """A context manager in which the Linears, Conv1Ds and fused experts of `model` compute quantized.

    `spec` names the format; a Quantizer brings format, backend and seed. `modules` and `exclude` are globs over module
    names (`*` crosses dots); lm_head and embeddings are left out unless `exclude` says otherwise. Raises FormatError,
    SettingError for an unknown mode, and SiteError for a pattern that matches nothing or when nothing is left.
    """
    if mode not in MODES:
        raise SettingError("mode", mode, f"expected one of {', '.join(MODES)} (W4A16, W16A4, W4A4 in 4 bits)")
    quantizer = spec if isinstance(spec, Quantizer) else Quantizer(parse(spec), backend, seed)
    require_module(model)
    patterns = [modules] if isinstance(modules, str) else list(modules) if modules is not None else ["*"]
    exclude = [exclude] if isinstance(exclude, str) else list(exclude)
    candidates = {name: m for name, m in model.named_modules() if is_linear(m) or fused_experts(m)}
    wanted = [("modules", p) for p in patterns] + [("exclude", p) for p in exclude if p not in EXCLUDE]
    for name, pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in candidates):
            matched = f"none of the {len(candidates)} Linears of {type(model).__name__}"
            raise SiteError(f"{setting(name, repr(pattern))} matches {matched}")
    chosen = {n: m for n, m in candidates.items() if any(fnmatchcase(n, p) for p in patterns)}
    left_out = [name for name in chosen if any(fnmatchcase(name, pattern) for pattern in exclude)]
    targets = [_target(name, module, mode) for name, module in chosen.items() if name not in left_out]
    if not targets:
        some = ", ".join(left_out[:3]) + (" ..." if len(left_out) > 3 else "")
        found = f"every module that matches is left out by {setting('exclude')}: {some}"
        raise SiteError(found if chosen else f"{setting('modules')} is empty")
    return FakeQuantized(targets, left_out, quantizer)


def _target(name: str, module: nn.Module, mode: Mode) -> _Target:
    experts = fused_experts(module)
    transposed = experts_transposed(module) if experts else not isinstance(module, nn.Linear)
    parameters = (experts or ("weight",)) if mode != "input" else ()
    if any(parameter not in module._parameters for parameter in parameters):  # weight_norm and its kin
        raise SiteError(f"{name}: its weight is computed from other parameters; fold them into one parameter first")
    return _Target(name, module, parameters, mode != "weight", transposed)
