"""What the verl plugin does: noisy weights for rollouts, clean ones for validation, and no way to lose either.

The configuration node `actor_rollout_ref.srdd` (rin, seed, total_steps) reaches every worker, because verl hands them
`actor_rollout_ref`. A worker's `update_weights(global_steps)` takes its tensors from the engine's get_per_tensor_param;
that stream gets the noise of step `global_steps`, which is the number of steps done and so the index of the step whose
rollouts follow. For validation the trainer sends clean weights, and tells workers so by a negative number, -1 - step,
which the wrapped worker turns back.

Not here: finding verl's classes (verl.py).

Worked number: after step 10, weights with the noise of index 10 are sent; the validation that follows sends -11, clean.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from srdd.documents.rin import RinConfig, load_rin
from srdd.errors import NoiseError
from srdd.noise.record import require_noise_ahead
from srdd.noise.stream import NoisyStream

_MODULE = "srdd.noise.verl"
log = logging.getLogger(_MODULE)  # the plugin's, which is heard

_KEYS = ("rin", "seed", "total_steps")


@dataclass(frozen=True)
class Settings:
    """The node `actor_rollout_ref.srdd`."""

    rin: RinConfig
    seed: int
    total_steps: int | None


def required() -> bool:
    """True where a process that cannot load srdd stops: verl lets what these modules raise on import pass."""
    return _MODULE in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",")


def settings(actor_rollout_ref: Any) -> Settings | None:
    """The settings; None without the node. Raises NoiseError and ReportError when they are wrong."""
    node = actor_rollout_ref.get("srdd", None)
    if node is None:
        return None
    if unknown := sorted(set(node) - set(_KEYS)):
        raise NoiseError(f"actor_rollout_ref.srdd.{unknown[0]} is not known; expected {', '.join(_KEYS)}")
    if not node.get("rin"):
        raise NoiseError("actor_rollout_ref.srdd has no rin; add ++actor_rollout_ref.srdd.rin=/path/to/rin.yaml")
    config = load_rin(node["rin"])
    if any(value != 1 for value in (config.lr_multipliers or {}).values()):
        raise NoiseError("rin.yaml has lr_multipliers, which verl cannot take and would lose; take them out")
    return Settings(config, int(node.get("seed") or 0), node.get("total_steps"))


def update_weights(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """ActorRolloutRefWorker.update_weights, in the worker: noise on the stream of this synchronisation."""

    @wraps(original)  # verl's dispatch mode is an attribute of the function, which this copies
    async def wrapped(self: Any, global_steps: int | None = None, mode: str = "auto") -> Any:
        if self.config.get("srdd", None) is None:
            return await original(self, global_steps=global_steps, mode=mode)
        if global_steps is None:
            raise NoiseError("verl sent weights without global_steps, so the step of the schedule is not known")
        backend = self.config.rollout.checkpoint_engine.backend if mode == "auto" else mode
        if backend != "naive":
            raise NoiseError(
                f"checkpoint engine {backend}: srdd sends noise and clean weights through naive only; use it"
            )
        if global_steps < 0:
            return await original(self, global_steps=-1 - global_steps, mode=mode)
        if not hasattr(self, "_srdd"):  # read once, so that a file changed later does not change the training
            chosen = settings(self.config)
            assert chosen is not None
            self._srdd = chosen, _stream(self.actor.engine, self.config, chosen)
        chosen, stream = self._srdd
        total = chosen.total_steps or self.config.actor.optim.total_training_steps
        push = stream.begin(global_steps, int(total or 0))
        with _noisy(self.actor.engine, push.tensor):
            result = await original(self, global_steps=global_steps, mode=mode)
        log.info("srdd: sent to the rollout engine: %s", push.finish())
        return result

    return wrapped


def fit(original: Callable[..., Any]) -> Callable[..., Any]:
    """The trainer's fit, in the driver: everything that would lose the noise is an error before the first step."""

    @wraps(original)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        chosen = settings(self.config.actor_rollout_ref)
        if chosen is None and self.config.trainer.get("srdd", None) is not None:
            raise NoiseError("trainer.srdd never reaches the workers; write ++actor_rollout_ref.srdd.rin=... instead")
        if chosen is not None:
            _check(self, chosen)
        return original(self, *args, **kwargs)

    return wrapped


def validate(original: Callable[..., Any]) -> Callable[..., Any]:
    """The trainer's _validate, in the driver: clean weights before, and noisy ones again after."""

    @wraps(original)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.config.actor_rollout_ref.get("srdd", None) is None:
            return original(self, *args, **kwargs)
        manager = self.checkpoint_manager
        with _clean_pushes(self):
            manager.sleep_replicas()
            manager.update_weights(self.global_steps)
            result = original(self, *args, **kwargs)
        manager.sleep_replicas()
        manager.update_weights(self.global_steps)
        return result

    return wrapped


WRAPPERS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "update_weights": update_weights,
    "fit": fit,
    "_validate": validate,
}


def _stream(engine: Any, config: Any, chosen: Settings) -> NoisyStream:
    """Targets by the names of the Hugging Face model, which the stream carries, whatever the engine made of it."""
    from transformers import AutoModelForCausalLM

    model_config = engine.model_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            model_config.hf_config, trust_remote_code=bool(getattr(model_config, "trust_remote_code", False))
        )
    arrives_as = getattr(torch, str(config.rollout.dtype), None)
    if not isinstance(arrives_as, torch.dtype):
        raise NoiseError(f"actor_rollout_ref.rollout.dtype {config.rollout.dtype}: expected a type such as bfloat16")
    return NoisyStream(model, chosen.rin, seed=chosen.seed, arrives_as=arrives_as)


@contextmanager
def _noisy(engine: Any, noise: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """The engine's stream goes through `noise` inside the block."""
    stream = engine.get_per_tensor_param

    @wraps(stream)
    def noisy(*args: Any, **kwargs: Any) -> Any:
        pairs, peft = stream(*args, **kwargs)
        if peft is not None:
            raise NoiseError(
                "with unmerged LoRA verl sends adapters only, and no weight that could carry noise; set "
                "actor_rollout_ref.model.lora.merge=True"
            )
        return ((name, noise(name, tensor)) for name, tensor in pairs), peft

    engine.get_per_tensor_param = noisy
    try:
        yield
    finally:
        del engine.get_per_tensor_param


@contextmanager
def _clean_pushes(trainer: Any) -> Iterator[None]:
    """Whatever the trainer sends inside the block is clean, also what verl sends there without a step."""
    manager = trainer.checkpoint_manager
    send = manager.update_weights

    @wraps(send)
    def clean(global_steps: int | None = None, *args: Any, **kwargs: Any) -> Any:
        return send(-1 - (trainer.global_steps if global_steps is None else global_steps), *args, **kwargs)

    manager.update_weights = clean
    try:
        yield
    finally:
        del manager.update_weights


def _check(trainer: Any, chosen: Settings) -> None:
    mode = getattr(trainer, "trainer_mode", "sync")
    if mode != "sync":
        raise NoiseError(
            f"trainer.v1.trainer_mode {mode}: rollouts run on during validation there and would get clean weights; use "
            "sync"
        )
    total = int(trainer.total_training_steps)
    if chosen.total_steps is not None and chosen.total_steps != total:
        raise NoiseError(f"actor_rollout_ref.srdd.total_steps {chosen.total_steps}: this training has {total} steps")
    require_noise_ahead(chosen.rin.schedule, 0, total)
    if not required():
        raise NoiseError(
            "a worker in whose environment srdd is missing would send clean weights without a word; add "
            f"++ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES={_MODULE}, so that it stops instead"
        )
