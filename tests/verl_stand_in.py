"""A package `verl` that loads plugins as verl does, holds verl's own update_weights, and stands in for the rest.

Ray, vLLM and FSDP are replaced; the configuration is composed from verl's own files, and the worker's `update_weights`
is verl's source. `python verl_stand_in.py COMMAND` trains in a process of its own, with the package first on the path.
"""

from __future__ import annotations

import ast
import asyncio
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# As in verl/__init__.py: external modules may raise, plugins may not.
_INIT = """
import importlib, logging, os
from importlib.metadata import entry_points
logging.basicConfig(level=logging.WARNING, format="%(message)s")
for name in filter(None, os.getenv("VERL_USE_EXTERNAL_MODULES", "").split(",")):
    importlib.import_module(name)
if os.getenv("VERL_USE_EXTERNAL_PLUGINS", "auto") != "none":
    for entry in entry_points(group="verl.plugins"):
        try:
            entry.load()
        except Exception as problem:
            logging.getLogger(__name__).debug("Failed to load plugin %s: %s", entry.name, problem)
"""

_WORKERS = """
import asyncio
from types import SimpleNamespace

class Dispatch: ONE_TO_ALL = "one_to_all"
def register(**attributes):
    def mark(function):
        function.attrs_3141562937 = attributes
        return function
    return mark
def nothing(*arguments, **named): return SimpleNamespace(empty_cache=nothing, synchronize=nothing)
logger = None
set_expandable_segments = log_gpu_memory_usage = get_torch_device = nothing
torch = SimpleNamespace(distributed=SimpleNamespace(barrier=nothing))

class ActorRolloutRefWorker:
    def __init__(self, config, engine, rollout):
        self.config, self.rollout = config, rollout
        self.actor = SimpleNamespace(engine=engine)
        self.layered_summon = self.peft_merge = self.base_sync_done = False

"""

_TRAINER = """
class PPOTrainer:
    def __init__(self, config, manager, steps, trainer_mode="sync"):
        self.config, self.checkpoint_manager, self.total_training_steps = config, manager, steps
        self.global_steps, self.trainer_mode = 0, trainer_mode
        self.checkpoint_manager.update_weights(self.global_steps)

    def fit(self):
        self._validate()
        for _ in range(self.total_training_steps):
            self.global_steps += 1
            self.checkpoint_manager.used("train", self.global_steps)
            self.checkpoint_manager.update_weights(self.global_steps)
            if self.global_steps % 5 == 0:
                self._validate()

    def _validate(self):
        self.checkpoint_manager.used("validate", self.global_steps)
        self.checkpoint_manager.sleep_replicas()
        self.checkpoint_manager.update_weights()
        self.checkpoint_manager.used("validate", self.global_steps)
"""


def real_verl() -> Path:
    """The installed package's folder, without importing it."""
    found = find_spec("verl")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


REAL = real_verl() if find_spec("verl") is not None else Path()


def method(folder: Path, path: str, kind: str, name: str) -> str:
    """The source of a method of verl, decorators included. Fails when verl has no such method."""
    text = (folder / path).read_text(encoding="utf-8")
    [owner] = [n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == kind]
    [found] = [n for n in owner.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name == name]
    first = min([found.lineno, *(d.lineno for d in found.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : found.end_lineno]) + "\n"


def write(folder: Path) -> None:
    """The package, under `folder`."""
    update = method(REAL, "workers/engine_workers.py", "ActorRolloutRefWorker", "update_weights")
    files = {
        "verl/__init__.py": _INIT,
        "verl/workers/__init__.py": "",
        "verl/workers/engine_workers.py": _WORKERS + update,
        "verl/trainer/__init__.py": "",
        "verl/trainer/ppo/__init__.py": "",
        "verl/trainer/ppo/v1/__init__.py": "",
        "verl/trainer/ppo/v1/trainer_base.py": _TRAINER,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def compose(folder: Path, overrides: list[str]) -> Any:
    """verl's own configuration with overrides, as its command line composes it."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(folder / "trainer" / "config"), version_base=None):
        return compose("ppo_trainer", overrides=overrides)


class Engine:
    """Streams a tiny model's weights by name, as FSDPEngine.get_per_tensor_param does."""

    def __init__(self, config: Any, peft: bool) -> None:
        from types import SimpleNamespace

        import torch
        from transformers import LlamaForCausalLM

        torch.manual_seed(0)
        self.model = LlamaForCausalLM(config)
        self.model_config = SimpleNamespace(hf_config=config)
        self.is_param_offload_enabled = False
        self._peft = SimpleNamespace() if peft else None

    def get_per_tensor_param(self, layered_summon: bool = False, base_sync_done: bool = False) -> Any:
        names = [(n, p) for n, p in self.model.state_dict().items() if self._peft is None or "norm" not in n]
        return iter(names), self._peft


class Rollout:
    """Takes weights as vLLM does."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}
        self.version: int | None = None

    async def resume(self, tags: list[str]) -> None:
        pass

    async def update_weights(self, weights: Any, global_steps: int | None = None, **rest: Any) -> None:
        self.held = {name: tensor.clone() for name, tensor in weights}
        self.version = global_steps


class Manager:
    """CheckpointEngineManager: passes on to the worker, whose weights it watches."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self.log: list[dict[str, Any]] = []

    def update_weights(self, global_steps: int | None = None) -> None:
        backend = self.worker.config.rollout.checkpoint_engine.backend
        asyncio.run(self.worker.update_weights(global_steps=global_steps, mode=backend))

    def sleep_replicas(self) -> None:
        self.worker.rollout.held = {}

    def used(self, what: str, step: int) -> None:
        """The standard deviation of the noise in what the rollout engine holds now."""
        clean = self.worker.actor.engine.model.state_dict()
        noise = {
            name: float((tensor - clean[name]).double().square().mean().sqrt())
            for name, tensor in self.worker.rollout.held.items()
        }
        self.log.append(
            {"what": what, "step": step, "version": self.worker.rollout.version, "noise": noise, "count": len(noise)}
        )


def train(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Train the stand-in, which must be importable as verl: what its rollouts and validations held."""
    import verl.trainer.ppo.v1.trainer_base as trainer_base
    import verl.workers.engine_workers as workers
    from tiny_training import tiny_llama

    config = compose(Path(given["real"]), given["overrides"])
    config.actor_rollout_ref.actor.optim.total_training_steps = given.get("optim_steps", given["steps"])
    engine = Engine(tiny_llama().config, given.get("peft", False))
    worker = workers.ActorRolloutRefWorker(config.actor_rollout_ref, engine, Rollout())
    assert workers.ActorRolloutRefWorker.update_weights.attrs_3141562937["blocking"] is False, "dispatch is kept"
    manager = Manager(worker)
    trainer = trainer_base.PPOTrainer(config, manager, given["steps"], given.get("mode", "sync"))
    if given.get("no_step"):
        manager.update_weights()
    trainer.fit()
    return manager.log


if __name__ == "__main__":
    sys.stdout.write(f"RESULT {json.dumps(train(json.loads(sys.argv[1])))}\n")
