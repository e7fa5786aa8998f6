"""A model in evaluation mode for a while, and then as it was found.

Not here: what is measured meanwhile. `model.train(mode)` alone would give every module the root's mode, and so wake the
dropout or batch norm of a part that its owner had frozen with `.eval()`.

Worked number: a model in training mode with one frozen block of 7 modules: after the block those 7 are in evaluation
mode and all others in training mode, as before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from srdd.errors import SiteError, SrddError


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


def run(model: nn.Module, token_ids: Tensor) -> Any:
    """What the model returns. The cache for generation is switched off: it would keep keys and values for nothing."""
    if hasattr(getattr(model, "config", None), "use_cache"):
        return model(token_ids, use_cache=False)
    return model(token_ids)


@contextmanager
def explained(model: nn.Module, token_ids: Tensor) -> Iterator[None]:
    """Turns a failure inside the block into a SiteError when the bare model fails on `token_ids` too."""
    try:
        yield
    except (SrddError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as problem:
        try:
            with torch.no_grad():
                run(model, token_ids)
        except Exception as own:  # models raise many types
            text = " ".join(str(own).split())[:200] or "no message"
            raise SiteError(
                f"{type(model).__name__} fails on token ids, also without srdd ({type(own).__name__}: {text}); if it "
                "wants other inputs, only its weights can be measured: --sites weight"
            ) from problem
        raise
