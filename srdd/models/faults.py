"""Plants faults in a live model: inside a block a layer, or one of its modules, computes as broken hardware would.

    with srdd.plant(model, "layer=10,deadzone=0.01", "layer=3,module=mlp.down_proj,bias=0.1"):
        report = srdd.scan(model, token_ids)      # the report names both faults

A fault at the input or output stands around the module's own forward, so that hooks, fake quantization and whatever
runs a layer alone meet it; one at a weight changes the parameter, which is put back bit for bit. A module that is
called with several tensors has the fault on its hidden state. "Prefill" is every call of more than one token.

Not here: kinds (fault_kinds.py) and their text (srdd.core.faults).
"""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from srdd.core.faults import Fault, parse_fault
from srdd.errors import BusyError, NoEffectError, SettingError, TensorError
from srdd.models.fault_kinds import FUNCTIONS, Draw
from srdd.models.heads import column_heads, config_of
from srdd.models.modules import decoder_layers, fused_experts, is_linear, require_module
from srdd.models.replaced_forward import Forward, ReplacedForward

# What is planted now, by the module that has it, for the reports of what is measured meanwhile.
_PLANTED: weakref.WeakKeyDictionary[nn.Module, list[Fault]] = weakref.WeakKeyDictionary()
# last parts of the names of the projections that join attention heads
_JOIN = ("o_proj", "out_proj", "out_lin", "c_proj", "dense", "o")


@dataclass(frozen=True)
class _Place:
    """A fault and the module that gets it."""

    fault: Fault
    name: str
    inside: str  # the module's name inside its layer
    module: nn.Module
    parameters: tuple[str, ...]  # of a fault at the weight
    draw: Draw


class Planted:
    """The context manager that `plant` returns. It can be entered again, but not twice at a time."""

    def __init__(self, places: list[_Place]) -> None:
        self._places = places
        self._calls = [0] * len(places)
        self._stack: ExitStack | None = None
        self._open = [
            ReplacedForward({place.name: place.module}, self._broken(at), "planted with a fault")
            for at, place in enumerate(places)
        ]
        self._kept: list[tuple[Tensor, Tensor]] = []  # parameters as they were

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(place.fault for place in self._places)

    @property
    def modules(self) -> tuple[str, ...]:
        """Of each fault, inside its layer; "" for the layer."""
        return tuple(place.inside for place in self._places)

    def __enter__(self) -> Self:
        if self._stack is not None:
            raise BusyError("these faults are planted already; leave their block first")
        with ExitStack() as stack:
            stack.callback(self._mend_weights)
            for at, (place, block) in enumerate(zip(self._places, self._open, strict=True)):
                stack.enter_context(block)
                self._calls[at] = 0
                place.draw.__post_init__()  # the same noise whenever the block is entered
                self._break_weights(place)
                _PLANTED.setdefault(place.module, []).append(place.fault)
                stack.callback(_PLANTED[place.module].remove, place.fault)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.__exit__(kind, error, tb)
        idle = [place.fault for place, calls in zip(self._places, self._calls, strict=True) if not calls]
        idle = [fault for fault in idle if fault.at != "weight"]
        if idle and error is None:
            why = "which never ran" if idle[0].steps == "all" else "which never ran on more than one token"
            raise NoEffectError("plant", f"at the {idle[0].place}, {why}")

    def _broken(self, at: int) -> Any:
        def make(name: str, original: Forward) -> Forward:
            place = self._places[at]
            fault, function = place.fault, FUNCTIONS[place.fault.kind]

            def spoilt(x: Tensor) -> Tensor:
                if fault.steps == "prefill" and (x.dim() < 2 or x.shape[-2] < 2):
                    return x
                self._calls[at] += 1
                return function(x, fault.size, place.draw)

            def forward(*args: Any, **kwargs: Any) -> Any:
                if fault.at == "input":
                    args, kwargs = _with_input(place, spoilt, args, kwargs)
                output = original(*args, **kwargs)
                return _with_first(place, spoilt, output) if fault.at == "output" else output

            return forward

        return make

    def _break_weights(self, place: _Place) -> None:
        for name in place.parameters:
            weight = getattr(place.module, name)
            if not weight.is_floating_point() or weight.element_size() < 2:
                raise TensorError(f"{place.name}.{name} holds codes; a fault is planted in a weight of floats")
            with torch.no_grad():
                broken = FUNCTIONS[place.fault.kind](weight.detach(), place.fault.size, place.draw)
                self._kept.append((weight, weight.detach().clone()))
                weight.copy_(broken)

    def _mend_weights(self) -> None:
        with torch.no_grad():
            while self._kept:  # the last fault of a weight first
                weight, before = self._kept.pop()
                weight.copy_(before)


