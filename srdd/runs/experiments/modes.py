"""Quantization modes by the names that commands and documents give them, and a model put into one.

Not here: the modes themselves (srdd.core.modes). Here None is one more: w16a16, where nothing is quantized.

Worked number: with mxfp8, "w8a16" quantizes weights; "w4a4" is refused, because mxfp8 has 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from srdd.core.formats import BlockFormat
from srdd.core.modes import MODES, Mode, mode_name
from srdd.errors import SettingError
from srdd.models.fake import fake_quantize
from srdd.models.quantizer import Quantizer


def name_of(mode: Mode | None, fmt: BlockFormat) -> str:
    """How documents write a mode: "w4a16"."""
    return mode_name(mode, fmt).lower()


def parse_mode(name: str, fmt: BlockFormat, *, setting: str = "mode") -> Mode | None:
    """The mode called "w4a16", in any case. Raises SettingError, also for other bits than the format's."""
    known: dict[str, Mode | None] = {name_of(mode, fmt): mode for mode in (None, *MODES)}
    wanted = name.strip().lower()
    if wanted not in known:
        *others, last = known
        expected = f"expected {', '.join(others)} or {last}; {fmt.spec} has {fmt.element.bits} bits"
        raise SettingError(setting, repr(wanted), expected)
    return known[wanted]


def parse_modes(names: str, fmt: BlockFormat) -> list[Mode | None]:
    """`w16a16,w4a4` for a format. Raises SettingError, also for a mode given twice."""
    modes = [parse_mode(name, fmt, setting="modes") for name in names.split(",")]
    if len(set(modes)) != len(modes):
        raise SettingError("modes", repr(names), "a mode is given twice")
    return modes


def in_mode(
    model: nn.Module, mode: Mode | None, quantizer: Quantizer, exclude: Sequence[str]
) -> AbstractContextManager[Any]:
    """The model computes quantized inside the block; weights that carry noise are quantized with it."""
    return nullcontext() if mode is None else fake_quantize(model, quantizer, mode, exclude=exclude, default_exclude=())
