"""Noise in TRL's `GRPOTrainer`: in rollouts, in training, or in both, chosen when it is attached.

With transformers generation the live weights carry noise exactly while completions are generated; with vLLM a noisy
copy is pushed and the trainer's weights stay clean. Completions for evaluation come from clean weights: vLLM is pushed
clean ones before, and noisy ones after.

With `where="rollout"` the policy that generates is not the one that is trained: log-probabilities are computed with
clean weights. TRL's correction for vLLM (`vllm_importance_sampling_correction`, on by default) then takes part of the
noise's effect back; decide which you want. With "both", rollouts, old log-probabilities and training passes of one step
share the same noise (and so does a PEFT reference, which is the same model with its adapter off). With "training",
rollouts and all scores are clean.

Not here: the noise of the training passes (hf.py), which `attach` adds as a callback, and the pushes (trl_push.py).

Worked number: GRPO over 10 steps, 10 stages, one generation a step: rollout 0 is clean, rollouts 1 to 9 have noise.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from transformers import TrainerCallback

from srdd.documents import schedule
from srdd.documents.rin import RinConfig, load_rin
from srdd.errors import NoiseError, SettingError
from srdd.noise.hf import RinCallback, refuse_sharding
from srdd.noise.injector import Injector
from srdd.noise.learning_rates import require_rates
from srdd.noise.plan import NoisePlan
from srdd.noise.record import Record, require_noise_ahead
from srdd.noise.stream import NoisyStream
from srdd.noise.trl_push import VllmPush

log = logging.getLogger(__name__)

Where = Literal["rollout", "training", "both"]


def attach(
    trainer: Any,
    config: RinConfig | str | Path,
    *,
    where: Where = "rollout",
    seed: int = 0,
    arrives_as: torch.dtype = torch.bfloat16,
) -> GrpoNoise:
    """Put the noise of `config` into a `GRPOTrainer` before train(); the result's records tell what was done.

    `arrives_as` is the type of vLLM's weights, in which the noise is measured. Raises NoiseError when the document is
    for another model, or this TRL lacks the methods that are wrapped.
    """
    if where not in get_args(Where):
        raise SettingError("where", repr(where), "expected rollout, training or both")
    config = load_rin(config)
    for method in ("_generate", "_generate_and_score_completions", "add_callback"):
        if not callable(getattr(trainer, method, None)):
            raise NoiseError(
                f"{type(trainer).__name__} has no {method}(), which noise is attached to; srdd knows GRPOTrainer of "
                "TRL 1.0 to 1.16"
            )
    if hasattr(trainer, "_srdd_noise"):
        raise NoiseError("noise is already attached to this trainer; a second time would add up")
    noise = GrpoNoise(trainer, config, where, seed, arrives_as)
    trainer._srdd_noise = noise
    return noise


class GrpoNoise(TrainerCallback):  # type: ignore[misc]
    """What `attach` puts into the trainer. `rollouts` and `training` are records, None where noise is not wanted."""

    def __init__(self, trainer: Any, config: RinConfig, where: Where, seed: int, arrives_as: torch.dtype) -> None:
        self.config = config
        self.where = where
        self.rollouts = Record() if where != "training" else None
        self._trainer = trainer
        self._seed = seed
        self._live: Injector | None = None
        self._push: VllmPush | None = None
        self._first = 0
        self._callback = RinCallback(config, seed=seed) if where != "rollout" else None
        if getattr(trainer, "use_vllm", False):
            self._push = VllmPush(trainer, NoisyStream(trainer.model, config, seed=seed, arrives_as=arrives_as))
        elif where != "training" and getattr(trainer, "use_transformers_continuous_batching", False):
            raise NoiseError(
                "continuous batching casts the live weights while it generates; switch it off, or use vLLM"
            )
        elif where != "training":
            NoisePlan(trainer.model, config, seed)  # a wrong document stops here and not in train()
        self._wrap_generation()
        if self._callback is not None:
            trainer.add_callback(self._callback)
        trainer.add_callback(self)

    @property
    def training(self) -> Record | None:
        """The record of the training passes."""
        return self._callback.record if self._callback is not None else None

    @property
    def active(self) -> bool:
        """True while the trainer's own weights carry noise."""
        return (self._live is not None and self._live.active) or (self._callback is not None and self._callback.active)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self.rollouts is None:
            return
        require_noise_ahead(self.config.schedule, state.global_step, state.max_steps)
        require_rates(kwargs.get("optimizer"), self.config)
        self.rollouts = Record()
        self._first = state.global_step
        if self._push is None:
            refuse_sharding("noise in rollouts", "generate with vLLM, where noise goes on the pushed copy")
            self._live = Injector(model, self.config, seed=self._seed, evaluation="allow")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.rollouts is None or self._first >= state.max_steps:
            return
        reached = max(0, state.global_step - 1)
        due = schedule.sigma(self.config.schedule, reached, state.max_steps) > 0
        self.rollouts.verify(f"noise attached to {type(self._trainer).__name__}", due)
        log.info("srdd: rollouts: %s", self.rollouts)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.rollouts is not None and self.rollouts.last is not None and logs is not None and "loss" in logs:
            logs["srdd_rollout_sigma"] = self.rollouts.last.sigma
            if state.log_history:
                state.log_history[-1]["srdd_rollout_sigma"] = self.rollouts.last.sigma

    def _wrap_generation(self) -> None:
        generate = self._trainer._generate
        score = self._trainer._generate_and_score_completions

        @wraps(generate)
        def noisy_generate(*args: Any, **kwargs: Any) -> Any:
            with self._training_paused(), self._rollout():
                return generate(*args, **kwargs)

        @wraps(score)
        def clean_scores(*args: Any, **kwargs: Any) -> Any:
            with self._training_paused() if self.where == "training" else nullcontext():
                return score(*args, **kwargs)

        self._trainer._generate = noisy_generate
        self._trainer._generate_and_score_completions = clean_scores

    @contextmanager
    def _training_paused(self) -> Iterator[None]:
        with self._callback.paused() if self._callback is not None else nullcontext():
            yield

    @contextmanager
    def _rollout(self) -> Iterator[None]:
        state = self._trainer.state
        noisy = self.rollouts is not None and self._trainer.model.training
        if self._push is not None:
            with self._push.wanted(noisy):
                yield
            if noisy and self.rollouts is not None and self._push.last is not None:
                self.rollouts.add(self._push.last)
            return
        if not noisy or self.rollouts is None:
            yield
            return
        if self._live is None:
            raise NoiseError("a rollout began before on_train_begin, so no noise could be added")
        with self._live.applied(state.global_step, state.max_steps) as injection:
            self.rollouts.add(injection)
            yield
