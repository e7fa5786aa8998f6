"""The modes of quantization: weights, inputs, or both, and what users call them with a format's bits.

Not here: putting a model into a mode (srdd.models.fake).

Worked number: with mxfp4, "weight" is W4A16, "input" W16A4 and "both" W4A4; with mxfp8 "both" is W8A8.
"""

from __future__ import annotations

from typing import Literal

from srdd.core.formats import BlockFormat

Mode = Literal["weight", "input", "both"]
MODES: tuple[Mode, ...] = ("weight", "input", "both")


def mode_name(mode: Mode | None, fmt: BlockFormat) -> str:
    """How users call a mode: "W4A16"; None, nothing quantized, is W16A16."""
    bits = fmt.element.bits
    weights, inputs = bits if mode in ("weight", "both") else 16, bits if mode in ("input", "both") else 16
    return f"W{weights}A{inputs}"
