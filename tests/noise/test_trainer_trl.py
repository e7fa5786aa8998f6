"""Noise in real runs of TRL's GRPOTrainer on a CPU; vLLM is a stand-in behind TRL's own code that pushes weights."""

from __future__ import annotations

import contextlib
import copy
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
from tiny_grpo_trainer import STEPS, make_trainer
from tiny_training import Observer, norms, same, tiny_llama
from trl.generation.vllm_generation import VLLMGeneration

from srdd.documents import schedule
from srdd.errors import NoiseError, NoiseWarning, SettingError
from srdd.noise import attach

# TRL 1.16 calls what transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")

MULTIPLIERS = {0: 1.0, 1: 1.6}
CONFIG = make_rin(MULTIPLIERS, schedule={"sigma_start": 0.05, "sigma_end": 0.01, "num_stages": 5})


@pytest.mark.parametrize(
    ("where", "noisy_kinds"),
    [("rollout", {"rollout"}), ("training", {"loss"}), ("both", {"rollout", "score", "loss"})],
)
def test_noise_is_where_it_was_asked_for(tmp_path: Path, where: Any, noisy_kinds: set[str]) -> None:
    path, seen = tmp_path / "rin.yaml", Observer()
    path.write_text(yaml.safe_dump(CONFIG.model_dump(mode="json")))
    trainer = make_trainer(tmp_path, seen, eval_strategy="steps", eval_steps=3, save_strategy="steps", save_steps=3)
    noise = attach(trainer, path, where=where, seed=4)
    trainer.train()

    kinds = {"rollout": {0, 2, 4}, "score": {0, 2, 4}, "loss": set(range(STEPS))}
    for kind, steps in kinds.items():
        forwards = list(seen.of(training=True, kind=kind))
        assert {f.step for f in forwards} == steps
        for forward in forwards:
            sigma = schedule.sigma(CONFIG.schedule, forward.step, STEPS) if kind in noisy_kinds else 0.0
            assert forward.noisy is (sigma > 0), (kind, forward.step)
            for name, draw in forward.noise.items():
                expected = sigma * (1.6 if "layers.1" in name else 1.0)
                measured = float(draw.double().square().mean().sqrt())
                assert measured == pytest.approx(expected, rel=4 / math.sqrt(2 * 512))
    if where == "both":
        at = {kind: next(f for f in seen.of(training=True, kind=kind) if f.step == 4) for kind in kinds}
        assert same(at["rollout"].seen, at["score"].seen)
        assert same(at["rollout"].seen, at["loss"].seen)

    evaluation = list(seen.of(training=False))
    assert {f.kind for f in evaluation} == {"rollout", "score"}
    assert not any(f.noisy for f in evaluation)
    for step in (3, 6):
        saved = load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors")
        assert same({name: saved[name] for name in seen.after[step]}, seen.after[step])
    assert not noise.active
    assert same(norms(trainer.model), seen.after[STEPS])
    for record, applications in ((noise.rollouts, (2, 1)), (noise.training, (4, 2))):
        if record is not None:
            assert (record.noisy, record.silent) == applications
            assert record.std_ratio == pytest.approx(1, abs=0.05)
    logged = [row.get("srdd_rollout_sigma") for row in trainer.state.log_history if "loss" in row]
    sigmas = [schedule.sigma(CONFIG.schedule, step, STEPS) for step in (0, 0, 2, 2, 4, 4)]
    assert logged == ([None] * STEPS if where == "training" else sigmas)


def test_a_resumed_training_continues_the_schedule(tmp_path: Path) -> None:
    seen = Observer()
    whole = make_trainer(tmp_path / "a", seen, save_strategy="steps", save_steps=2)
    attach(whole, CONFIG, seed=4)
    whole.train()
    again = Observer()
    rest = make_trainer(tmp_path / "b", again, model=tiny_llama(seed=8))
    noise = attach(rest, CONFIG, seed=4)
    rest.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    rollouts = {f.step: f for f in again.of(training=True, kind="rollout")}
    before = {f.step: f for f in seen.of(training=True, kind="rollout")}
    assert sorted(rollouts) == [2, 4]
    for step, forward in rollouts.items():
        for name, draw in forward.noise.items():
            torch.testing.assert_close(draw, before[step].noise[name], rtol=0, atol=1e-6)
    assert noise.rollouts is not None
    assert noise.rollouts.noisy == 2


