"""What single blocks are like: how many have which SQNR, which scale, and the one that makes the most noise.

A ratio of sums follows the few largest values; a median over blocks does not: multiply a tensor by 1.05 and the SQNR of
its sums may move by 3 dB, the median of its blocks by 0.1. Counts in bins add, so that they merge exactly.

Not here: sums over elements (tally.py), the metrics (metrics.py), and how blocks are counted (srdd.kernels).

A row of counts is stored as its first bin that is not empty, then counts up to the last: [85, 3, 0, 1] are three blocks
in bin 85 and one in bin 87. Worked number: SQNR 22.7 dB is in bin (22.7 + 20) / 0.5 = 85, which is 22.5 to 23 dB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Bins of a block's SQNR: 0.5 dB each from -20 dB, which only stochastic rounding goes below, and a last one for 100 dB
# and more, whose blocks count as exact: there float32 ends.
LOWEST_DB = -20.0
STEP_DB = 0.5
EXACT = 240
SQNR_BINS = EXACT + 1
# Bins of a block's scale: 0 for a scale that underflowed to zero, so that the block became zero (two-level scales
# only), then one for each power of two from 2^-149: 2^e <= scale < 2^(e + 1).
NO_SCALE = 0
EXPONENT_OF_0 = 150  # the bin of 2^0
SCALE_BINS = EXPONENT_OF_0 + 128

Counts = tuple[float, ...]


@dataclass(frozen=True)
class Blocks:
    """Blocks that hold a value other than 0 and none that is not finite; `a + b` merges."""

    sqnr: Counts = ()
    scales: Counts = ()
    worst: tuple[float, ...] = ()  # noise power of the block that has most of it, and its number in its tensor

    def __add__(self, other: Blocks) -> Blocks:
        if not isinstance(other, Blocks):
            return NotImplemented
        return Blocks(
            added(self.sqnr, other.sqnr),
            added(self.scales, other.scales),
            worst_of((self.worst, other.worst)),
        )

    @classmethod
    def from_dense(cls, row: Sequence[float]) -> Blocks:
        """From the columns that a kernel adds to its sums: SQNR_BINS, SCALE_BINS, noise power and number."""
        scales, worst = row[SQNR_BINS:-2], tuple(map(float, row[-2:]))
        return cls(compact(row[:SQNR_BINS]), compact(scales), worst if worst[0] > 0 else ())

    @property
    def count(self) -> float:
        return sum(self.sqnr[1:])

    @property
    def zeroed(self) -> float:
        """Blocks that became zero because their scale did."""
        return self.scales[1] if self.scales and self.scales[0] == NO_SCALE else 0.0

    def sqnr_db(self, share: float) -> float:
        """The SQNR that `share` of the blocks stay below, linear inside a bin; inf among exact blocks, nan of none."""
        wanted, before = share * self.count, 0.0
        for place, count in enumerate(self.sqnr[1:]):
            if count and before + count >= wanted:
                bin_ = self.sqnr[0] + place
                return math.inf if bin_ == EXACT else LOWEST_DB + STEP_DB * (bin_ + (wanted - before) / count)
            before += count
        return math.nan


def without(whole: Blocks, part: Blocks) -> Blocks:
    """The counts that remain when a part is taken away that is in them; which block is the worst then is not known."""
    return Blocks(taken_away(whole.sqnr, part.sqnr), taken_away(whole.scales, part.scales))


DENSE = SQNR_BINS + SCALE_BINS + 2  # columns of `Blocks.from_dense`


def compact(row: Sequence[float]) -> Counts:
    """Counts without the empty bins at both ends, led by the number of the first."""
    filled = [place for place, count in enumerate(row) if count]
    return (float(filled[0]), *map(float, row[filled[0] : filled[-1] + 1])) if filled else ()


def added(a: Counts, b: Counts) -> Counts:
    """Two compact rows as one."""
    if not a or not b:
        return a or b
    first = min(a[0], b[0])
    total = [0.0] * int(max(a[0] + len(a), b[0] + len(b)) - 1 - first)
    for row in (a, b):
        for place, count in enumerate(row[1:], int(row[0] - first)):
            total[place] += count
    return (first, *total)


def worst_of(blocks: Sequence[Sequence[float]]) -> Counts:
    """The noisiest of several: its noise power and number; () of none."""
    noisiest: Sequence[float] = max(blocks, key=lambda worst: worst[0] if worst else -1.0, default=())
    return tuple(noisiest)


def all_added(rows: Sequence[Sequence[float]]) -> Counts:
    """Many compact rows as one, at a third of the time of `added` row by row."""
    filled = [row for row in rows if row]
    if len(filled) < 2:
        return tuple(filled[0]) if filled else ()
    first = min(row[0] for row in filled)
    width = int(max(row[0] + len(row) for row in filled) - 1 - first)
    padded = []
    for row in filled:
        before = int(row[0] - first)
        padded.append((*(0.0,) * before, *row[1:], *(0.0,) * (width - before - len(row) + 1)))
    return (first, *map(sum, zip(*padded, strict=True)))


def taken_away(whole: Counts, part: Counts) -> Counts:
    """A compact row without one that was added to it: exact, since counts are whole numbers."""
    if not part:
        return whole
    left = list(whole[1:])
    for place, count in enumerate(part[1:], int(part[0] - whole[0])):
        left[place] -= count
    row = compact(left)
    return (row[0] + whole[0], *row[1:]) if row else ()


def block_number(row: int, columns: int, block: tuple[int, int]) -> int:
    """The number of the first block of a row, where blocks begin."""
    return -(-row // block[0]) * -(-columns // block[1])


def block_place(number: int, columns: int, block: tuple[int, int]) -> tuple[int, int]:
    """Row and column where block `number` begins, in a tensor of `columns` columns, rows numbered through."""
    across = -(-columns // block[1])
    return number // across * block[0], number % across * block[1]
