"""The block that makes the most noise at a site, where it lies, and how far the SQNR moves by nothing but position.

Not here: the counts (srdd.core.blocks), the swing itself (srdd.core.position), tables.

Worked number: mxfp4 and a weight of 576 columns have 18 blocks in a row, so block 40 begins in row 2 at column 128.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from srdd.core.blocks import block_place
from srdd.core.formats import parse, parse_measured
from srdd.core.position import swing_db
from srdd.documents.schema import Measurement, Site
from srdd.errors import FormatError


@dataclass(frozen=True)
class NoisiestBlock:
    """Where it begins: `row` is a row of a weight or expert, or a token; `column` an input or a channel."""

    share: float  # of the noise of the whole site
    row: int
    column: int
    last_column: int
    sequence: int | None = None  # of activations
    expert: int | None = None  # of fused experts

    @property
    def text(self) -> str:
        """ "sequence 3, token 0, channels 320-351", "row 7, columns 64-95"."""
        above = (("sequence", self.sequence), ("expert", self.expert))
        places = [f"{name} {number}" for name, number in above if number is not None]
        row, columns = ("row", "columns") if self.sequence is None else ("token", "channels")
        return ", ".join([*places, f"{row} {self.row}", f"{columns} {self.column}-{self.last_column}"])


def noisiest_block(site: Site, spec: str) -> NoisiestBlock | None:
    """None where no block was counted or none has noise, and where rows were routed, so that they are of no token."""
    measured = site.formats.get(spec)
    if measured is None or measured.blocks is None or not site.shape or (site.kind == "input" and _is_routed(site)):
        return None
    block = parse_measured(spec).block
    parts = measured.per_sequence() if measured.sequences else [measured.merged()]
    known = [(part.blocks.worst, place) for place, part in enumerate(parts) if part.blocks.worst]
    if not known:
        return None
    (power, number), sequence = max(known, key=lambda one: one[0][0])
    columns = site.shape[-2] if site.transposed else site.shape[-1]
    row, column = block_place(int(number), columns, block)
    expert = None
    if len(site.shape) == 3:
        expert, row = divmod(row, site.shape[-1] if site.transposed else site.shape[-2])
    share = power / noise if (noise := measured.merged().sum_e2) > 0 else math.nan
    last = min(column + block[1], columns) - 1
    return NoisiestBlock(share, row, column, last, sequence if measured.sequences else None, expert)


def sqnr_swing_db(measured: Measurement, spec: str) -> float:
    """How far `sqnr_db` can move with the place of the largest values between powers of two; nan where not known."""
    if measured.tally is None:
        return math.nan
    try:
        fmt = parse(spec)
    except FormatError:  # of a newer srdd
        return math.nan
    return swing_db(measured.per_sequence() or [measured.merged()], fmt)


def _is_routed(site: Site) -> bool:
    return site.role == "experts" or ".experts." in f"{site.name}."
