"""compressed-tensors: NVFP4, MXFP4 and MXFP6 as weight_packed; llm-compressor and AutoRound write it.

Not here: its 8-bit forms, whose codes are called `weight` (float8.py). The NVFP4 global scale is a divisor, 2688 / amax
when it was made. MXFP6 is E2M3.

Source: compressed_tensors/compressors/{nvfp4,mxfp4,mxfp6} of 0.20.
"""

from __future__ import annotations

from collections.abc import Iterator

from srdd.errors import SourceError
from srdd.models.files.packed import groups
from srdd.models.files.packed.contract import Facts, Module, Packed, refuse_zero_points, require, weight_name

KNOWN = "NVFP4, MXFP4 and MXFP6 of compressed-tensors"


def recognise(module: Module, facts: Facts) -> Iterator[Packed]:
    """The weight whose codes are `weight_packed`. Raises SourceError for scales that do not fit it."""
    codes = module.get("weight_packed")
    if codes is None or codes.dtype != "U8":  # integers are packed in I32
        return
    refuse_zero_points(module, codes)
    if "weight_g_idx" in module:
        raise SourceError(f"{module['weight_g_idx'].name} gives groups another order; no known form has it")
    name, scale = weight_name(codes, "weight"), require(module, "weight_scale", codes)
    if scale.dtype == "F8_E4M3":
        yield groups.nv(name, codes, scale, require(module, "weight_global_scale", codes), divide=True)
    else:
        # 4 bits give 16 bytes for a scale, 6 bits 24
        six = len(scale.shape) > 1 and codes.shape[-1:] == (24 * scale.shape[-1],)
        yield groups.mx(name, codes, scale, six="E2M3" if six else None)
