"""compressed-tensors' config_groups: formats by targets, which are names, `re:` patterns and names of classes.

Not here: how serving stacks resolve overlapping targets, each its own way. This is the library's: exact names first,
then patterns in the order of their text, then classes. A pattern is matched from the start of the name (re.match).

Source: compressed_tensors/quantization/quant_config.py and utils/match.py of 0.20.
"""

from __future__ import annotations

import re
from typing import Any

from srdd.models.files.packed.claims.claim import PLAIN, Claims, tile

_FORMATS = {
    "nvfp4-pack-quantized": "NVFP4",
    "mxfp4-pack-quantized": "MXFP4",
    "mxfp6-pack-quantized": "MXFP6 E2M3",
    "mxfp8-quantized": "MXFP8",
}


def read(method: str, file: str, said: dict[str, Any]) -> Claims:
    """Raises whatever a config of another shape makes Python raise."""
    top = said.get("format")
    exact: dict[str, str] = {}
    patterns: dict[str, str] = {}
    classes: dict[str, str] = {}
    tiles: list[tuple[int, int]] = []
    for group in (said.get("config_groups") or {}).values():
        weights = group.get("weights")
        if not weights:
            continue
        family = _family(group.get("format") or top, weights)
        structure = weights.get("block_structure")
        if weights.get("num_bits") == 8 and structure:
            tiles.append(tile(structure[0], structure[1]))
        elif weights.get("num_bits") == 8 and weights.get("strategy") == "group":
            tiles.append(tile(1, weights["group_size"]))
        for target in group.get("targets") or ():
            kind = patterns if target.startswith("re:") else classes if target[:1].isupper() else exact
            kind[target] = family
    ignored = frozenset(map(str, said.get("ignore") or ()))
    ignored_patterns = [re.compile(entry[3:]) for entry in ignored if entry.startswith("re:")]
    ordered = [(re.compile(text.removeprefix("re:")), patterns[text]) for text in sorted(patterns)]

    def named_as(module: str) -> str | None:
        if module in ignored or any(pattern.match(module) for pattern in ignored_patterns):
            return PLAIN
        found = next((family for pattern, family in ordered if pattern.match(module)), None)
        return exact.get(module, found)

    named = frozenset((*exact.values(), *patterns.values(), *classes.values()))
    if not said.get("config_groups") and top in _FORMATS:
        named = frozenset({_FORMATS[top]})
    rest = next(iter(classes.values())) if len(set(classes.values())) == 1 else None
    return Claims(method, file, named, lambda module: named_as(module) or rest, tuple(tiles))


def _family(form: str | None, weights: dict[str, Any]) -> str:
    if form in _FORMATS:
        return _FORMATS[form]
    bits, group = weights.get("num_bits"), weights.get("group_size")
    if weights.get("type") != "float":
        return "INT"
    if bits == 4:
        return "NVFP4" if weights.get("strategy") == "tensor_group" or group == 16 else "MXFP4"
    if bits == 6:
        return "MXFP6 E2M3"
    return "MXFP8" if group == 32 and "uint8" in str(weights.get("scale_dtype")) else "FP8"
