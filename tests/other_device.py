"""A device without hardware: tensors that say they live "elsewhere" and are computed on the CPU.

What a GPU refuses is refused here: operands on two devices (a number without dimensions may join) and, like Apple's
MPS, anything in float64. Rounding is the CPU's, so it says nothing about a real device's arithmetic, and torch's
backward needs a real one. Only eager code runs.

    with OtherDevice() as device:
        x = torch.ones(32).to(device)   # x.device.type == "elsewhere"
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "elsewhere"


_inside: list[bool] = []  # the device stays registered until the process ends, but is there only while this holds one


class _Module(backend_registration._DummyBackendModule):
    def is_available(self) -> bool:
        return bool(_inside)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class _Hook(backend_registration._DummyPrivateUse1Hook):
    def is_available(self) -> bool:
        return bool(_inside)


class There(Tensor):
    """A tensor on the device: `here` holds its values."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        made: There = Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype, device=NAME
        )
        return made

    def __init__(self, here: Tensor) -> None:
        self.here = here

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.here!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class OtherDevice(TorchFunctionMode):
    """Inside, tensors can be made on the device, and moved to and from it."""

    def __enter__(self) -> torch.device:  # type: ignore[override]
        if not hasattr(torch, NAME):
            torch.utils.rename_privateuse1_backend(NAME)
            torch._register_device_module(NAME, _Module())
            torch._C._acc.register_python_privateuseone_hook(_Hook())
            torch._C._acc.register_python_privateuseone_device_guard(backend_registration._DummyDeviceGuard())
        _inside.append(True)
        self._factories = _Factories()
        super().__enter__()
        self._factories.__enter__()
        return torch.device(NAME)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _inside.pop()
        self._factories.__exit__(kind, error, trace)
        super().__exit__(kind, error, trace)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist:
            return func(args[0].cpu())
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type == NAME:
            return func(*args, **{**kwargs, "device": None}).to(NAME)  # made below where Python could step in
        return func(*args, **kwargs)


def move(model: nn.Module, device: torch.device) -> nn.Module:
    """What `model.to(device)` does, which cannot put a tensor of another class into a parameter."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach().to(device), parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    return model


class _Factories(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors: list[Tensor] = []

    def here(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value)
            return value.here if isinstance(value, There) else value
        return type(value)(map(here, value)) if type(value) in (list, tuple) else value

    def back(value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.dtype == torch.float64:
                raise TypeError(f"{func}: {NAME} has no float64")
            return There(value)
        return type(value)(map(back, value)) if type(value) in (list, tuple) else value

    target = kwargs.get("device")
    args, kwargs = here(args), {name: here(value) for name, value in kwargs.items()}
    there = any(isinstance(t, There) for t in tensors)
    if target is not None:
        there, kwargs["device"] = torch.device(target).type == NAME, "cpu"
    elif there and func is not torch.ops.aten.copy_.default:
        strangers = [t.device for t in tensors if not isinstance(t, There) and t.dim()]
        if strangers:
            raise RuntimeError(f"{func}: expected all tensors on {NAME}, found one on {strangers[0]}")
    out = func(*args, **kwargs)
    if not there:
        return out
    if func._schema.name.endswith("_"):  # in place: the tensor given comes back
        return tensors[0]
    return back(out)
