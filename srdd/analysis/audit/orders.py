"""What a permutation of rows is called: halves swapped, interleaved, shifted, or which rows changed places.

Not here: finding it (srdd.runs.audit.matching).

Worked number: rows 0 2 4 1 3 5 of the reference in the packed weight: even rows first, as interleaved gate and up
rows are laid one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_NAMED = 3  # rows in a sentence

# name -> the row of the reference that is at each of n places
_KNOWN: dict[str, Callable[[int], list[int]]] = {
    "the two halves swapped": lambda n: [*range(n // 2, n), *range(n // 2)],
    "even rows first, then odd ones (interleaved in the reference)": lambda n: [*range(0, n, 2), *range(1, n, 2)],
    "its halves interleaved (one after the other in the reference)": lambda n: [
        row for pair in zip(range(n // 2), range(n // 2, n), strict=True) for row in pair
    ],
    "in reverse": lambda n: list(reversed(range(n))),
}


def named(order: Sequence[int | None]) -> str:
    """A permutation in words. A None is a row that nothing in the reference fits."""
    rows = len(order)
    if None not in order:
        whole = [row for row in order if row is not None]
        for size in (rows, *(d for d in range(rows // 2, 3, -1) if rows % d == 0)):
            for called, make in _KNOWN.items():
                if size % 2 == 0 and _by_blocks(whole, make(size)):
                    return called if size == rows else f"in each {size} rows, {called}"
        shift = whole[0]
        if whole == [(row + shift) % rows for row in range(rows)]:
            return f"shifted by {shift}"
    moved = [(at, row) for at, row in enumerate(order) if row is not None and row != at]
    told = ", ".join(f"row {at} is its row {row}" for at, row in moved[:_NAMED])
    return f"{len(moved)} of {rows} rows in other places: {told}" + (", ..." if len(moved) > _NAMED else "")


def _by_blocks(order: Sequence[int], pattern: Sequence[int]) -> bool:
    size = len(pattern)
    return all(row == at - at % size + pattern[at % size] for at, row in enumerate(order))
