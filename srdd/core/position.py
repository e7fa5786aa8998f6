"""How far an SQNR moves with nothing but the place of its largest values between two powers of two.

Multiply a tensor by 1.05 and nothing of substance changes; but a massive value that lay on the grid now lies between
two of its points, and in a ratio of sums that value alone may carry the noise. The swing says by how much `sqnr_db` can
move so: between no error of the largest value of every sequence and the largest that rounding to nearest can make.

Costs are rolled anew by it as well: a few products of large values carry them, and each is rounded another way. By how
much is measured (benchmarks/cost_scatter.py): no sum of a report tells it.

Not here: the SQNR itself (metrics.py) and medians over blocks, which do not swing (blocks.py).

Worked number: E2M1 has at most half a gap in a value, 0.2 of it (2.5 becomes 2). A value of 100 among noise of power
100 adds 0 to 400: the swing is 10 log10(500 / 100) = 7 dB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from srdd.core.formats import BlockFormat, Scale
from srdd.core.tally import Tally


def swing_db(tallies: Sequence[Tally], fmt: BlockFormat) -> float:
    """From the tallies of single sequences, or of a weight; nan of nothing, inf where all noise is theirs."""
    noise = math.fsum(tally.sum_e2 for tally in tallies)
    if noise <= 0:
        return math.nan
    most = math.fsum((_largest_relative_error(fmt) * tally.max_abs_x) ** 2 for tally in tallies)
    # what these values make now lies in the noisiest block of each sequence, if they matter at all
    theirs = math.fsum(min(_of_worst(tally), tally.sum_e2) for tally in tallies)
    rest = noise - min(theirs, most)
    return 10 * math.log10((rest + most) / rest) if rest > 0 else math.inf


# Standard deviation of a cost over its size, when the residual stream of SmolLM2 is multiplied by 1.05 to 1.6: of the
# predicted KL of single layers and Linears, and of the measured KL of the whole model, by mode. A scale that is a power
# of two stays where it is while values move; one of E4M3 or float32 follows them.
_POWERS: dict[str, tuple[float, float]] = {"weight": (0.40, 0.16), "input": (0.06, 0.06), "both": (0.33, 0.06)}
_OTHERS = (0.03, 0.03)


def cost_scatter(fmt: BlockFormat, mode: str, *, whole: bool) -> float:
    """The share of a cost by which it moves with the place of values between two powers of two."""
    of_parts, of_whole = _POWERS[mode] if fmt.scale is Scale.E8M0 else _OTHERS
    return of_whole if whole else of_parts


def _largest_relative_error(fmt: BlockFormat) -> float:
    """Half a gap over the midpoint just above a power of two: the most that rounding to nearest does to a value."""
    half_gap: float = 2.0 ** -(fmt.element.mantissa_bits + 1)
    return half_gap / (1 + half_gap)


def _of_worst(tally: Tally) -> float:
    return tally.blocks.worst[0] if tally.blocks.worst else tally.max_abs_e**2
