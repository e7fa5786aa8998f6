"""Noise on the copy of the weights that TRL pushes to vLLM, in one process with the trainer or on a server.

TRL pushes once per optimizer step, and again after vLLM slept. What is wrapped is `sync_weights`, and where it takes
the tensors from: `_iter_named_params` (TRL 1.16) or `_push_param_to_vllm` (1.8). Both see whole, merged tensors, so
FSDP, ZeRO-3 and LoRA need nothing of their own here.

Not here: when noise is wanted (trl.py).

Worked number: step 3 trains and evaluates: vLLM is pushed noisy weights for the rollout of step 3, clean ones for the
evaluation after it, and noisy ones for step 4; three pushes, where TRL alone makes two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import Tensor

from srdd.errors import NoiseError
from srdd.noise.injector import Injection
from srdd.noise.stream import NoisyStream, Push


class VllmPush:
    """Wraps the pushes of `trainer.vllm_generation`. `last` tells what the latest noisy push did."""

    def __init__(self, trainer: Any, stream: NoisyStream) -> None:
        self.last: Injection | None = None
        self._trainer = trainer
        self._stream = stream
        self._noisy = False  # what the next push should be
        self._held: bool | None = None  # what vLLM was pushed last; None before the first push
        self._push: Push | None = None
        self._wrap(trainer.vllm_generation)

    @contextmanager
    def wanted(self, noisy: bool) -> Iterator[None]:
        """vLLM generates with noisy, or with clean, weights inside the block."""
        if self._held is not noisy:
            self._trainer._last_loaded_step = -1  # else TRL generates with what it pushed for this step before
        self._noisy = noisy
        try:
            yield
        finally:
            self._noisy = False
        if self._held is not noisy:
            held = {None: "weights that were never pushed", True: "noisy weights", False: "clean weights"}[self._held]
            raise NoiseError(
                f"vLLM generated with {held} where {'noisy' if noisy else 'clean'} ones were wanted: this TRL does not "
                "push through sync_weights of vllm_generation"
            )

    def _wrap(self, vllm: Any) -> None:
        sync = getattr(vllm, "sync_weights", None)
        pairs = getattr(vllm, "_iter_named_params", None)
        one = getattr(vllm, "_push_param_to_vllm", None)
        if sync is None or (pairs is None and one is None):
            raise NoiseError(
                f"{type(vllm).__name__} lacks sync_weights, or both _iter_named_params and _push_param_to_vllm, on "
                "which noise is put; srdd knows TRL 1.8 to 1.16"
            )

        @wraps(sync)
        def sync_weights(*args: Any, **kwargs: Any) -> Any:
            state = self._trainer.state
            self._held = None
            self._push = self._stream.begin(state.global_step, state.max_steps) if self._noisy else None
            try:
                result = sync(*args, **kwargs)
                if self._push is not None:
                    self.last = self._push.finish()
            finally:
                self._push = None
            self._held = self._noisy
            return result

        vllm.sync_weights = sync_weights
        if pairs is not None:

            @wraps(pairs)
            def named_params(*args: Any, **kwargs: Any) -> Iterator[tuple[str, Tensor]]:
                for name, tensor in pairs(*args, **kwargs):
                    yield name, self._with_noise(name, tensor)

            vllm._iter_named_params = named_params
        elif one is not None:

            @wraps(one)
            def push_param(name: str, param: Tensor, *args: Any, **kwargs: Any) -> Any:
                return one(name, self._with_noise(name, param), *args, **kwargs)

            vllm._push_param_to_vllm = push_param

    def _with_noise(self, name: str, tensor: Tensor) -> Tensor:
        return tensor if self._push is None else self._push.tensor(name, tensor)
