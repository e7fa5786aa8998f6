"""The device and type of a model's parameters, access to offloaded ones, and a check that all are finite."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from srdd.errors import MissingExtraError, NonfiniteError


def present(module: nn.Module) -> AbstractContextManager[None]:
    """A context in which weights that accelerate keeps on the CPU or on disk are brought in."""
    if getattr(module, "_hf_hook", None) is None:
        return nullcontext()
    try:
        from accelerate.utils import align_module_device
    except ImportError:
        raise MissingExtraError("this model is offloaded by accelerate; install it: pip install 'srdd[big]'") from None
    context: AbstractContextManager[None] = align_module_device(module)
    return context


def device_of(model: nn.Module) -> torch.device:
    """Where the model computes. Offloaded weights are on "meta" between passes; then accelerate's hooks know."""
    parameters = [p.device for p in model.parameters() if p.device.type != "meta"]
    if parameters:
        return parameters[0]
    hooks = (getattr(module, "_hf_hook", None) for module in model.modules())
    return torch.device(next((d for h in hooks if (d := getattr(h, "execution_device", None)) is not None), "cpu"))


def dtype_of(model: nn.Module) -> torch.dtype:
    """The type of the first parameter; float32 for a model without parameters."""
    return next((p.dtype for p in model.parameters()), torch.float32)


def refuse_nonfinite(model: nn.Module) -> None:
    """Raises NonfiniteError for the first parameter that holds NaN or infinity: no cost of such a model is a number."""
    for name, parameter in model.named_parameters():
        if parameter.is_meta or not parameter.is_floating_point():  # offloaded weights are not looked at
            continue
        values = parameter.detach()
        values = values.float() if values.element_size() == 1 else values  # 8-bit floats have no aminmax
        if values.numel() and not torch.stack(values.aminmax()).isfinite().all():
            raise NonfiniteError(f"{name} holds NaN or infinite values; repair it (`srdd scan` finds all such tensors)")
