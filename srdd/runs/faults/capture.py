"""Catches what goes into and comes out of every module of a layer, and hands the layer over to be run again.

Not here: what is measured (alone.py). Hooks, not replaced forwards, stand around each module: so whatever is between
the caller and the module's arithmetic, other hooks among them, belongs to what is caught. The first hook sees the input
as the caller gave it, the last one the output as the caller gets it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from srdd.models.stack import LayerStack


@dataclass
class Call:
    """One call of a module: what it got and what it gave, as [tokens, channels]; None where that is no tensor."""

    name: str  # inside its layer; "" is the layer
    module: nn.Module
    given: Tensor | None
    output: Tensor | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


OnLayer = Callable[[int, Call, list[Call]], None]


class Capture:
    """Calls `on_layer(index, the layer's call, the calls inside it in the order of their ends)` after every layer."""

    def __init__(self, stack: LayerStack, on_layer: OnLayer) -> None:
        self._stack, self._on_layer = stack, on_layer
        self._open: list[Call] = []
        self._calls: list[Call] = []
        self._again: list[Call] | None = None  # where the calls of a second run go
        self._is_running_alone = False
        self._handles: list[Any] = []

    @contextmanager
    def hooked(self) -> Iterator[None]:
        try:
            for index, layer in enumerate(self._stack.layers):
                for name, module in layer.named_modules():
                    self._hook(index, name, module)
            yield
        finally:
            for handle in self._handles:
                handle.remove()
            self._handles.clear()

    def run(self, call: Call, given: Tensor | None = None) -> Tensor:
        """What the module gives when it runs once more, on its own input or on `given`."""
        args, kwargs = call.args, call.kwargs
        if given is not None:
            args, kwargs = _with_first(args, kwargs, given)  # of fewer rows, it goes as it is
        before, self._is_running_alone = self._is_running_alone, True
        try:
            return _flat(first_tensor(call.module(*args, **kwargs)))
        finally:
            self._is_running_alone = before

    def again(self, call: Call) -> list[Call]:
        """The calls inside a second run of a layer on the same input, the layer's own last."""
        calls: list[Call] = []
        self._again = calls
        try:
            self.run(call)
        finally:
            self._again = None
        return calls

    def _hook(self, index: int, name: str, module: nn.Module) -> None:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._is_running_alone and self._again is None:
                return
            found = _first_given(args, kwargs)
            self._open.append(
                Call(name, module, None if found is None else _flat(found.detach()).clone(), None, args, kwargs)
            )

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if self._is_running_alone and self._again is None:
                return
            call = self._open.pop()
            found = _any_tensor(output)
            call.output = None if found is None else _flat(found.detach()).clone()
            if self._again is not None:
                self._again.append(call)
                return
            if name:
                self._calls.append(call)
                return
            calls, self._calls = self._calls, []
            self._on_layer(index, call, calls)

        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True, prepend=True))
        self._handles.append(module.register_forward_hook(after, with_kwargs=True))


def first_tensor(output: Any) -> Tensor:
    found = _any_tensor(output)
    assert found is not None, "only modules that gave a tensor before are run again"
    return found


def _any_tensor(output: Any) -> Tensor | None:
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) and output.is_floating_point() else None


def _first_given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
    return None


def _with_first(args: tuple[Any, ...], kwargs: dict[str, Any], given: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    for at, value in enumerate(args):
        if isinstance(value, Tensor) and value.is_floating_point():
            return (*args[:at], _shaped(given, value), *args[at + 1 :]), kwargs
    for key, value in kwargs.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            return args, {**kwargs, key: _shaped(given, value)}
    return args, kwargs


def _shaped(given: Tensor, like: Tensor) -> Tensor:
    return given.view_as(like) if given.numel() == like.numel() else given


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]) if x.dim() else x.reshape(1, 1)
