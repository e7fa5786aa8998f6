"""Noise documents for trials: a constant sigma with the multipliers of a profile.

Not here: applying them (srdd.noise). `global` gives every layer 1; `guided` takes the multipliers of a rin.yaml without
its schedule and phases, because a trial has no time. `chosen` puts noise on some layers only.

Worked number: `chosen(..., layers=[3, 7])` of 30 gives 1 to layers 3 and 7 and 0 to 28 others and to the final norm.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from srdd.documents.rin import CLASSES, RinConfig, RinProvenance, Schedule, Target
from srdd.errors import SettingError, SiteError, setting
from srdd.models.modules import decoder_layers


def layer_count(model: nn.Module) -> int:
    """Raises SiteError for a model without layers."""
    count = len(decoder_layers(model))
    if not count:
        raise SiteError(f"no decoder layers were found in {type(model).__name__} (a ModuleList of alike blocks)")
    return count


def constant(sigma: float) -> Schedule:
    return Schedule(kind="constant", sigma_start=sigma, sigma_end=sigma)


def everywhere(layers: int, target: Target, sigma: float, *, relative: bool) -> RinConfig:
    """Multiplier 1 for every layer and for modules outside them."""
    return _config(dict.fromkeys(range(layers), 1.0), target, sigma, relative, "global", outside=1.0)


def chosen(layers: int, on: Iterable[int], target: Target, sigma: float, *, relative: bool, name: str) -> RinConfig:
    """Multiplier 1 for the layers `on`, 0 elsewhere."""
    wanted = set(on)
    values = {layer: float(layer in wanted) for layer in range(layers)}
    return _config(values, target, sigma, relative, name, outside=0.0)


def guided(config: RinConfig, target: Target, sigma: float, *, relative: bool) -> RinConfig:
    """A rin.yaml at one sigma. Raises SettingError when it was made for another target."""
    if target != config.target:
        raise SettingError("targets", target, f"the document of {setting('multipliers')} is for {config.target}")
    return config.model_copy(update={"schedule": constant(sigma), "phases": [], "relative": relative})


def check_target(target: str, *, setting: str = "target") -> None:
    """Raises SettingError for a target that does not exist."""
    if target not in CLASSES:
        raise SettingError(setting, target, f"expected one of {', '.join(CLASSES)}")


def _config(
    values: dict[int, float], target: Target, sigma: float, relative: bool, name: str, outside: float
) -> RinConfig:
    return RinConfig(
        provenance=RinProvenance(
            srdd="", report_sha256="", model="this model", quant="", site="", metric="", strategy=name
        ),
        schedule=constant(sigma),
        target=target,
        target_classes=CLASSES[target],
        relative=relative,
        outside_layers=outside,
        layer_multipliers=values,
    )
