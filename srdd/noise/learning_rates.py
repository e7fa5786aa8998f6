"""Learning rates per layer, from `lr_multipliers` of rin.yaml: parameter groups whose ratios schedulers keep.

A group is split into one group for every distinct multiplier; options such as weight decay stay as they were.
Parameters outside the layers (embeddings, final norm, head) have ratio 1. Schedulers that multiply (LambdaLR, and so
all of transformers') keep the ratios; one that sets rates itself (OneCycleLR with one max_lr) does not, and
`check_rates` says so.

Worked number: lr 1e-4 and multiplier 1.2 for layers 10-19 of 30: rates 1.2e-4 there and 1e-4 elsewhere; after half of a
linear decay 0.6e-4 and 0.5e-4. With weight decay on matrices only, that makes four groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import TrainerCallback

from srdd.documents.rin import RinConfig, load_rin
from srdd.errors import NoiseError, setting
from srdd.models.modules import decoder_layers, layer_of
from srdd.noise.targets import check_layers

# Keys in a parameter group: its multiplier, the group it was split from, and that one's rate at the time.
RATIO, ORIGIN, START = "srdd_ratio", "srdd_origin", "srdd_start"
_SAME = 1e-6  # relative difference of rates that counts as none
_ENDED = 0.01  # below this share of where they began, rates may differ: ReduceLROnPlateau stops at an absolute step


def parameter_groups(
    model: nn.Module, config: RinConfig | str | Path, *, lr: float, weight_decay: float | None = None
) -> list[dict[str, Any]]:
    """Groups of all trainable parameters, for any torch optimizer.

    With `weight_decay`, matrices get it and vectors (norms, biases) get 0. Raises as `split_groups` does.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if weight_decay is None:
        groups: list[dict[str, Any]] = [{"params": trained, "lr": lr}]
    else:
        groups = [
            {"params": [p for p in trained if p.dim() >= 2], "lr": lr, "weight_decay": weight_decay},
            {"params": [p for p in trained if p.dim() < 2], "lr": lr, "weight_decay": 0.0},
        ]
    return split_groups(groups, model, config)


def split_groups(
    groups: Iterable[dict[str, Any]], model: nn.Module, config: RinConfig | str | Path
) -> list[dict[str, Any]]:
    """The groups split by multiplier, with the rates multiplied.

    Raises NoiseError when the document has no learning rates, its layers are not the model's, a parameter is not the
    model's, or the groups cannot be split: already split, without lr, under a scheduler.
    """
    config = load_rin(config)
    ratios = _ratios(model, config)
    split: list[dict[str, Any]] = []
    for origin, group in enumerate(groups):
        if RATIO in group:
            raise NoiseError(
                "the parameter groups are already split by layer; learning rates would be multiplied twice"
            )
        if not isinstance(group.get("lr"), float | int | Tensor):
            raise NoiseError("a parameter group has no lr that a multiplier could act on; give the optimizer one")
        if "initial_lr" in group:
            raise NoiseError("a scheduler already stands on these parameter groups; split them before it is made")
        by_ratio: dict[float, list[Tensor]] = {}
        for parameter in group["params"]:
            if id(parameter) not in ratios:
                raise NoiseError(
                    f"a parameter of shape {tuple(parameter.shape)} in the groups is not one of "
                    f"{type(model).__name__}, so its layer is not known; pass the model that the optimizer steps"
                )
            by_ratio.setdefault(ratios[id(parameter)], []).append(parameter)
        for ratio, parameters in sorted(by_ratio.items()):
            marks = {RATIO: ratio, ORIGIN: origin, START: float(group["lr"])}
            split.append({**group, "params": parameters, "lr": group["lr"] * ratio, **marks})
    return split


def split_optimizer(optimizer: Optimizer, model: nn.Module, config: RinConfig | str | Path) -> None:
    """The same for an optimizer that exists, in place and before a scheduler is made for it."""
    optimizer.param_groups[:] = split_groups(optimizer.param_groups, model, config)


def set_layer_rates(trainer: Any, config: RinConfig | str | Path) -> None:
    """Give a transformers `Trainer` (or one of TRL's) the document's learning rates; call it before train().

    Whatever optimizer the trainer makes is split by layer. Raises as `split_groups` does, here or in train(), and in
    train() a NoiseError when the ratios are lost.
    """
    if not all(hasattr(trainer, name) for name in ("model", "optimizer", "create_optimizer")):
        raise NoiseError(
            f"{type(trainer).__name__} is no transformers Trainer; for a loop of your own take "
            "srdd.noise.parameter_groups"
        )
    config = load_rin(config)
    _ratios(trainer.model, config)  # a wrong document stops here and not after the data is prepared
    if trainer.optimizer is not None:
        split_optimizer(trainer.optimizer, trainer.model, config)
    create: Callable[..., Optimizer] = trainer.create_optimizer

    @wraps(create)
    def create_optimizer(model: nn.Module | None = None) -> Optimizer:
        optimizer = create() if model is None else create(model)
        if not any(RATIO in group for group in optimizer.param_groups):
            split_optimizer(optimizer, trainer.model if model is None else model, config)
        return optimizer

    trainer.create_optimizer = create_optimizer
    trainer.add_callback(RatesCheck(config))


class RatesCheck(TrainerCallback):  # type: ignore[misc]
    """Holds the ratios at every step of a training. Raises NoiseError when they are lost."""

    def __init__(self, config: RinConfig) -> None:
        self.config = config

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        require_rates(optimizer, self.config)

    def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        check_rates(optimizer)


def require_rates(optimizer: Any, config: RinConfig) -> None:
    """Raise NoiseError when the document has learning rates per layer and the optimizer's groups do not follow them."""
    if not _has_rates(config):
        return
    if optimizer is None or not all(RATIO in group for group in optimizer.param_groups):
        raise NoiseError(
            "rin.yaml has lr_multipliers and the optimizer's parameter groups do not follow them, so they would be "
            "lost; call srdd.noise.set_layer_rates(trainer, rin), or take lr_multipliers out of the document"
        )
    check_rates(optimizer)


def check_rates(optimizer: Any) -> None:
    """Raise NoiseError when groups that were split from one no longer stand in their ratio."""
    bases: dict[int, float] = {}
    for group in optimizer.param_groups:
        if not group[RATIO]:
            continue
        base = float(group["lr"]) / group[RATIO]
        first = bases.setdefault(group[ORIGIN], base)
        if max(base, first) > _ENDED * group[START] and abs(base - first) > _SAME * max(base, first):
            raise NoiseError(
                f"learning rate {float(group['lr']):g} is no longer {group[RATIO]:g} times {first:g}: a scheduler sets "
                "the rates instead of multiplying them; use one that keeps the ratios of groups (LambdaLR)"
            )


def _has_rates(config: RinConfig) -> bool:
    return any(value != 1 for value in (config.lr_multipliers or {}).values())


def _ratios(model: nn.Module, config: RinConfig) -> dict[int, float]:
    """The multiplier of every parameter, by id; 1 outside the layers."""
    if not _has_rates(config):
        raise NoiseError(
            "rin.yaml has no lr_multipliers other than 1, so no learning rate would change; make it with "
            f"`srdd multipliers` and {setting('strategy', 'lr')}"
        )
    stacks = decoder_layers(model)
    check_layers(model, config, len(stacks))
    multipliers = config.lr_multipliers or {}
    ratios = {}
    for name, parameter in model.named_parameters():
        layer = layer_of(name, stacks)
        ratios[id(parameter)] = 1.0 if layer is None else multipliers[layer]
    return ratios
