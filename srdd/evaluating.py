"""A model in evaluation mode for a while, and then as it was found.

Not here: what is measured meanwhile. `model.train(mode)` alone would give every module the root's mode, and so wake the
dropout or batch norm of a part that its owner had frozen with `.eval()`.

Worked number: a model in training mode with one frozen block of 7 modules: after the block those 7 are in evaluation
mode and all others in training mode, as before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from srdd.errors import SiteError


def require_module(model: nn.Module) -> None:
    """Raises SiteError for what is no model in memory, e.g. a name that the command line would open."""
    if not isinstance(model, nn.Module):
        raise SiteError(
            f"expected a model in memory (torch.nn.Module), found {type(model).__name__}; open it first: "
            "srdd.source.open_model(name).model"
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every module's own mode is back after it, also after an exception.

    `torch.inference_mode` is off inside, for its tensors do not tell whether they were changed in place, which must be
    known to share one measurement among the modules that read the same tensor. No gradients are kept then either.
    """
    root, modes = model.training, {module: module.training for module in model.modules()}
    inference = torch.is_inference_mode_enabled()
    model.eval()
    try:
        with (
            torch.inference_mode(False) if inference else nullcontext(),
            torch.no_grad() if inference else nullcontext(),
        ):
            yield
    finally:
        model.train(root)  # a module may do more than set its flag
        for module, mode in modes.items():
            module.training = mode
