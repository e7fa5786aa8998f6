"""Learning rates per layer: which parameters get which, ratios over a whole schedule, and how they cannot get lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_rin
from tiny_hf_trainer import make_trainer
from tiny_training import tiny_llama
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau
from transformers import Trainer, TrainerCallback

from srdd.errors import NoiseError
from srdd.noise import RinCallback, parameter_groups, set_layer_rates
from srdd.noise.learning_rates import RATIO, check_rates, split_optimizer

SPARSE = {"schedule": {"kind": "constant", "sigma_start": 0.05, "sigma_end": 0.05}}
RIN = make_rin({0: 1.0, 1: 1.0}, lr_multipliers={0: 1.2, 1: 0.5}, **SPARSE)


def rates(model: nn.Module, optimizer: Any) -> dict[str, float]:
    """The rate of every parameter by name."""
    of = {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
    return {name: of[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def expected(name: str, lr: float) -> float:
    return lr * (1.2 if "layers.0." in name else 0.5 if "layers.1." in name else 1.0)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adafactor])
def test_every_parameter_gets_its_layers_rate(make: Any) -> None:
    model = tiny_llama()
    model.lm_head.weight.requires_grad_(False)
    groups = parameter_groups(model, RIN, lr=1e-3, weight_decay=0.1)
    optimizer = make(groups)
    found = rates(model, optimizer)
    assert "lm_head.weight" not in found
    for name, rate in found.items():
        assert rate == pytest.approx(expected(name, 1e-3), rel=1e-12), name
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert decay[id(p)] == (0.0 if "norm" in name else 0.1), name
    assert sum(len(group["params"]) for group in groups) == len(found), "each parameter once"


def test_without_weight_decay_there_is_one_group_a_multiplier() -> None:
    groups = parameter_groups(tiny_llama(), RIN, lr=1.0)
    assert [group["lr"] for group in groups] == [0.5, 1.0, 1.2]
    assert all("weight_decay" not in group for group in groups)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: LambdaLR(optimizer, lambda step: 1 / (1 + step)),
        lambda optimizer: ReduceLROnPlateau(optimizer, patience=0),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20),
    ],
)
def test_schedulers_keep_the_ratios(schedule: Any) -> None:
    model = tiny_llama()
    optimizer = torch.optim.SGD(parameter_groups(model, RIN, lr=0.1))
    scheduler = schedule(optimizer)
    seen = set()
    for _ in range(10):
        optimizer.step()
        scheduler.step(1.0) if isinstance(scheduler, ReduceLROnPlateau) else scheduler.step()
        check_rates(optimizer)
        found = rates(model, optimizer)
        for name, rate in found.items():
            assert rate == pytest.approx(expected(name, found["model.norm.weight"]), rel=1e-9, abs=1e-7)
        seen.add(found["model.norm.weight"])
    assert len(seen) > 3


def test_a_scheduler_that_sets_rates_is_noticed() -> None:
    optimizer = torch.optim.SGD(parameter_groups(tiny_llama(), RIN, lr=0.1), momentum=0.9)
    OneCycleLR(optimizer, max_lr=0.2, total_steps=10)
    with pytest.raises(NoiseError, match="a scheduler sets the rates"):
        check_rates(optimizer)


class Rates(TrainerCallback):
    """The optimizer's rates at every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        self.steps.append(rates(model, optimizer))


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
def test_a_trainer_trains_with_the_rates_and_with_noise(tmp_path: Path, optim: str) -> None:
    seen = Rates()
    trainer = make_trainer(tmp_path, [seen, RinCallback(RIN)], max_steps=5, optim=optim, weight_decay=0.1)
    set_layer_rates(trainer, RIN)
    trainer.train()
    base = [step["model.norm.weight"] for step in seen.steps]
    assert base == pytest.approx([0.01 * (1 - step / 5) for step in range(5)])
    for step, lr in zip(seen.steps, base, strict=True):
        for name, rate in step.items():
            assert rate == pytest.approx(expected(name, lr), rel=1e-9)
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.0, 0.1}


def test_the_rates_are_what_moves_the_weights(tmp_path: Path) -> None:
    """With SGD and one step, a layer moves by its multiplier times what it moves without."""
    settings = {"max_steps": 1, "optim": "sgd", "lr_scheduler_type": "constant"}
    start = {name: p.detach().clone() for name, p in tiny_llama().named_parameters()}
    plain, rated = tiny_llama(), tiny_llama()
    make_trainer(tmp_path, [], plain, **settings).train()
    trainer = make_trainer(tmp_path, [], rated, **settings)
    set_layer_rates(trainer, RIN)
    trainer.train()
    for (name, a), b in zip(plain.named_parameters(), rated.parameters(), strict=True):
        torch.testing.assert_close(b - start[name], (a - start[name]) * expected(name, 1.0), rtol=1e-3, atol=1e-6)


def test_resuming_keeps_the_rates(tmp_path: Path) -> None:
    whole, rest = (make_trainer(tmp_path, [], tiny_llama(), save_strategy="steps", save_steps=5) for _ in range(2))
    for trainer in (whole, rest):
        set_layer_rates(trainer, RIN)
    whole.train()
    rest.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_optimizer_of_ones_own(tmp_path: Path) -> None:
    model = tiny_llama()
    trainer = make_trainer(tmp_path, [seen := Rates()], model, max_steps=2)
    trainer.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    set_layer_rates(trainer, RIN)
    trainer.train()
    assert seen.steps[0]["model.layers.0.mlp.up_proj.weight"] == pytest.approx(0.12)


def test_rates_that_would_be_lost_stop_the_training(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, [RinCallback(RIN)])
    with pytest.raises(NoiseError, match=r"would be lost; call srdd\.noise\.set_layer_rates"):
        trainer.train()

    class Own(Trainer):  # type: ignore[misc]
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            self.lr_scheduler = OneCycleLR(self.optimizer, max_lr=0.2, total_steps=num_training_steps)
            return self.lr_scheduler

    trainer = make_trainer(tmp_path, [])
    trainer.__class__ = Own
    set_layer_rates(trainer, RIN)
    with pytest.raises(NoiseError, match="a scheduler sets the rates"):
        trainer.train()


def test_what_cannot_be_split() -> None:
    model = tiny_llama()
    for config in (make_rin({0: 1.0, 1: 1.0}), make_rin({0: 1.0, 1: 1.0}, lr_multipliers={0: 1.0, 1: 1.0})):
        with pytest.raises(NoiseError, match="no lr_multipliers other than 1"):
            parameter_groups(model, config, lr=0.1)
    three = make_rin({0: 1.0, 1: 1.0, 2: 1.0}, lr_multipliers={0: 1.0, 1: 1.0, 2: 2.0})
    with pytest.raises(NoiseError, match=r"has 2, so the multipliers of layer\(s\) \[2\]"):
        parameter_groups(model, three, lr=0.1)
    other = torch.optim.SGD(tiny_llama().parameters(), lr=0.1)
    with pytest.raises(NoiseError, match="is not one of LlamaForCausalLM"):
        split_optimizer(other, model, RIN)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    split_optimizer(optimizer, model, RIN)
    assert {group[RATIO] for group in optimizer.param_groups} == {0.5, 1.0, 1.2}
    with pytest.raises(NoiseError, match="already split"):
        split_optimizer(optimizer, model, RIN)
    late = torch.optim.SGD(model.parameters(), lr=0.1)
    LambdaLR(late, lambda step: 1.0)
    with pytest.raises(NoiseError, match="a scheduler already stands"):
        split_optimizer(late, model, RIN)
