"""Runs a model in evaluation mode, restores every module's own mode, and explains a model that fails by itself.

Not here: what is measured meanwhile. `model.train(mode)` alone would give every module the root's mode, and so turn on
the dropout or batch norm of a part that its owner had frozen with `.eval()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from srdd.errors import SiteError, SrddError, setting


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards, even after an exception, every module has its own mode again.

    `torch.inference_mode` is off inside (gradients stay off): its tensors do not tell whether they were changed in
    place, which must be known to share one measurement among the modules that read the same tensor.
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
    """What the model returns. The generation cache is switched off: it would keep keys and values for nothing."""
    if hasattr(getattr(model, "config", None), "use_cache"):
        return model(token_ids, use_cache=False)
    return model(token_ids)


@contextmanager
def explained(model: nn.Module, token_ids: Tensor) -> Iterator[None]:
    """Turns a failure inside the block into a SiteError if the bare model fails on `token_ids` too."""
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
                f"wants other inputs, only its weights can be measured: {setting('sites', 'weight')}"
            ) from problem
        raise
