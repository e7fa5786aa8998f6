"""verl plugin: noise on the weights that verl's trainer sends to its rollout engine; the trainer's own stay clean.

verl loads this module in every process, through the entry point in group `verl.plugins` or through
VERL_USE_EXTERNAL_MODULES=srdd.noise.verl. Loading only arranges for three classes to be wrapped when verl imports them;
without `actor_rollout_ref.srdd` in the configuration all wrappers pass through. verl swallows what a plugin raises
while it is loaded, so nothing here fails then: errors come at the first use.

Not here: what is done to a stream (verl_push.py).

Worked number: a training of 29 steps sends weights 30 times (after loading, and after each step); with a validation
every 10 steps and one before the first, it sends clean ones 3 times more, and noisy ones again after each.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from srdd.errors import NoiseError

log = logging.getLogger(__name__)

# Where verl 0.9 keeps what is wrapped: module, class, its methods.
WRAPPED: dict[str, tuple[str, tuple[str, ...]]] = {
    "verl.workers.engine_workers": ("ActorRolloutRefWorker", ("update_weights",)),
    "verl.trainer.ppo.v1.trainer_base": ("PPOTrainer", ("fit", "_validate")),
    "verl.trainer.ppo.ray_trainer": ("RayPPOTrainer", ("fit", "_validate")),
}
_DONE = "_srdd_wrapped"


def wrap(module: ModuleType) -> None:
    """Wrap the methods of one of verl's modules, once.

    When verl has changed and they are gone, raises NoiseError where VERL_USE_EXTERNAL_MODULES says that noise is
    wanted, and warns elsewhere: srdd may be installed beside verl for other reasons.
    """
    from srdd.noise import verl_push

    kind, methods = WRAPPED[module.__name__]
    owner = getattr(module, kind, None)
    missing = [method for method in methods if not callable(getattr(owner, method, None))]
    if missing:
        what = (
            f"{module.__name__}.{kind} has no {' and no '.join(missing)}(), on which srdd puts noise; it knows verl 0.9"
        )
        if verl_push.required():
            raise NoiseError(what)
        log.warning("srdd: %s", what)
        return
    for method in methods:
        original: Callable[..., Any] = getattr(owner, method)
        if not hasattr(original, _DONE):
            wrapped = verl_push.WRAPPERS[method](original)
            setattr(wrapped, _DONE, True)
            setattr(owner, method, wrapped)
    log.info("srdd: wrapped %s.%s", kind, ", ".join(methods))


class _WhenImported(MetaPathFinder):
    """Wraps the modules of WRAPPED right after verl imports them; importing them here would load half of verl."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in WRAPPED:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                execute = spec.loader.exec_module

                def run(module: ModuleType, execute: Callable[[ModuleType], None] = execute) -> None:
                    execute(module)
                    wrap(module)

                spec.loader.exec_module = run  # type: ignore[method-assign]
                return spec
        return None


def register() -> None:
    """Have verl's classes wrapped, now or when they are imported. Doing it again changes nothing."""
    log.setLevel(logging.INFO)  # verl shows warnings only, and that the plugin works must be seen
    if not any(type(finder).__name__ == _WhenImported.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())
        log.info("srdd: verl plugin loaded; noise where actor_rollout_ref.srdd.rin says so")
    for name in WRAPPED:
        if name in sys.modules:
            wrap(sys.modules[name])


register()
