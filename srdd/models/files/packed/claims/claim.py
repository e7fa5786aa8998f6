"""What one config says: which formats it names, and which of them a module has.

Not here: reading configs (the files beside this one).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

PLAIN = "plain"  # a module that the config leaves out


def left_out(entries: Iterable[object]) -> Callable[[str], bool]:
    """Whether a list of names and shell patterns holds a module; names, of which there may be hundreds, in one look."""
    names = frozenset(map(str, entries))
    patterns = [entry for entry in names if any(sign in entry for sign in "*?[")]
    return lambda module: module in names or any(fnmatchcase(module, pattern) for pattern in patterns)


def nothing(module: str) -> str | None:
    """Says nothing of any module."""
    return None


def tile(rows: object, columns: object) -> tuple[int, int]:
    """How many rows and columns share a scale. Raises ValueError for what is no size."""
    high, wide = int(str(rows)), int(str(columns))
    if min(high, wide) < 1:
        raise ValueError(f"blocks of {high} x {wide}")
    return high, wide


@dataclass(frozen=True)
class Claims:
    """`of` gives a module's format, PLAIN, or None where nothing is said of it."""

    method: str  # quant_method
    file: str  # where it stands
    named: frozenset[str] = frozenset()  # formats: NVFP4, MXFP4, MXFP6 E2M3, MXFP8, FP8, INT
    of: Callable[[str], str | None] = nothing
    tiles: tuple[tuple[int, int], ...] = ()