def test_an_exception_inside_a_rollout_leaves_clean_weights(tmp_path: Path) -> None:
    seen, model = Observer(), tiny_llama()
    trainer = make_trainer(tmp_path, seen, model)
    noise = attach(
        trainer, make_rin(MULTIPLIERS, schedule={"kind": "constant", "sigma_start": 0.05, "sigma_end": 0.05})
    )
    generate, before = model.generate, norms(model)

    def fail(*args: Any, **kwargs: Any) -> Any:
        generate(*args, **kwargs)
        assert not same(norms(model), before)
        raise ZeroDivisionError

    model.generate = fail
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert same(norms(model), before)
    assert not noise.active


class Engine(VLLMGeneration):  # type: ignore[misc]
    """TRL's own sync_weights and _iter_named_params before a copy of the model that generates in vLLM's place."""

    def __init__(self, trainer: Any) -> None:
        self.model, self.accelerator = trainer.model, trainer.accelerator
        self.mode, self.enable_sleep_mode = "colocate", False
        gather = contextlib.nullcontext
        self._dist = SimpleNamespace(is_fsdp=False, gather_params=lambda parameters: gather())
        self.copy = copy.deepcopy(trainer.model).eval()
        self.pushes: list[tuple[int, dict[str, torch.Tensor]]] = []  # step, difference to the trainer's weights
        self.used: list[tuple[int, bool, bool]] = []  # step, training, generated with noisy weights
        self._trainer = trainer
        runner = SimpleNamespace(model_runner=SimpleNamespace(model=SimpleNamespace(load_weights=self.load)))
        executor = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=runner))
        self.llm = SimpleNamespace(llm_engine=executor, reset_prefix_cache=self.pushed)

    def load(self, pairs: list[tuple[str, torch.Tensor]]) -> None:
        for name, tensor in pairs:
            self.copy.get_parameter(name).data.copy_(tensor)

    def pushed(self) -> None:
        clean, held = norms(self.model), norms(self.copy)
        self.pushes.append((self._trainer.state.global_step, {name: held[name] - clean[name] for name in clean}))

    def generate(self, prompts: Any, images: Any, num_generations: int, profiler: Any = None) -> Any:
        noisy = not same(norms(self.copy), norms(self._trainer.model))
        self.used.append((self._trainer.state.global_step, self._trainer.model.training, noisy))
        tokens = [[5, 6, 7, 1] if i % 2 else [8, 9, 1] for i in range(len(prompts))]
        return prompts, tokens, [[[-1.0]] * len(row) for row in tokens], None


class OlderEngine(Engine):
    """TRL 1.8 pushed every tensor by one call and had no _iter_named_params."""

    _iter_named_params = None

    def _push_param_to_vllm(self, name: str, param: torch.Tensor) -> None:
        self.load([(name, param)])

    def sync_weights(self) -> None:
        for name, param in self.model.named_parameters():
            self._push_param_to_vllm(name, param.data)
        self.pushed()


def with_engine(folder: Path, kind: type[Engine] = Engine, **settings: Any) -> tuple[Any, Engine]:
    trainer = make_trainer(folder, Observer(), **settings)
    trainer.use_vllm, trainer._last_loaded_step = True, -1
    trainer.vllm_generation = engine = kind(trainer)
    return trainer, engine


@pytest.mark.parametrize("kind", [Engine, OlderEngine])
@pytest.mark.parametrize("where", ["rollout", "both", "training"])
def test_vllm_is_pushed_noisy_copies(tmp_path: Path, where: Any, kind: type[Engine]) -> None:
    trainer, engine = with_engine(tmp_path, kind, eval_strategy="steps", eval_steps=2)
    seen = next(c for c in trainer.callback_handler.callbacks if isinstance(c, Observer))
    noise = attach(trainer, CONFIG, where=where, seed=4, arrives_as=torch.float32)
    trainer.train()
    wanted = where != "training"
    # step 6: the evaluation at the end; where both, the live weights carry the same noise while vLLM generates later
    training = [(step, noisy) for step, mode, noisy in engine.used if mode]
    assert [step for step, _ in training] == [0, 2, 4]
    assert [noisy for _, noisy in training] == [False, wanted, wanted]
    assert not any(noisy for _, mode, noisy in engine.used if not mode), "evaluation generates with clean weights"
    sigma = schedule.sigma(CONFIG.schedule, 4, STEPS)
    pushed = [difference for step, difference in engine.pushes if step == 4]
    noisy = [d for d in pushed if any(value.any() for value in d.values())]
    assert len(noisy) == int(wanted)
    for difference in noisy:
        for name, draw in difference.items():
            expected = sigma * (1.6 if "layers.1" in name else 1.0)
            assert float(draw.double().square().mean().sqrt()) == pytest.approx(expected, rel=4 / math.sqrt(2 * 512))
    if noise.rollouts is not None:
        assert (noise.rollouts.noisy, noise.rollouts.silent) == (2, 1)
    assert all(f.noisy is (where != "rollout" and f.step >= 2) for f in seen.of(training=True, kind="loss"))