def plant(model: nn.Module, *faults: str | Fault) -> Planted:
    """A context manager in which the model has these faults, each a Fault or its text ("layer=10,deadzone=0.01").

    Raises SettingError for a layer, module or size that the model does not have, SiteError for what is no model;
    leaving the block raises NoEffectError for a fault that met no tensor. Inside, the model cannot be copied and the
    same faults not be entered again (BusyError).
    """
    require_module(model)
    wanted = [parse_fault(fault) if isinstance(fault, str) else fault for fault in faults]
    if not wanted:
        raise SettingError("plant", None, "expected at least one fault, e.g. layer=10,deadzone=0.01")
    return Planted([_place(model, fault) for fault in wanted])


def planted_in(model: nn.Module) -> list[str]:
    """A sentence for every fault that is planted in the model now; documents carry them among their warnings."""
    found = [fault for module in model.modules() for fault in _PLANTED.get(module, ())]
    told = "the numbers are of a model that was broken on purpose"
    return [f"PLANTED FAULT: {fault.kind} {fault.size:g} at the {fault.place}; {told}" for fault in found]


def check_place(model: nn.Module, fault: Fault) -> None:
    """Raises SettingError for a place that the model does not have."""
    _place(model, fault)


def _place(model: nn.Module, fault: Fault) -> _Place:
    layers = decoder_layers(model)
    if fault.layer >= len(layers):
        found = f"the model has layers 0 to {len(layers) - 1}" if layers else "the model has no layers"
        raise SettingError("plant", f"layer={fault.layer}", found)
    prefix = next(name for name, index in layers.items() if index == fault.layer)
    layer = model.get_submodule(prefix)
    module = fault.module or (_joining(layer, fault) if fault.kind == "dead_head" else None)
    inside = {name: part for name, part in layer.named_modules() if name}
    if module is not None and module not in inside:
        some = ", ".join(name for name, part in inside.items() if is_linear(part) or fused_experts(part))
        raise SettingError("plant", f"module={module}", f"layer {fault.layer} has {some}")
    owner = layer if module is None else inside[module]
    parameters: tuple[str, ...] = ()
    if fault.at == "weight":
        parameters = fused_experts(owner) or (
            ("weight",) if isinstance(owner._parameters.get("weight"), Tensor) else ()
        )
        if not parameters:
            raise SettingError("plant", f"module={module}", f"{type(owner).__name__} has no weight of its own")
    name = f"{prefix}.{module}" if module else prefix
    heads = column_heads("o_proj", name, config_of(model)) if fault.kind == "dead_head" else None
    return _Place(fault, name, module or "", owner, parameters, Draw(fault.seed, heads))


def _joining(layer: nn.Module, fault: Fault) -> str:
    """The projection that joins attention heads: the last Linear of that name in what is called attention."""
    for name, module in layer.named_modules():
        parent, _, role = name.rpartition(".")
        if is_linear(module) and role in _JOIN and "att" in parent.lower():
            return str(name)
    raise SettingError("plant", f"layer={fault.layer}", "no projection that joins heads is known; name it as module")


def _with_input(place: _Place, spoilt: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first tensor of floats of a call is its hidden state."""
    for at, value in enumerate(args):
        if isinstance(value, Tensor) and value.is_floating_point():
            return (*args[:at], spoilt(value), *args[at + 1 :]), kwargs
    for key, value in kwargs.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            return args, {**kwargs, key: spoilt(value)}
    raise SettingError("plant", str(place.fault), f"{place.name} was given no tensor of floats")


def _with_first(place: _Place, spoilt: Any, output: Any) -> Any:
    if isinstance(output, Tensor):
        return spoilt(output)
    if isinstance(output, tuple) and output:
        return (_with_first(place, spoilt, output[0]), *output[1:])
    raise SettingError("plant", str(place.fault), f"{place.name} returned {type(output).__name__}, expected a tensor")
