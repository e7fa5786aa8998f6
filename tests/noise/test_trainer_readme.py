"""The README's section on trainers: its Python runs, its overrides compose, its log line exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from builders import make_rin
from tiny_grpo_trainer import make_trainer as make_grpo
from tiny_hf_trainer import make_trainer
from tiny_training import Observer, rows, tiny_llama
from transformers import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")  # TRL's

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Use it in a trainer")[2].partition("\n## ")[0]
HF, TRL, RATES = re.findall(r"```python\n(.*?)```", SECTION, re.S)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    settings: dict[str, Any] = {"schedule": {"kind": "constant", "sigma_start": 0.05, "sigma_end": 0.05}}
    if "RATES" in tmp_path.name.upper():
        settings["lr_multipliers"] = {0: 1.2, 1: 1.0}
    config = make_rin({0: 1.0, 1: 1.6}, **settings)
    Path("rin.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return tmp_path


def test_hf(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = make_trainer(here, []).args
    exec(HF, {"Trainer": Trainer, "model": tiny_llama(), "arguments": arguments, "data": rows(16)})
    assert "noise 10 times (silent 0 times), last on 5 weights in 2 layers" in capsys.readouterr().out


def test_trl(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(TRL, {"trainer": make_grpo(here, Observer())})
    assert "noise 3 times (silent 0 times), last on 5 weights in 2 layers" in capsys.readouterr().out


def test_rates(here: Path) -> None:
    names: dict[str, Any] = {"trainer": make_trainer(here, [], max_steps=1), "model": tiny_llama(), "torch": torch}
    exec(RATES, names)
    names["trainer"].train()
    for optimizer in (names["optimizer"], names["trainer"].optimizer):
        assert {group["srdd_ratio"] for group in optimizer.param_groups} == {1.0, 1.2}


def test_verl(here: Path) -> None:
    pytest.importorskip("hydra", reason="no hydra-core")
    import verl_stand_in

    from srdd.noise import verl_push

    overrides = re.findall(r"(\+\+\S+)", SECTION)
    overrides = [o.replace("/shared/rin.yaml", str(here / "rin.yaml")) for o in overrides]
    config = verl_stand_in.compose(verl_stand_in.REAL, overrides)
    chosen = verl_push.settings(config.actor_rollout_ref)
    assert chosen is not None
    assert (chosen.seed, chosen.rin.layer_multipliers) == (7, {0: 1.0, 1: 1.6})
    variables = config.ray_kwargs.ray_init.runtime_env.env_vars
    assert dict(variables) == {"VERL_USE_EXTERNAL_MODULES": "srdd.noise.verl"}
    assert '"srdd: sent to the rollout engine' in SECTION
    assert '"srdd: sent to the rollout engine' in Path(verl_push.__file__).read_text()
