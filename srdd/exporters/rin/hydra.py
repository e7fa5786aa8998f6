"""rin.yaml as Hydra overrides for verl-style trainers that carry `trainer.noise_injection`.

Two families of keys are in use for the multipliers; both are written, so that either reader finds its own. `++` adds or
replaces. A warning stands first: in the published fork, neither family reaches the injector. Exclusions are parts of
names there, not globs: "*embed*" becomes "embed".

Not here: what the fork cannot express, which verl_fork.py refuses.

Worked number: {0: 0.83, 1: 0.89} becomes ++trainer.noise_injection.layer_multipliers={0:0.83,1:0.89}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from srdd.exporters.rin.verl_fork import beyond, layer_sigma

if TYPE_CHECKING:
    from srdd.documents.rin import RinConfig

FORM = "hydra"
WARNING = (
    "the published fork documents these keys but its trainer never copies per-layer multipliers to the rollout: "
    "check in its log that the noise differs by layer"
)
_PLAIN = re.compile(r"[\w.\-]+")
_LAYER_TYPES = {"rmsnorm": "[rmsnorm]", "linear": "[linear]", "both": "[rmsnorm,linear]"}


def render(config: RinConfig) -> str:
    """One override a line; the first line is a shell comment with the warning. Raises as `layer_sigma`."""
    root = "++trainer.noise_injection"
    schedule, tree = config.schedule, layer_sigma(config)
    noisy = [layer for layer, value in config.layer_multipliers.items() if value > 0]
    lines = [
        f"# {WARNING}",
        f"{root}.enabled=true",
        f"{root}.sigma_start={schedule.sigma_start:g}",
        f"{root}.sigma_end={schedule.sigma_end:g}",
        f"{root}.num_stages={schedule.num_stages}",
        f"{root}.layer_types={_LAYER_TYPES[config.target]}",
        f"{root}.exclude_patterns={_value([_part(pattern) for pattern in config.exclude])}",
        f"{root}.use_variable_sigma=true",
        f"{root}.target_layers={_value(noisy)}",
        f"{root}.layer_multipliers={_dict(config.layer_multipliers)}",
    ]
    zones = tree.pop("zone_schedule", None)
    for key, value in tree.items():
        lines.append(f"{root}.layer_sigma_config.{key}={_value(value)}")
    for key, value in (zones or {}).items():
        lines.append(f"{root}.layer_sigma_config.zone_schedule.{key}={_value(value)}")
    return "".join(f"{line}\n" if line.startswith("#") else f"'{line}'\n" for line in lines)


def _part(pattern: str) -> str:
    """What a name must hold to match. Raises ReportError for a glob that is not of the form *text*."""
    text = pattern[1:-1]
    if len(pattern) < 3 or not pattern.startswith("*") or not pattern.endswith("*") or not _PLAIN.fullmatch(text):
        raise beyond(f"excludes by parts of names; exclude {pattern!r} says more")
    return f'"{text}"'


def _dict(values: Mapping[Any, object]) -> str:
    return "{" + ",".join(f"{key}:{_value(value)}" for key, value in values.items()) + "}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return _dict(value)
    if isinstance(value, list):
        return "[" + ",".join(_value(item) for item in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
