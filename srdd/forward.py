"""One pass of a model over token ids, and what to say when the model does not run on them.

Not here: hooks (tap.py) and layers run one by one (impact/stack.py). A model that wants pictures, sound or a decoder's
tokens raises whatever it likes, deep inside its own code. That is no bug of srdd: it becomes one line.

Worked number: a failed pass costs one more, over one sequence and with every hook gone, to tell whose failure it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from srdd.errors import SiteError, SrddError


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
