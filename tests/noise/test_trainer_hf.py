"""RinCallback in real runs of transformers' Trainer, watched from inside the forward pass."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from builders import make_rin
from safetensors.torch import load_file
from tiny_hf_trainer import make_trainer
from tiny_training import Observer, norms, rows, same, tiny_llama
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from srdd.documents import schedule
from srdd.documents.rin import RinConfig
from srdd.errors import NoiseError, ReportError
from srdd.noise import RinCallback

MULTIPLIERS = {0: 1.0, 1: 1.6}
SCHEDULE = {"sigma_start": 0.05, "sigma_end": 0.001, "num_stages": 10}
CONSTANT = {"schedule": {"kind": "constant", "sigma_start": 0.05, "sigma_end": 0.05}}


@pytest.fixture(scope="module")
def rin_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rin") / "rin.yaml"
    config = make_rin(MULTIPLIERS, outside_layers=0.5)
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def test_a_training_gets_the_noise_of_the_document(tmp_path: Path, rin_yaml: Path) -> None:
    seen, noise = Observer(), RinCallback(str(rin_yaml), seed=11)
    settings = {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 5}
    trainer = make_trainer(tmp_path, [seen, noise], gradient_accumulation_steps=2, **settings)
    trainer.train()

    plan = make_rin(MULTIPLIERS).schedule
    factor = {"layers.0": 1.0, "layers.1": 1.6, "model.norm": 0.5}
    training = list(seen.of(training=True))
    assert [f.step for f in training] == [step for step in range(10) for _ in range(2)]
    for first, second in zip(training[::2], training[1::2], strict=True):
        assert same(first.seen, second.seen), "micro-batches of one step see the same noise"
        sigma = schedule.sigma(plan, first.step, 10)
        assert first.noisy is (sigma > 0)
        for name, draw in first.noise.items():
            expected = sigma * next(value for part, value in factor.items() if part in name)
            assert float(draw.double().square().mean().sqrt()) == pytest.approx(expected, rel=4 / math.sqrt(2 * 512))
    assert not same(training[4].noise, training[6].noise)

    evaluations = list(seen.of(training=False))
    assert {f.step for f in evaluations} == {4, 8, 10}
    assert not any(f.noisy for f in evaluations), "evaluation runs on clean weights"
    for step in (5, 10):
        saved = load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors")
        assert same({name: saved[name] for name in seen.after[step]}, seen.after[step]), "checkpoints are clean"
    assert same(norms(trainer.model), seen.after[10])

    assert (noise.record.noisy, noise.record.silent) == (9, 1)
    assert noise.record.std_ratio == pytest.approx(1, abs=0.03)
    logged = {row["step"]: row["srdd_sigma"] for row in trainer.state.log_history if "loss" in row}
    assert logged == {step + 1: schedule.sigma(plan, step, 10) for step in range(10)}
    final = trainer.state.log_history[-1]
    assert (final["srdd_noisy_steps"], final["srdd_std_ratio"]) == (9, noise.record.std_ratio)


def test_gradients_are_those_of_noisy_weights_and_the_step_is_on_clean_ones(tmp_path: Path) -> None:
    """The trainer against a loop written out: SGD without clipping."""
    config = make_rin(MULTIPLIERS, **CONSTANT)
    model, other = tiny_llama(), tiny_llama()
    order: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda m, a, k: order.append(k["input_ids"].clone()), with_kwargs=True)
    settings = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "max_steps": 4}
    make_trainer(tmp_path, [RinCallback(config, seed=2)], model, **settings).train()

    from srdd.noise import Injector

    injector = Injector(other.train(), config, seed=2)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.01)
    for step, tokens in enumerate(order):
        with injector.applied(step, 4):
            other(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_resumed_training_is_the_training_that_was_not_interrupted(tmp_path: Path, rin_yaml: Path) -> None:
    whole = make_trainer(tmp_path / "a", [RinCallback(rin_yaml, seed=1)], save_strategy="steps", save_steps=5)
    whole.train()
    seen, noise = Observer(), RinCallback(rin_yaml, seed=1)
    rest = make_trainer(tmp_path / "b", [seen, noise], model=tiny_llama(seed=9))
    rest.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-5"))
    assert [f.step for f in seen.of(training=True)] == [5, 6, 7, 8, 9]
    assert (noise.record.noisy, noise.record.silent) == (5, 0)
    assert noise.record.last is not None
    assert noise.record.last.sigma == pytest.approx(0.0005)
    for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(a, b)
    done = make_trainer(tmp_path / "c", [RinCallback(rin_yaml)], save_strategy="steps", save_steps=10)
    done.train()
    done.train(resume_from_checkpoint=str(tmp_path / "c" / "checkpoint-10"))  # nothing left is no error


def test_training_twice_and_in_reduced_precision(tmp_path: Path) -> None:
    seen, noise = Observer(), RinCallback(make_rin(MULTIPLIERS, **CONSTANT))
    trainer = make_trainer(tmp_path, [seen, noise], max_steps=2, bf16=True)
    trainer.train()
    first = list(seen.of(training=True))
    assert [f.noisy for f in first] == [True, True]
    trainer.train()
    assert noise.record.noisy == 2
    assert not noise.active


class Interrupt(TrainerCallback):
    """Stops the training inside step 3, after the first of two micro-batches."""

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


def test_after_an_interrupt_what_is_saved_and_evaluated_is_clean(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen, noise = Observer(), RinCallback(make_rin(MULTIPLIERS, **CONSTANT))
    trainer = make_trainer(tmp_path, [seen, noise, Interrupt()], gradient_accumulation_steps=2)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert noise.active
    with caplog.at_level(logging.WARNING, "srdd"):
        trainer.save_model(str(tmp_path / "saved"))
    assert "state_dict() was called while noise was on" in caplog.text
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert same({name: saved[name] for name in seen.after[3]}, seen.after[3])
    assert not noise.active

    trainer.callback_handler.callbacks = [c for c in trainer.callback_handler.callbacks if not isinstance(c, Interrupt)]
    trainer.train()
    assert noise.record.noisy == 10

    trainer.add_callback(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.evaluate()
    assert not seen.forwards[-1].noisy


def test_the_context_takes_noise_off_after_an_exception(tmp_path: Path) -> None:
    seen = Observer()
    with pytest.raises(KeyboardInterrupt), RinCallback(make_rin(MULTIPLIERS, **CONSTANT)) as noise:
        make_trainer(tmp_path, [seen, noise, Interrupt()], model := tiny_llama(), gradient_accumulation_steps=2).train()
    assert not noise.active
    assert not model._state_dict_pre_hooks, "its guards are gone as well"
    assert same(norms(model), seen.after[3])


class Saver(TrainerCallback):
    """A callback that saves in the middle of a step."""

    def on_substep_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        model.state_dict()


@pytest.mark.parametrize("order", [0, 1])
def test_saving_inside_a_step_stops_the_training(tmp_path: Path, order: int) -> None:
    callbacks: list[TrainerCallback] = [RinCallback(make_rin(MULTIPLIERS, **CONSTANT))]
    callbacks.insert(order, Saver())
    trainer = make_trainer(tmp_path, callbacks, gradient_accumulation_steps=2)
    with pytest.raises(NoiseError, match=r"state_dict\(\) was called inside step 0, so its noise was taken off"):
        trainer.train()


class Short(IterableDataset):
    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        yield from rows(6)


def test_data_that_end_inside_a_step(tmp_path: Path) -> None:
    """Three batches of two micro-batches a step: the second step of each epoch is cut off and begun again."""
    seen, noise = Observer(), RinCallback(make_rin(MULTIPLIERS, **CONSTANT))
    trainer = make_trainer(
        tmp_path, [seen, noise], data=Short(), max_steps=3, gradient_accumulation_steps=2, eval_strategy="epoch"
    )
    trainer.train()
    assert not noise.active
    assert not any(f.noisy for f in seen.of(training=False))
    assert all(f.noisy for f in seen.of(training=True))


@pytest.mark.parametrize(
    ("config", "model", "words"),
    [
        (make_rin({0: 1.0, 1: 1.0, 2: 1.0}), {}, r"LlamaForCausalLM has 2, so the multipliers of layer\(s\) \[2\]"),
        (make_rin({0: 1.0}), {}, r"layer\(s\) \[1\] have no multiplier"),
        (make_rin(MULTIPLIERS, target_classes=["BatchNorm2d"]), {}, "no module of class BatchNorm2d gets noise"),
        (make_rin(MULTIPLIERS, exclude=["*q_norm*"]), {}, "matches no module"),
        (
            make_rin(MULTIPLIERS, schedule={"kind": "constant", "sigma_start": 1e39, "sigma_end": 1e39}),
            {},
            "its noise overflows at step 0",
        ),
        (make_rin(MULTIPLIERS, schedule={**SCHEDULE, "warmup_share": 0.95}), {}, "no noise in steps 0 to 9 of 10"),
        (make_rin(MULTIPLIERS, lr_multipliers={0: 1.0, 1: 1.2}), {}, "lr_multipliers and the optimizer's parameter"),
        (make_rin(MULTIPLIERS), {"dtype": torch.bfloat16}, None),
    ],
)
def test_what_would_be_lost_stops_the_training(
    tmp_path: Path, config: RinConfig, model: dict[str, Any], words: str | None
) -> None:
    given = tiny_llama()
    trainer = make_trainer(tmp_path, [RinCallback(config)], given.to(**model) if model else given)
    before = norms(given)
    if words is None:
        with pytest.warns(UserWarning, match="rounding removes it"):
            trainer.train()
        return
    with pytest.raises(NoiseError, match=words):
        trainer.train()
    assert same(before, norms(given))


def test_a_document_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"no rin document at .*rin\.yaml; write one with"):
        RinCallback(tmp_path / "rin.yaml")


def state(step: int = 0, total: int = 10) -> Any:
    return SimpleNamespace(global_step=step, max_steps=total, log_history=[])


def begun(total: int = 10) -> tuple[RinCallback, Any]:
    callback, model = RinCallback(make_rin(MULTIPLIERS, **CONSTANT)), tiny_llama()
    callback.on_train_begin(None, state(total=total), None, model=model)
    return callback, model


def test_no_total_number_of_steps() -> None:
    with pytest.raises(NoiseError, match="total_steps 0: expected 1 or more"):
        begun(0)


def test_a_trainer_that_never_begins_a_step() -> None:
    callback, _ = begun()
    with pytest.raises(NoiseError, match="RinCallback saw no step of the training"):
        callback.on_train_end(None, state(10), None)
    unused = RinCallback(make_rin(MULTIPLIERS))
    with pytest.raises(NoiseError, match="is it really attached"):
        unused.on_train_end(None, state(10), None)
    with pytest.raises(NoiseError, match="is it really attached"), RinCallback(make_rin(MULTIPLIERS)):
        pass


def drive(callback: RinCallback, model: Any, *events: str) -> None:
    for event in events:
        getattr(callback, event)(None, state(), None, model=model)


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (["on_step_begin", "on_optimizer_step"], "still on when the optimizer stepped"),
        (["on_step_begin", "on_step_end"], "still on when the step ended"),
        (["on_step_begin", "on_step_begin"], "still on when the next step began"),
        (["on_step_begin", "on_save"], "still on when a checkpoint was written"),
        (["on_step_begin", "on_evaluate"], "still on when an evaluation ran"),
        (["on_step_begin", "on_train_end"], "still on when the training ended"),
        (["on_pre_optimizer_step"], "was not begun by on_step_begin"),
    ],
)
def test_trainers_that_leave_events_out(events: list[str], words: str) -> None:
    callback, model = begun()
    before = norms(model)
    with pytest.raises(NoiseError, match=words):
        drive(callback, model, *events)
    assert same(before, norms(model))
    fresh = RinCallback(make_rin(MULTIPLIERS))
    with pytest.raises(NoiseError, match="before on_train_begin"):
        drive(fresh, model, "on_step_begin")


@pytest.mark.parametrize("through_data", [False, True])
def test_an_optimizer_that_steps_inside_backward(tmp_path: Path, through_data: bool) -> None:
    """As LOMO and DeepSpeed do: the step would be on noisy weights. Writes through .data move no version counter."""
    model = tiny_llama()

    def step(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        with torch.no_grad():
            (parameter.data if through_data else parameter).add_(parameter.grad, alpha=-0.01)

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    trainer = make_trainer(tmp_path, [RinCallback(make_rin(MULTIPLIERS, **CONSTANT))], model)
    with pytest.raises(NoiseError, match="changed while noise was on"):
        trainer.train()


def test_pausing() -> None:
    callback, model = begun()
    clean = norms(model)
    drive(callback, model, "on_step_begin")
    noisy = norms(model)
    with callback.paused():
        assert same(norms(model), clean)
    assert same(norms(model), noisy)
    with pytest.raises(ZeroDivisionError), callback.paused():
        raise ZeroDivisionError
    assert same(norms(model), clean)
    with pytest.raises(NoiseError, match="an exception was raised inside step 0, so its noise was taken off"):
        drive(callback, model, "on_pre_optimizer_step")
    callback.restore()
    with callback.paused():
        assert same(norms(model), clean)
    assert same(norms(model), clean)


def test_sharded_models_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    trainer = make_trainer(tmp_path, [RinCallback(make_rin(MULTIPLIERS))])
    monkeypatch.setitem(PartialState._shared_state, "distributed_type", DistributedType.FSDP)
    with pytest.raises(NoiseError, match="under FSDP the weights of the live model are in pieces"):
        trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)
