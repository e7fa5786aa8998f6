"""AutoRound's own config: one data_type with bits for all blocks, and bits for single layers in extra_config.

Not here: what it exports as compressed-tensors, whose config is that one's.
"""

from __future__ import annotations

import re
from typing import Any

from srdd.models.files.packed.claims.claim import PLAIN, Claims


def read(method: str, file: str, said: dict[str, Any]) -> Claims:
    """Raises whatever a config of another shape makes Python raise."""
    whole = _family(said)
    layers = {name: _family({**said, **entry}) for name, entry in (said.get("extra_config") or {}).items()}

    patterns = [(re.compile(name), family) for name, family in layers.items()]

    def named_as(module: str) -> str | None:
        if module in layers:
            return layers[module]
        return next((family for pattern, family in patterns if pattern.fullmatch(module)), None)

    named = frozenset(family for family in (*layers.values(), whole) if family and family != PLAIN)
    return Claims(method, file, named, named_as)  # of which blocks the rest is, another key says


def _family(said: dict[str, Any]) -> str | None:
    bits, kind = said.get("bits"), str(said.get("data_type"))
    if bits is not None and bits >= 16:
        return PLAIN
    if kind.startswith("mx_fp"):
        return {4: "MXFP4", 6: "MXFP6 E2M3", 8: "MXFP8"}.get(bits or 0)
    if kind.startswith("nv_fp"):
        return "NVFP4"
    if kind.startswith("fp"):
        return "FP8"
    return "INT" if kind.startswith("int") else None
