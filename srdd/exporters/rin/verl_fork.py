"""rin.yaml as the JSON file that the verl fork's scripts load as `layer_sigma_config`.

Layer ids are strings there. Its zone schedule knows edge layers, middle layers and one phase boundary with one factor;
a document that says more is refused, because part of it would be lost.

Not here: the same as overrides (hydra.py).

Worked number: a phase from 0.5 with factor 1 for layers 0-1 and 6-7 and 0.5 for 2-5 becomes edge_layers [0, 1, 6, 7],
middle_layers [2, 3, 4, 5], phase_boundary_ratio 0.5, early_middle_mult 1.0, late_middle_mult 0.5.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from srdd.documents.rin import CLASSES
from srdd.errors import ReportError, setting

if TYPE_CHECKING:
    from srdd.documents.rin import RinConfig

FORM = "verl-fork"


def render(config: RinConfig) -> str:
    """The file. Raises as `layer_sigma`."""
    return json.dumps(layer_sigma(config), indent=1) + "\n"


def layer_sigma(config: RinConfig) -> dict[str, Any]:
    """The tree of `layer_sigma_config`. Raises ReportError for what the fork has no key for."""
    if config.schedule.kind != "staged" or config.schedule.warmup_share is not None or config.relative:
        raise beyond("knows QeRL's staged schedule and absolute sigmas only")
    if config.lr_multipliers is not None:
        raise beyond("has no keys for learning rates per zone")
    if config.norm_multipliers is not None:
        raise beyond("has one multiplier a layer and none for single norms")
    if config.target_classes != CLASSES[config.target]:
        raise beyond("knows rmsnorm and linear, and no other target_classes")
    tree: dict[str, Any] = {
        "enabled": True,
        "default_multiplier": config.outside_layers,
        "layer_multipliers": {str(layer): value for layer, value in config.layer_multipliers.items()},
    }
    if config.phases:
        tree["zone_schedule"] = _zone_schedule(config)
    return tree


def _zone_schedule(config: RinConfig) -> dict[str, Any]:
    phase = config.phases[0]
    lowered = sorted({factor for factor in phase.layer_factors.values() if factor != 1})
    if len(config.phases) > 1 or len(lowered) != 1:
        raise beyond("knows one phase boundary and one factor for the middle")
    return {
        "enabled": True,
        "edge_layers": [layer for layer, factor in phase.layer_factors.items() if factor == 1],
        "middle_layers": [layer for layer, factor in phase.layer_factors.items() if factor != 1],
        "phase_boundary_ratio": phase.from_share,
        "early_middle_mult": 1.0,
        "late_middle_mult": lowered[0],
    }


def beyond(limit: str) -> ReportError:
    """The error for what the fork has no key for."""
    return ReportError(f"the verl fork {limit}; use {setting('form', 'yaml')}")
