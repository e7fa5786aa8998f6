"""Quantization modes by the names users give them, and a model put into one.

Not here: noise. Worked number: with mxfp8, "w8a16" quantizes weights; "w4a4" is refused, because mxfp8 has 8 bits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import nn

from srdd.core import modes as core_modes
from srdd.core.formats import BlockFormat
from srdd.errors import OptionError
from srdd.models.fake import Quantizer, fake_quantize

_MODE = re.compile(r"w(\d+)a(\d+)")
_POINTS: dict[tuple[bool, bool], core_modes.Mode] = {
    (True, False): "weight",
    (False, True): "input",
    (True, True): "both",
}


@dataclass(frozen=True)
class Mode:
    """A name such as w4a16 and what it quantizes; `point` None leaves the model as it is."""

    name: str
    point: core_modes.Mode | None


def parse_modes(text: str, fmt: BlockFormat) -> list[Mode]:
    """`w16a16,w4a4` for a format. Raises OptionError for other bits than the format's, and for a mode given twice."""
    names = [name.strip().lower() for name in text.split(",")]
    if len(set(names)) != len(names):
        raise OptionError(f"--modes {text!r}: a mode is given twice")
    return [_mode(name, fmt) for name in names]


def _mode(name: str, fmt: BlockFormat) -> Mode:
    found, bits = _MODE.fullmatch(name), fmt.element.bits
    if found is None or any(int(n) not in (16, bits) for n in found.groups()):
        raise OptionError(
            f"--modes {name!r}: expected w16a16, w{bits}a16, w16a{bits} or w{bits}a{bits}; {fmt.spec} has {bits} bits"
        )
    quantized = (int(found[1]) == bits, int(found[2]) == bits)
    return Mode(name, _POINTS.get(quantized))


def in_mode(model: nn.Module, mode: Mode, quantizer: Quantizer, exclude: Sequence[str]) -> AbstractContextManager[Any]:
    """The model computes quantized inside the block; weights that carry noise are quantized with it."""
    return nullcontext() if mode.point is None else fake_quantize(model, quantizer, mode.point, exclude=exclude)
