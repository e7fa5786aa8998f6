"""Which format of core a packed form is of, so that the same can be made afresh.

Not here: how forms lie in files (one file each beside this).

Worked number: "FP8 in blocks of 128 x 128" is fp8_block. "FP8 in blocks of 64 x 64" is fp8_block too where its codes
are measured, but no format has its tiles, so that nothing can be made afresh to compare it with.
"""

from __future__ import annotations

from srdd.core.formats import FORMATS, BlockFormat

_OF = {
    "MXFP4": "mxfp4",
    "MXFP6 E2M3": "mxfp6_e2m3",
    "MXFP6 E3M2": "mxfp6_e3m2",
    "MXFP8": "mxfp8_e4m3",
    "MXFP8 in E5M2": "mxfp8_e5m2",
    "NVFP4": "nvfp4",
    "FP8 per tensor": "fp8",
    "FP8 per row": "fp8_channel",
    "FP8 in blocks of 128 x 128": "fp8_block",
}


def fresh_format(form: str) -> BlockFormat | None:
    """What quantizes anew as `form` does, by its default rule; None where no format has its element and tiles."""
    name = _OF.get(form)
    return None if name is None else FORMATS[name]


def nearest_format(form: str) -> BlockFormat:
    """The format that a report counts `form` under: of FP8 in tiles or an element of its own, the kin of them."""
    known = fresh_format(form)
    if known is not None:
        return known
    plain = form.removesuffix(" in E5M2")
    return fresh_format(plain) or FORMATS["fp8_block" if plain.startswith("FP8 in blocks") else "fp8"]
