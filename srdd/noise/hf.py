"""`RinCallback`: the noise of rin.yaml in a Hugging Face `Trainer`, on in every forward and backward pass of training.

Noise goes on when an optimizer step begins, stays for all its micro-batches, and comes off right before the optimizer
steps, so that clean weights are updated with the gradients of noisy ones. Step and total are the trainer's own, so a
resumed training continues the schedule.

While noise is on, a state_dict() or a forward pass in evaluation mode takes it off first: what is saved or evaluated
after an interrupt is clean. If that happens inside a training step, the next event of the step is an error.

Not here: rollouts (trl.py) and learning rates (learning_rates.py).

Worked number: 29 steps, 10 stages, 4 micro-batches a step: events of steps 0-2 touch nothing, step 3 applies
sigma 0.05 once, its 4 forward passes see the same noise, and 26 of the 29 steps have noise.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from srdd.documents.rin import RinConfig, load_rin
from srdd.errors import NoiseError
from srdd.noise.injector import Injector
from srdd.noise.learning_rates import require_rates
from srdd.noise.record import Record, require_noise_ahead

log = logging.getLogger(__name__)

# accelerate's names for what keeps weights in pieces, or steps the optimizer inside backward
_SHARDED = {"FSDP", "DEEPSPEED", "MEGATRON_LM"}


class RinCallback(TrainerCallback):  # type: ignore[misc]
    """`Trainer(..., callbacks=[RinCallback("rin.yaml")])`. Errors stop the training with a NoiseError.

    A trainer that calls no event at all cannot be noticed from inside: use the callback as a context
    (`with RinCallback("rin.yaml") as noise: ...`) or call `verify()` afterwards. Leaving the context also takes the
    noise off after an exception. `record` tells what was done.
    """

    def __init__(self, config: RinConfig | str | Path, *, seed: int = 0) -> None:
        self.config = load_rin(config)
        self.seed = seed
        self.record = Record()
        self._injector: Injector | None = None
        self._in_step = False  # between on_step_begin and on_pre_optimizer_step
        self._cut_short = ""  # why noise was taken off inside a step
        self._hooks: list[Any] = []
        self._first = 0  # the step at which this training began

    def __enter__(self) -> RinCallback:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self.restore()
        finally:
            self._unguard()  # an interrupted training has no on_train_end
        if kind is None:
            self.verify()

    @property
    def active(self) -> bool:
        """True while the model's weights carry noise."""
        return self._injector is not None and self._injector.active

    def restore(self) -> None:
        """Take the noise off if it is on, e.g. after an interrupt. Raises NoiseError as Injector.restore does."""
        self._in_step = False
        if self._injector is not None and self._injector.active:
            self._injector.restore()

    def verify(self) -> None:
        """Raise NoiseError when no training was seen, or noise was due and none arrived."""
        self.record.verify("RinCallback")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Clean weights inside the block, and the same noise again after it."""
        was = self.record.last if self.active else None
        if was is None or self._injector is None:
            yield
            return
        self._injector.restore()
        try:
            yield
        except BaseException:
            self._cut_short = "an exception was raised"  # clean weights stay, and a trainer that goes on is stopped
            raise
        self._injector.apply(was.step, was.total_steps)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: nn.Module, optimizer: Any = None, **kwargs: Any
    ) -> None:
        self.restore()  # what an interrupted run left behind
        refuse_sharding("RinCallback", "train with DDP or on one device")
        require_noise_ahead(self.config.schedule, state.global_step, state.max_steps)
        require_rates(optimizer, self.config)
        self.record, self._cut_short, self._first = Record(), "", state.global_step
        # Trainers call model.train() only after on_step_begin; evaluation is guarded by the events and hooks below.
        self._injector = Injector(model, self.config, seed=self.seed, evaluation="allow")
        self._guard(model)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._injector is None:
            raise NoiseError("RinCallback: a step began before on_train_begin; add the callback before train()")
        self._clean("the next step began")
        self._still_whole(state)
        injection = self._injector.apply(state.global_step, state.max_steps)
        self._in_step = True
        self.record.add(injection)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._still_whole(state)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._in_step:
            raise NoiseError(
                f"RinCallback: step {state.global_step} was not begun by on_step_begin, so it had no noise"
            )
        self._still_whole(state)
        self.restore()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clean("the optimizer stepped")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clean("the step ended")

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.restore()  # a step that the end of the data cut off has no optimizer step
        self._cut_short = ""

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clean("an evaluation ran")

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clean("an evaluation ran")

    def on_predict(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clean("a prediction ran")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clean("a checkpoint was written")

    def on_push_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clean("a push began")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self.record.last is None:
            return
        facts: dict[str, float] = {}
        if logs is not None and "loss" in logs:
            facts["srdd_sigma"] = self.record.last.sigma
        elif logs is not None and "train_runtime" in logs:
            facts = {"srdd_noisy_steps": self.record.noisy}
            facts |= {"srdd_std_ratio": self.record.std_ratio} if self.record.noisy else {}
        if facts and logs is not None:
            logs.update(facts)
            if state.log_history:  # written before this event
                state.log_history[-1].update(facts)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._unguard()
        self._clean("the training ended")
        if self._first < state.max_steps:  # a finished training that is resumed has no step left
            self.verify()
        log.info("srdd: %s", self.record)

    def _clean(self, when: str) -> None:
        """Raise NoiseError when noise is still on; it is off afterwards."""
        if self.active:
            self.restore()
            raise NoiseError(
                f"RinCallback: noise was still on when {when}; the trainer never called on_pre_optimizer_step (the "
                "weights are clean now)"
            )

    def _still_whole(self, state: Any) -> None:
        if self._cut_short:
            why, self._cut_short = self._cut_short, ""
            raise NoiseError(
                f"RinCallback: {why} inside step {state.global_step}, so its noise was taken off and its gradients are "
                "of two kinds of weights; save and evaluate between steps"
            )

    def _guard(self, model: nn.Module) -> None:
        def take_off(why: str) -> None:
            if self.active and self._injector is not None:
                log.warning("srdd: %s while noise was on; it was taken off first", why)
                self._injector.restore()
                self._cut_short = why

        def before_saving(module: nn.Module, *rest: Any) -> None:
            take_off("state_dict() was called")

        def before_forward(module: nn.Module, *rest: Any) -> None:
            if not module.training:
                take_off("the model ran in evaluation mode")

        self._unguard()
        self._hooks = [
            model.register_state_dict_pre_hook(before_saving),  # type: ignore[no-untyped-call]
            model.register_forward_pre_hook(before_forward, prepend=True),
        ]

    def _unguard(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


def refuse_sharding(what: str, instead: str) -> None:
    """Raise NoiseError when the live model's weights are in pieces, or stepped inside backward."""
    try:
        from accelerate.state import AcceleratorState, is_initialized
    except ImportError:
        return  # transformers has no Trainer without accelerate
    kind = AcceleratorState().distributed_type.value if is_initialized() else ""
    if kind in _SHARDED:
        raise NoiseError(
            f"{what}: under {kind} the weights of the live model are in pieces or stepped inside backward, so noise "
            f"cannot be put on them and taken off; {instead}"
        )
