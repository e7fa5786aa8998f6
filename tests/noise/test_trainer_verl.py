"""The verl plugin against verl's own configuration, plugin loading and update_weights; ray, FSDP and vLLM stand in."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import verl_stand_in
import yaml
from builders import make_rin

from srdd.documents import schedule
from srdd.documents.rin import RinConfig
from srdd.errors import NoiseError, OptionError, ReportError
from srdd.noise.verl import WRAPPED

if find_spec("verl") is None:
    pytest.skip("no verl: pip install --no-deps verl==0.9.1", allow_module_level=True)

CONFIG = make_rin(
    {0: 1.0, 1: 1.6}, outside_layers=0.5, schedule={"sigma_start": 0.05, "sigma_end": 0.01, "num_stages": 5}
)
WORKERS, FSDP = "workers/engine_workers.py", "workers/engine/fsdp/transformer_impl.py"
ENGINES, OLDER = "checkpoint_engine/base.py", "trainer/ppo/ray_trainer.py"
TRAINER, SYNC = "trainer/ppo/v1/trainer_base.py", "trainer/ppo/v1/trainer_sync.py"
STEPS = 10
REAL = verl_stand_in.REAL
REQUIRED = "VERL_USE_EXTERNAL_MODULES"


def command(folder: Path, config: RinConfig | None, overrides: Sequence[str] = (), **given: Any) -> dict[str, Any]:
    lines = list(overrides)
    if config is not None:
        path = folder / "rin.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        lines = [f"++actor_rollout_ref.srdd.rin={path}", "++actor_rollout_ref.srdd.seed=3", *lines]
    return {"real": str(REAL), "overrides": lines, "steps": STEPS, **given}


def in_a_process(folder: Path, config: RinConfig | None, required: str) -> tuple[list[dict[str, Any]], str]:
    """Train the stand-in in a process of its own: what rollouts held, and all that was printed."""
    verl_stand_in.write(folder / "site")
    path = os.pathsep.join([str(folder / "site"), str(Path(verl_stand_in.__file__).parent)])
    done = subprocess.run(
        [sys.executable, verl_stand_in.__file__, json.dumps(command(folder, config))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, REQUIRED: required},
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return (json.loads(results[0].partition(" ")[2]) if results else []), done.stdout + done.stderr


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The stand-in can be imported as verl in this process; its folder."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv(REQUIRED, "srdd.noise.verl")
    verl_stand_in.write(tmp_path / "site")
    yield tmp_path
    for name in [n for n in sys.modules if n.partition(".")[0] == "verl"]:
        del sys.modules[name]


def test_rollouts_get_the_noise_and_validation_does_not(tmp_path: Path) -> None:
    log, printed = in_a_process(tmp_path, CONFIG, "srdd.noise.verl")
    assert "srdd: verl plugin loaded" in printed
    assert "srdd: wrapped ActorRolloutRefWorker.update_weights" in printed
    assert "srdd: wrapped PPOTrainer.fit, _validate" in printed
    assert "srdd: sent to the rollout engine: step 3 of 10: sigma 0.05, 5 weights in 2 layers" in printed
    training = [row for row in log if row["what"] == "train"]
    assert [row["step"] for row in training] == list(range(1, STEPS + 1))
    for row in training:
        # verl counts from 1: step 1 generates with weights of version 0, index 0 of the schedule
        assert row["version"] == row["step"] - 1
        sigma = schedule.sigma(CONFIG.schedule, row["step"] - 1, STEPS)
        for name, std in row["noise"].items():
            factor = 0.0 if "norm" not in name else 1.6 if "layers.1" in name else 1.0 if "layers.0" in name else 0.5
            assert std == pytest.approx(sigma * factor, rel=4 / math.sqrt(2 * 512)), (row["step"], name)
    validations = [row for row in log if row["what"] == "validate"]
    assert [(row["step"], row["version"]) for row in validations] == [(s, s) for s in (0, 0, 5, 5, 10, 10)]
    assert all(row["count"] == len(training[0]["noise"]) for row in log), "all weights arrive every time"
    assert not any(any(row["noise"].values()) for row in validations)


def test_without_the_node_nothing_changes(tmp_path: Path) -> None:
    log, printed = in_a_process(tmp_path, None, "")
    assert "srdd: verl plugin loaded" in printed, "the entry point alone loads the plugin"
    assert log
    assert not any(any(row["noise"].values()) for row in log)


def test_the_entry_point_is_registered() -> None:
    assert [e.value for e in entry_points(group="verl.plugins") if e.name == "srdd"] == ["srdd.noise.verl"]


LR = make_rin({0: 1.0, 1: 1.0}, lr_multipliers={0: 1.0, 1: 1.2})
SLIGHT = make_rin({0: 1.0, 1: 1.0}, schedule={"kind": "constant", "sigma_start": 1e-6, "sigma_end": 1e-6})
HUGE = make_rin({0: 1.0, 1: 1.0}, schedule={"kind": "constant", "sigma_start": 1e39, "sigma_end": 1e39})


@pytest.mark.parametrize(
    ("config", "overrides", "given", "words"),
    [
        (None, ["++actor_rollout_ref.srdd.seed=1"], {}, "actor_rollout_ref.srdd has no rin"),
        (None, ["++actor_rollout_ref.srdd.rin=none.yaml"], {}, "no rin document at none.yaml"),
        (CONFIG, ["++actor_rollout_ref.srdd.sigma=1"], {}, "actor_rollout_ref.srdd.sigma is not known"),
        (None, ["++trainer.srdd.rin=rin.yaml"], {}, "trainer.srdd never reaches the workers"),
        (make_rin({0: 1.0}), [], {}, "layer(s) [1] have no multiplier"),
        (make_rin({0: 1.0, 1: 1.0}, target_classes=["BatchNorm2d"]), [], {}, "no module of class BatchNorm2d"),
        (LR, [], {}, "rin.yaml has lr_multipliers, which verl cannot take"),
        (SLIGHT, [], {}, "of the bfloat16 weights: rounding removes it, and this is"),
        (HUGE, [], {}, "its noise overflows"),
        (CONFIG, [], {"peft": True}, "with unmerged LoRA verl sends adapters only"),
        (CONFIG, [], {"optim_steps": -1}, "total_steps -1: expected 1 or more"),
        (CONFIG, ["++actor_rollout_ref.srdd.total_steps=30"], {}, "total_steps 30: this training has 10 steps"),
        (CONFIG, [], {"mode": "colocate_async"}, "trainer.v1.trainer_mode colocate_async"),
        (CONFIG, [], {"required": ""}, "a worker in whose environment srdd is missing"),
        (CONFIG, ["actor_rollout_ref.rollout.checkpoint_engine.backend=nccl"], {}, "engine nccl: srdd sends"),
        (CONFIG, ["actor_rollout_ref.rollout.dtype=half4"], {}, "rollout.dtype half4: expected a type"),
    ],
)  # fmt: skip
def test_what_would_be_lost_stops_the_training(
    stand_in: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: RinConfig | None,
    overrides: list[str],
    given: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.setenv(REQUIRED, given.pop("required", "srdd.noise.verl"))
    with pytest.raises((NoiseError, OptionError, ReportError), match=re.escape(words)):
        verl_stand_in.train(command(stand_in, config, overrides, **given))


@pytest.mark.parametrize("required", ["srdd.noise.verl", ""])
def test_a_verl_that_has_changed(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, required: str
) -> None:
    path = stand_in / "site" / "verl" / "trainer" / "ppo" / "v1" / "trainer_base.py"
    path.write_text(path.read_text().replace("_validate", "_evaluate"))
    monkeypatch.setenv(REQUIRED, required)
    words = r"PPOTrainer has no _validate\(\), on which srdd puts noise; it knows verl 0.9"
    if required:
        with pytest.raises(NoiseError, match=words):
            verl_stand_in.train(command(stand_in, None))
    else:
        assert verl_stand_in.train(command(stand_in, None))
        assert re.search(words, caplog.text)


def test_a_step_that_is_missing(stand_in: Path) -> None:
    given = command(stand_in, CONFIG)
    with pytest.raises(NoiseError, match="without global_steps, so the step of the schedule is not known"):
        verl_stand_in.train({**given, "no_step": True})


@pytest.mark.parametrize(
    ("path", "kind", "name", "uses"),
    [
        (WORKERS, "ActorRolloutRefWorker", "update_weights", ["self.actor.engine.get_per_tensor_param("]),
        (FSDP, "FSDPEngine", "get_per_tensor_param", ["return per_tensor_param, peft_config_dict"]),
        (ENGINES, "CheckpointEngineManager", "update_weights", ["self.actor_wg.update_weights(global_steps=global"]),
        (ENGINES, "CheckpointEngineManager", "sleep_replicas", []),
        (TRAINER, "PPOTrainer", "_validate", ["self.checkpoint_manager.update_weights()"]),
        (TRAINER, "PPOTrainer", "fit", ["self._validate()", "self.total_training_steps"]),
        (SYNC, "PPOTrainerSync", "on_step_end", ["self.checkpoint_manager.update_weights(self.global_steps)"]),
        (OLDER, "RayPPOTrainer", "_validate", ["self.checkpoint_manager.update_weights(self.global_steps)"]),
        (OLDER, "RayPPOTrainer", "fit", ["self._validate()", "self.total_training_steps"]),
    ],
)
def test_verl_is_what_the_stand_in_assumes(path: str, kind: str, name: str, uses: list[str]) -> None:
    source = verl_stand_in.method(REAL, path, kind, name)
    assert all(use in source for use in uses)


def test_every_wrapped_method_is_in_verl() -> None:
    for module, (kind, methods) in WRAPPED.items():
        for method in methods:
            assert verl_stand_in.method(REAL, "/".join(module.split(".")[1:]) + ".py", kind, method)
