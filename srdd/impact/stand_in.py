"""What stands in for a module's forward for a while, and cannot be copied along with the module.

Not here: what it does. Worked number: an average of weights made by `copy.deepcopy(model)` inside the block would hold
functions of the first model, so 210 Linears of the copy would compute with weights that are not theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from srdd.errors import OptionError


class StandIn:
    """Calls `forward`. Raises OptionError when it is copied."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(*args, **kwargs)

    def __deepcopy__(self, memo: Any) -> StandIn:
        raise OptionError(
            "the model is fake quantized, and a copy would compute with this model's weights; copy it outside the block"
        )
