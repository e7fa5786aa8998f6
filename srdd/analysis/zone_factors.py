"""Factors of zones as factors of layers: given by a zone's name, as one of the "edges", or by its label.

Not here: the zones (zones.py) and which factors a strategy has by default (strategies.py).

Worked number: {"edges": 1.0, "middle": 0.5} over the zones first edge, middle and last edge is 1, 0.5 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from srdd.documents.zones import Zone
from srdd.errors import SettingError


def by_zone(
    zones: Sequence[Zone], defaults: Mapping[str, float], given: Mapping[str, float] | None
) -> dict[str, float]:
    """A factor for every zone: by its name first, then as one of the "edges", then by its label."""
    factors = {**defaults, **(given or {})}
    keys = {zone.name: (zone.name, "edges" if zone.name.endswith(" edge") else "", zone.label) for zone in zones}
    unused = sorted(set(given or {}) - {key for tried in keys.values() for key in tried})
    if unused:
        known = sorted({key for tried in keys.values() for key in tried if key})
        raise SettingError("factors", unused[0], f"there is no such zone; expected one of: {', '.join(known)}")
    bad = {key: value for key, value in factors.items() if not 0 <= value < math.inf}
    if bad:
        raise SettingError("factors", ", ".join(f"{k}={v:g}" for k, v in bad.items()), "expected 0 or more")
    return {name: next((factors[key] for key in tried if key in factors), 1.0) for name, tried in keys.items()}


def by_layer(zones: Sequence[Zone], factors: Mapping[str, float]) -> dict[int, float]:
    return {layer: factors[zone.name] for zone in zones for layer in zone.layers}


def in_words(zones: Sequence[Zone], factors: Mapping[str, float]) -> list[str]:
    return [f"{zone.name} (layers {zone.span}, {zone.label} error): {factors[zone.name]:g}" for zone in zones]
