"""Quark's global_quant_config and layer_quant_config: patterns as fnmatch has them, names where there is no `*`.

Not here: activations. This is the only config that tells E2M3 from E3M2.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from srdd.models.files.packed.claims.claim import PLAIN, Claims, left_out


def read(method: str, file: str, said: dict[str, Any]) -> Claims:
    """Raises whatever a config of another shape makes Python raise."""
    whole = _family((said.get("global_quant_config") or {}).get("weight"))
    layers = {name: _family(entry.get("weight")) for name, entry in (said.get("layer_quant_config") or {}).items()}
    skipped = left_out(said.get("exclude") or ())

    def named_as(module: str) -> str | None:
        if skipped(module):
            return PLAIN
        return next((layers[name] for name in sorted(layers) if fnmatchcase(module, name)), None)

    named = frozenset(family for family in (*layers.values(), whole) if family)
    return Claims(method, file, named, lambda module: named_as(module) or whole)


def _family(spec: Any) -> str | None:
    if isinstance(spec, list):  # NVFP4 has two: for blocks, and for the tensor
        return "NVFP4" if len(spec) == 2 else _family(spec[0])
    if not spec:
        return None
    dtype, size = str(spec.get("dtype")), spec.get("group_size")
    if dtype == "fp4":
        return "NVFP4" if size == 16 else "MXFP4"
    if dtype.startswith("fp6_"):
        return f"MXFP6 {dtype.removeprefix('fp6_').upper()}"
    if dtype.startswith("fp8"):
        return "MXFP8" if size == 32 else "FP8"
    return "INT" if dtype.startswith(("int", "uint")) else None
