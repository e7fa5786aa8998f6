"""What one config says: which formats it names, and which of them a module has.

Not here: reading configs (the files beside this one).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

PLAIN = "plain"  # a module that the config leaves out


def nothing(module: str) -> str | None:
    """Says nothing of any module."""
    return None


@dataclass(frozen=True)
class Claims:
    """`of` gives a module's format, PLAIN, or None where nothing is said of it."""

    method: str  # quant_method
    file: str  # where it stands
    named: frozenset[str] = frozenset()  # formats: NVFP4, MXFP4, MXFP6 E2M3, MXFP8, FP8, INT
    of: Callable[[str], str | None] = nothing
    tiles: tuple[tuple[int, int], ...] = ()
