"""ModelOpt's quant_algo: one for all but the excluded modules, or MIXED_PRECISION with one for each named layer.

Not here: how exclude_modules is read elsewhere (vLLM takes substrings too); only exact names and patterns count.
"""

from __future__ import annotations

from typing import Any

from srdd.models.files.packed.claims.claim import PLAIN, Claims, left_out


def read(method: str, file: str, said: dict[str, Any]) -> Claims:
    """From config.json's quantization_config, or from hf_quant_config.json, which has it under `quantization`."""
    inner = said.get("quantization") or said
    layers = {name: _family(entry.get("quant_algo")) for name, entry in (inner.get("quantized_layers") or {}).items()}
    whole = None if layers else _family(inner.get("quant_algo"))
    skipped = left_out((*(inner.get("exclude_modules") or ()), *(inner.get("ignore") or ())))

    def named_as(module: str) -> str | None:
        if module in layers:
            return layers[module]
        return PLAIN if skipped(module) else None

    named = frozenset(family for family in (*layers.values(), whole) if family)
    return Claims(method, file, named, lambda module: named_as(module) or whole)


def _family(algo: Any) -> str | None:
    if not algo or str(algo) == "MIXED_PRECISION":
        return None
    name = str(algo).upper()
    known = next((family for family in ("NVFP4", "MXFP4", "MXFP8", "FP8") if family in name), None)
    return None if known is None and "INT" not in name else known or "INT"
