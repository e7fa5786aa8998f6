"""Quark: MXFP4 and MXFP6 as bytes called `weight` with scales in E8M0. ModelOpt's MXFP4 lies the same way.

Not here: its 8-bit forms (float8.py). E2M3 and E3M2 cannot be told apart by tensors, so that the config decides there;
without one the weight is refused. `scale` is what DeepSeek's own files call it.

Worked number: U8 [64, 24] with scales [64, 1] is 32 codes of 6 bits a row, with scales [64, 1] and 16 bytes of 4.
"""

from __future__ import annotations

from collections.abc import Iterator

from srdd.errors import SourceError
from srdd.models.files.packed import groups
from srdd.models.files.packed.codes import SIX_BIT
from srdd.models.files.packed.contract import Facts, Module, Packed, weight_name

KNOWN = "MXFP4 and MXFP6 of Quark and ModelOpt"


def recognise(module: Module, facts: Facts) -> Iterator[Packed]:
    """Weights in bytes whose scale is E8M0. Raises SourceError for scales that do not fit, and for 6 bits unnamed."""
    for local, codes in module.items():
        if codes.dtype not in groups.BYTES:
            continue
        names = ("weight_scale", "scale") if local == "weight" else (f"{local}_weight_scale", f"{local}_scale")
        scale = next((module[name] for name in names if name in module), None)
        if scale is None or scale.dtype not in groups.POWERS:
            continue
        name, six = weight_name(codes, local), None
        if codes.shape and scale.shape and codes.shape[-1] == 24 * scale.shape[-1]:
            claimed = facts.claim(name.removesuffix(".weight")) or ""
            six = next((element for element in SIX_BIT if claimed.endswith(element)), None)
            if six is None:
                raise SourceError(
                    f"{codes.name} holds codes of 6 bits, E2M3 or E3M2, and no config says which; expected "
                    "quantization_config in config.json"
                )
        yield groups.mx(name, codes, scale, six=six)
