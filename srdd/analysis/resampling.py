"""How sure a cut is: whether the same search finds it again when the documents are drawn anew.

Documents of the calibration are drawn with replacement, the same for all layers because they come from the same text,
and every layer's number is computed anew from their sums (Efron and Tibshirani 1993, ch. 6). A cut counts as found
again when the search, which may as well find nothing, puts one within one layer of it.

Not here: the search (structure.py) and what share is called firm (zone_words.py).

Worked number: two documents are drawn as 00, 01, 10 or 11; a cut that only the first shows alone is found in 3 of 4.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from srdd.analysis.segmentation import cuts_of

DRAWS = 50
_SEED = 0

Search = Callable[[Sequence[float]], tuple[int, ...]]  # from a series to the places of its cuts


def draws(documents: Sequence[int]) -> list[list[int]]:
    """Indices of sequences, drawn by document; `documents[s]` is the document of sequence s."""
    units: dict[int, list[int]] = {}
    for sequence, document in enumerate(documents):
        units.setdefault(document, []).append(sequence)
    generator, known = random.Random(_SEED), list(units.values())
    return [[s for unit in generator.choices(known, k=len(known)) for s in unit] for _ in range(DRAWS)]


def redrawn(values: Sequence[float], errors: Sequence[float]) -> list[list[float]]:
    """Series as other samples might give them, where only each value's standard error is known.

    Values are redrawn from a normal distribution, each by itself. Those of one text rise and fall together, which moves
    no cut, so the shares of cuts kept come out too low rather than too high.
    """
    generator = random.Random(_SEED)
    pairs = list(zip(values, errors, strict=True))
    return [[generator.gauss(value, error) for value, error in pairs] for _ in range(DRAWS)]


def found_again(places: Sequence[int], samples: Sequence[Sequence[float]], search: Search) -> list[float]:
    """For each cut the share of samples in which the search puts one at most one place away."""
    found = [search(sample) for sample in samples]
    return [sum(any(abs(cut - place) <= 1 for cut in each) for each in found) / len(found) for place in places]


def kept_without_one(places: Sequence[int], values: Sequence[float]) -> list[float]:
    """For each cut the share of series with one value left out in which it still parts the same neighbours."""
    kept = [0] * len(places)
    for gone in range(len(values)):
        rest = [value for index, value in enumerate(values) if index != gone]
        cut_again = {place + (place >= gone) for place in cuts_of(rest, len(places) + 1)}
        for i, place in enumerate(places):
            # with its first value gone a run begins at the next one
            kept[i] += place in cut_again or (place == gone and place + 1 in cut_again)
    return [count / len(values) for count in kept]
