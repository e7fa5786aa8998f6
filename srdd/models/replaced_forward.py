"""Replaces the forward of some modules inside a block, and puts back exactly what was there.

Not here: what stands in for them (fake.py quantizes, stack.py visits layers, srdd.runs.impact.fisher scores Linears).

Only the instance's `forward` attribute changes; hooks and parameters are untouched. Blocks nest, and must be left in
reverse order: ending the outer one first would undo the inner one, whose end would then bring the outer one back. The
model cannot be copied meanwhile: the copy would compute with the original's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from torch import nn

from srdd.errors import BusyError

Forward = Callable[..., Any]


class ReplacedForward:
    """Inside the block each module's forward is `make(name, its forward)`. `doing` says what is done to the model.

    Raises BusyError when it is entered twice, left before an inner block, or the model is copied inside.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], make: Callable[[str, Forward], Forward], doing: str = "being measured"
    ) -> None:
        self._modules, self._make, self._doing = dict(modules), make, doing
        self._active = False
        # Modules whose forward is replaced, by name: what stands in, and what the instance had before (None: nothing).
        self._replaced: dict[str, tuple[_StandIn, Forward | None]] = {}

    def __enter__(self) -> Self:
        if self._active:
            raise BusyError(f"this block, in which the model is {self._doing}, is already active; leave it first")
        self._active = True
        try:
            for name, module in self._modules.items():
                before = module.__dict__.get("forward")
                stand_in = _StandIn(self._make(name, module.forward), self._doing)
                module.forward = stand_in
                self._replaced[name] = stand_in, before
        except BaseException:  # __exit__ is not called then
            self._put_back()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self._active:
            raise BusyError(f"this block, in which the model is {self._doing}, is not active; enter it first")
        others = [
            name
            for name, (ours, _) in self._replaced.items()
            if self._modules[name].__dict__.get("forward") is not ours
        ]
        if others:
            raise BusyError(
                f"the forward of {others[0]} and {len(others) - 1} more was replaced inside this block and not put "
                f"back; leave the inner block first (the model is still {self._doing})"
            )
        self._put_back()

    def _put_back(self) -> None:
        for name, (_, before) in self._replaced.items():
            if before is None:
                del self._modules[name].__dict__["forward"]
            else:
                self._modules[name].__dict__["forward"] = before
        self._replaced.clear()
        self._active = False


class _StandIn:
    """Calls `forward`; refuses to be copied."""

    def __init__(self, forward: Forward, doing: str) -> None:
        self._forward, self._doing = forward, doing

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(*args, **kwargs)

    def __deepcopy__(self, memo: Any) -> Self:
        raise BusyError(
            f"the model is {self._doing}, and a copy would compute with this model's weights; copy it outside the block"
        )