def test_a_push_that_holds_no_target_stops_the_training(tmp_path: Path) -> None:
    class Adapters(Engine):
        def _iter_named_params(self) -> Iterator[tuple[str, torch.Tensor]]:
            yield from ((n, p.data) for n, p in self.model.named_parameters() if "proj" in n)

    trainer, _ = with_engine(tmp_path, Adapters)
    attach(trainer, CONFIG)
    with pytest.raises(NoiseError, match="5 of 5 weights that should carry noise were not in the stream"):
        trainer.train()


def test_a_trainer_that_pushes_some_other_way(tmp_path: Path) -> None:
    trainer, engine = with_engine(tmp_path)
    attach(trainer, CONFIG)
    engine.sync_weights = lambda: None
    with pytest.raises(NoiseError, match="weights that were never pushed where noisy ones were wanted"):
        trainer.train()
    trainer, engine = with_engine(tmp_path)
    trainer.vllm_generation = SimpleNamespace(generate=engine.generate)
    with pytest.raises(NoiseError, match="lacks sync_weights, or both"):
        attach(trainer, CONFIG)


def test_noise_that_vllms_type_rounds_away(tmp_path: Path) -> None:
    trainer, _ = with_engine(tmp_path)
    attach(trainer, make_rin(MULTIPLIERS, schedule={"kind": "constant", "sigma_start": 1e-6, "sigma_end": 1e-6}))
    with pytest.raises(NoiseError, match="of the bfloat16 weights: rounding removes it, and this is"):
        trainer.train()


def test_rounding_in_vllms_type_is_told_at_the_first_push_and_stops_nothing(tmp_path: Path) -> None:
    trainer, engine = with_engine(tmp_path)
    noise = attach(trainer, make_rin(MULTIPLIERS, schedule={"sigma_start": 0.05, "sigma_end": 1e-6, "num_stages": 6}))
    with pytest.warns(NoiseWarning, match="of the bfloat16 weights: rounding removes it"):
        trainer.train()
    assert engine.used
    assert noise.rollouts is not None
    assert noise.rollouts.noisy == 2


def test_rollouts_in_silent_steps_only_are_an_error(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, Observer(), max_steps=4, steps_per_generation=4)
    attach(trainer, CONFIG)
    with pytest.raises(NoiseError, match="all 1 applications fell on silent ones; generate more often"):
        trainer.train()


def test_what_cannot_be_attached(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, Observer())
    with pytest.raises(SettingError, match="where='rollouts': expected rollout, training or both"):
        attach(trainer, CONFIG, where="rollouts")  # type: ignore[arg-type]
    with pytest.raises(NoiseError, match=r"multipliers of layer\(s\) \[2\] would be lost"):
        attach(trainer, make_rin({0: 1.0, 1: 1.0, 2: 1.0}))
    with pytest.raises(NoiseError, match="no module of class BatchNorm2d"):
        attach(trainer, make_rin(MULTIPLIERS, target_classes=["BatchNorm2d"]))
    with pytest.raises(NoiseError, match=r"SimpleNamespace has no _generate\(\)"):
        attach(SimpleNamespace(), CONFIG)
    attach(trainer, CONFIG)
    with pytest.raises(NoiseError, match="already attached"):
        attach(trainer, CONFIG)
    trainer = make_trainer(tmp_path, Observer())
    trainer.use_transformers_continuous_batching = True
    with pytest.raises(NoiseError, match="continuous batching"):
        attach(trainer, CONFIG)


def test_rollouts_that_never_come_are_an_error(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, Observer())
    attach(trainer, CONFIG)
    trainer._prepare_inputs = lambda batch: trainer._ready
    tokens = torch.randint(2, 32, (2, 4), generator=torch.Generator().manual_seed(0))
    ones = torch.ones_like(tokens)
    trainer._ready = {
        "prompt_ids": tokens, "prompt_mask": ones, "completion_ids": tokens, "completion_mask": ones,
        "advantages": torch.tensor([1.0, -1.0]), "num_items_in_batch": torch.tensor(8),
    }  # fmt: skip
    with pytest.raises(NoiseError, match="GRPOTrainer saw no step of the training, so no noise was injected"):
        trainer.train()
