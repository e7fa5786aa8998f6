"""Units of uncertainty: which calibration sequences stand or fall together.

Neighbouring sequences of one document are alike, so that each of them tells less than a sequence of another text: the
document is the unit. A sequence that holds pieces of several documents belongs to the one most of its tokens come from.
A single document is cut into blocks of neighbouring sequences, eight or as many as there are sequences; what such
blocks tell is too little even of other parts of this document, and nothing of other texts, but more than no error does.

Not here: the errors (uncertainty.py). Where documents are not known every sequence is a unit of its own.

Worked number: sequences of the documents a, a, b, c are the units 0, 0, 1, 2; ten sequences of one document are the
units 0, 0, 1, 2, 3, 4, 4, 5, 6, 7 (two standard errors of eight units cover 91 % of a t distribution, of six 90 %).
"""

from __future__ import annotations

from collections.abc import Sequence

ENOUGH = 8  # units: with fewer, two standard errors cover less than nine tenths


def units_of(documents: Sequence[str], offsets: Sequence[int]) -> tuple[int, ...]:
    """The unit of every sequence, numbered from 0 by first appearance.

    `documents` names the document of every sequence, `offsets` tells where in it the sequence begins.
    """
    if len(set(documents)) == 1:
        order = sorted(range(len(offsets)), key=offsets.__getitem__)
        blocks = [0] * len(order)
        for rank, place in enumerate(order):
            blocks[place] = rank * min(ENOUGH, len(order)) // len(order)
        return _numbered(blocks)
    return _numbered(documents)


def _numbered(names: Sequence[object]) -> tuple[int, ...]:
    numbers: dict[object, int] = {}
    return tuple(numbers.setdefault(name, len(numbers)) for name in names)
