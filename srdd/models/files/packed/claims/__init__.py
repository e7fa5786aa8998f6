"""What configs say of formats: quantization_config in config.json, or ModelOpt's hf_quant_config.json.

Not here: what its tensors say, which is what is believed; a claim is only held against it. One file an exporter whose
config has rules of its own; a method of another name claims nothing.

Worked number: {"quant_method": "fp8", "weight_block_size": [128, 128]} claims FP8 for no module in particular.
"""

from __future__ import annotations

import re
from typing import Any

from srdd.errors import SourceError
from srdd.models.files.packed.claims import auto_round, compressed_tensors, modelopt, quark
from srdd.models.files.packed.claims.claim import Claims, tile

__all__ = ["Claims", "claims_of"]

_WHOLE = {"fp8": "FP8", "fbgemm_fp8": "FP8", "mxfp4": "MXFP4", "mxfp8": "MXFP8"}  # one format, no rules
_READERS = {
    "compressed-tensors": compressed_tensors.read,
    "modelopt": modelopt.read,
    "quark": quark.read,
    "auto-round": auto_round.read,
    "intel/auto-round": auto_round.read,
}
METHODS = frozenset((*_WHOLE, *_READERS))  # whose claims are understood


def claims_of(config: dict[str, Any], hf_quant_config: dict[str, Any]) -> Claims | None:
    """What is claimed; None where no config speaks of formats. Raises SourceError for one that is not understood."""
    said, file = config.get("quantization_config"), "config.json"
    if not said and isinstance(config.get("text_config"), dict):  # of a model with a vision part
        said = config["text_config"].get("quantization_config")
    if not said and hf_quant_config:
        said, file = {"quant_method": "modelopt", **hf_quant_config}, "hf_quant_config.json"
    if not said:
        return None
    try:
        method = str(said.get("quant_method") or ("modelopt" if "quant_algo" in said else "unnamed"))
        if method in _WHOLE:
            named = frozenset({_WHOLE[method]})
            size = said.get("weight_block_size")
            return Claims(method, file, named, tiles=(tile(size[0], size[1]),) if size else ())
        reader = _READERS.get(method)
        return reader(method, file, said) if reader else Claims(method, file)
    except (AttributeError, TypeError, KeyError, ValueError, IndexError, re.error) as problem:
        raise SourceError(
            f"quantization_config in {file} is not understood ({problem}); get the file again"
        ) from problem
