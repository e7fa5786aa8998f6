"""Tally: the sums one site and one format leave behind, from which every metric follows.

A tally is one float64 vector, so it can be added on any device, stored in a report and merged exactly: counts stay
exact below 2^53. Throughout e = q - x.

Not here: metrics, the ratios and decibels that follow (metrics.py).

Worked number: x = [1, -3, 0.1, 0] in one mxfp4:floor block (scale 2^-1) gives q = [1, -3, 0, 0], hence n 4, nonzero 3,
deadzone 1, at_max 1 (|-3| is 6 * 2^-1), sum_x2 10.01, sum_e2 0.01, sum_rel 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter

from srdd.core.blocks import DENSE, Blocks

NO_BLOCKS = Blocks()


@dataclass(frozen=True)
class Tally:
    """Sums over the elements measured; `a + b` merges, `Tally()` is empty, `sum(tallies, Tally())` works.

    Every field adds, except those called max_*, which take the larger. Elements of a block that holds a NaN or an
    infinity are in `excluded` and in nothing else, so that the ratios stay those of the data that can be quantized.
    """

    n: float = 0.0  # elements measured (excluded ones and padding are not)
    nonzero: float = 0.0  # x != 0
    deadzone: float = 0.0  # x != 0 and q == 0
    clipped: float = 0.0  # |x| beyond the largest value its block can hold
    at_max: float = 0.0  # |q| is the largest value its block can hold
    nonfinite: float = 0.0  # NaN or infinite x
    excluded: float = 0.0  # elements of blocks that hold such an x
    sum_x: float = 0.0
    sum_x2: float = 0.0
    sum_x4: float = 0.0
    sum_e: float = 0.0
    sum_e2: float = 0.0
    sum_e2_clipped: float = 0.0  # share of sum_e2 from clipped elements
    sum_e2_deadzone: float = 0.0  # share of sum_e2 from deadzone elements; the rest is rounding
    sum_abs_x: float = 0.0
    sum_abs_e: float = 0.0
    sum_rel: float = 0.0  # |e| / |x| over nonzero x
    sum_q2: float = 0.0
    sum_xq: float = 0.0
    max_abs_x: float = 0.0
    max_abs_e: float = 0.0
    zero_scale: float = 0.0  # nonzero x in blocks whose scale underflowed to zero (two-level scales only)
    blocks: Blocks = field(
        default=NO_BLOCKS, kw_only=True
    )  # counts of single blocks; empty where nobody counted, as in older reports

    def __add__(self, other: Tally) -> Tally:
        if not isinstance(other, Tally):
            return NotImplemented
        pairs = zip(self.vector(), other.vector(), IS_MAX, strict=True)
        return Tally(*(max(a, b) if is_max else a + b for a, b, is_max in pairs), blocks=self.blocks + other.blocks)

    def vector(self) -> list[float]:
        """The sums in the order of `FIELDS`."""
        return list(_fields_of(self))

    @classmethod
    def from_vector(cls, vector: Sequence[float], blocks: Blocks = NO_BLOCKS) -> Tally:
        """From the sums in the order of `FIELDS`, or from what a kernel returns: with the counts of blocks after them.

        Raises ValueError when the length is neither.
        """
        if len(vector) == WIDTH:
            return cls(*map(float, vector[: len(FIELDS)]), blocks=Blocks.from_dense(vector[len(FIELDS) :]))
        if len(vector) != len(FIELDS):
            raise ValueError(f"expected {len(FIELDS)} sums, found {len(vector)}")
        return cls(*map(float, vector), blocks=blocks)

    @classmethod
    def from_mapping(cls, values: Mapping[str, float]) -> Tally:
        """From named sums, as a report stores them. Raises ValueError for a missing or unknown name."""
        if set(values) != set(FIELDS):
            missing, unknown = sorted(set(FIELDS) - set(values)), sorted(set(values) - set(FIELDS))
            raise ValueError(f"tally fields do not match: missing {missing}, unknown {unknown}")
        return cls.from_vector([values[name] for name in FIELDS])

    @property
    def is_finite(self) -> bool:
        return all(math.isfinite(value) for value in self.vector())


FIELDS: tuple[str, ...] = tuple(row.name for row in fields(Tally) if row.name != "blocks")
WIDTH = len(FIELDS) + DENSE  # of what a kernel returns: FIELDS, then the columns of `Blocks.from_dense`
_fields_of = attrgetter(*FIELDS)
IS_MAX: tuple[bool, ...] = tuple(name.startswith("max_") for name in FIELDS)
