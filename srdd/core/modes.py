"""The modes of quantization: weights, inputs, or both, and what users call them with a format's bits.

Not here: putting a model into a mode (srdd.models.fake).

Worked number: with mxfp4, "weight" is W4A16, "input" W16A4 and "both" W4A4; with mxfp8 "both" is W8A8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from srdd.core.formats import BlockFormat, parse_measured
from srdd.errors import FormatError, SettingError

Mode = Literal["weight", "input", "both"]
MODES: tuple[Mode, ...] = ("weight", "input", "both")
_WORDS: dict[Mode, str] = {"weight": "weights", "input": "inputs", "both": "weights and inputs"}


def mode_name(mode: Mode | None, fmt: BlockFormat) -> str:
    """How users call a mode: "W4A16"; None, nothing quantized, is W16A16."""
    bits = fmt.element.bits
    weights, inputs = bits if mode in ("weight", "both") else 16, bits if mode in ("input", "both") else 16
    return f"W{weights}A{inputs}"


def mode_title(mode: Mode, spec: str) -> str:
    """The same for a format by name; in words for one that is not known, as the control "identity"."""
    try:
        return mode_name(mode, parse_measured(spec))
    except FormatError:
        return _WORDS[mode]


def choose_mode(wanted: str | None, known: Sequence[Mode], spec: str) -> Mode:
    """A mode by name ("both") or as users call it ("w4a4"); None: weights and inputs, else the last known.

    Raises SettingError for what names no mode of this format, or one that is not `known`, at least one.
    """
    if wanted is None:
        return "both" if "both" in known else known[-1]
    text = wanted.strip().lower()
    mode = next((m for m in MODES if text in (m, mode_title(m, spec).lower())), None)
    if mode is None or mode not in known:
        has = ", ".join(f"{m} ({mode_title(m, spec)})" for m in known)
        why = f"{spec} has no such mode" if mode is None else f"not measured under {spec}"
        raise SettingError("mode", wanted, f"{why}; its costs are of {has}")
    return mode
