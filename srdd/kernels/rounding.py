"""Rounds magnitudes to an element's grid, to nearest or stochastically: branch-free, for eager and compiled use.

Not here: scales (scales.py) and signs, which the caller keeps.

Two facts make this fast where the reference is slow:

 - Adding and subtracting 1.5 * 2^23 gaps rounds to a multiple of the gap, ties to even.
 - The power of two below y needs no log2 and no bit cast (compilers turn a cast inside a loop into a trip through
   memory): with u = 2^24 * y, the sum u + 1.5 * y lies between 1/2 and 3/2 of u's spacing above u, so
   (u + 1.5 * y) - u is 2^(floor(log2 y) + 1), exactly.

Worked number: 2.5 on E2M1 lies between 2 and 4, where the gap is 1: 12582912 + 2.5 is 12582914 (a tie, to even), less
12582912 is 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from srdd.core.formats import BlockFormat, Element, Scale


def round_to(y: Tensor, x: Tensor, fmt: BlockFormat, noise: Tensor | None) -> Tensor:
    """Magnitudes y = x / scale on the element's grid. Clamping first equals clamping last, and cannot overflow."""
    largest = fmt.element.max
    a = torch.where(y > largest, largest, y)  # half the cost of clamp, which checks for NaN
    if noise is None:
        return nearest(a, fmt.element)
    if fmt.scale is Scale.E8M0:  # an exact y may lie below float32's range; a noise of 0 must still round it up
        a = torch.where(x > 0, a.clamp(min=2.0**-149), a)
    gap = _twice_binade(a, fmt.element) * 2.0 ** (-1 - fmt.element.mantissa_bits)
    near = nearest(a, fmt.element)
    below = near - torch.where(near > a, gap, 0.0)
    up = noise * gap < a - below
    return (below + torch.where(up, gap, 0.0)).clamp(max=largest)


def nearest(a: Tensor, element: Element) -> Tensor:
    """Magnitudes a <= max on the grid: adding 1.5 * 2^23 gaps drops all bits below the gap; then subtract them."""
    if element.emax - element.emin > 2:
        magic = _twice_binade(a, element) * _magic(-1, element)
    else:  # at most two comparisons, cheaper than the power of two: 12 % of a whole mxfp4 tally
        magic = torch.full_like(a, _magic(element.emin, element))
        for exponent in range(element.emin + 1, element.emax + 1):
            magic = torch.where(a < 2.0**exponent, magic, _magic(exponent, element))
    return (a + magic) - magic


def _magic(exponent: int, element: Element) -> float:
    """1.5 * 2^23 gaps of numbers with this exponent; for -1, the factor that gives them from `_twice_binade`."""
    return 1.5 * 2.0 ** (23 + exponent - element.mantissa_bits)


def _twice_binade(a: Tensor, element: Element) -> Tensor:
    """2^(floor(log2 a) + 1), or 2^(emin + 1) where a is below 2^emin."""
    u = a * 2.0**24
    twice, least = (u + a * 1.5) - u, 2.0 ** (element.emin + 1)
    return torch.where(twice > least, twice, least)
