"""Which call of a module this is, counting from 0, also when a backward pass runs it again (gradient checkpointing).

Stochastic rounding draws by (seed, name, call). torch.utils.checkpoint runs parts of the forward pass again inside
backward, in both of its variants, and what runs again must draw what it drew. So inside backward no call is new: it is
one of those that were made, told by the content of its input, which a checkpoint makes again bit for bit.

Where several calls had that content, the latest is taken that this backward pass has not run again: passes are undone
in reverse. Among calls on the very same tensor the first comes first, since they stand in one part. An input that came
out otherwise (kernels that add in any order) leaves its shape to go by.

Why not by the global random state, which a checkpoint restores: calls would have to advance it, which changes the
dropout of the user's model, draws would depend on it and not on the seed, and `preserve_rng_state=False` would break
them silently. Not here: drawing (srdd.kernels.seeds). Two losses of the same batch whose backward passes run first in,
first out, confuse the draws of the first layer only.

Worked number: two passes over other text number the calls of q_proj 0 and 1; their backward runs again 1, then 0.
"""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from srdd.errors import BusyError
from srdd.models.straight_through import content_of

KEPT = 256  # calls of a module between a forward pass and its backward: micro-batches, or uses of a shared module


@dataclass(frozen=True)
class _Call:
    number: int
    shape: tuple[int, ...]
    content: object
    chain: int  # the first of the calls in a row on the very same tensor


class Calls:
    """Counts the calls of every module, by name."""

    def __init__(self) -> None:
        self._made: dict[str, deque[_Call]] = {}
        self._inputs: dict[str, weakref.ref[Tensor]] = {}  # of the latest call
        self._again: set[tuple[int, str, int]] = set()  # (backward pass, name, number) of calls that ran again

    def number(self, name: str, x: Tensor | None) -> int:
        """The call that runs now, with `x` for its input. Raises BusyError when backward runs a call nobody made."""
        shape, content = ((), None) if x is None else (tuple(x.shape), content_of(x)[1:])
        # -1 outside of backward; the name is torch's own, which its checkpoints and its module tracker go by
        backward = torch._C._current_graph_task_id()
        if backward >= 0:
            return self._made_before(backward, name, shape, content)
        self._again.clear()
        made = self._made.setdefault(name, deque(maxlen=KEPT))
        number = made[-1].number + 1 if made else 0
        before = self._inputs.get(name)
        chain = made[-1].chain if made and x is not None and before is not None and before() is x else number
        made.append(_Call(number, shape, content, chain))
        if x is not None:
            self._inputs[name] = weakref.ref(x)
        return number

    def _made_before(self, backward: int, name: str, shape: tuple[int, ...], content: object) -> int:
        alike = [call for call in self._made.get(name, ()) if call.shape == shape]
        if not alike:
            raise BusyError(
                f"{name} is run again by a backward pass, but not one of its last {KEPT} calls in this block was like "
                "it, so what it drew is not known; run forward and backward inside one block"
            )
        found = [call for call in alike if call.content == content] or alike
        # none is left where a checkpoint inside a checkpoint runs a call again for the second time
        left = [call for call in found if (backward, name, call.number) not in self._again] or found
        number = min(left, key=lambda call: (-call.chain, call.number)).number
        self._again.add((backward, name, number))
        return number
