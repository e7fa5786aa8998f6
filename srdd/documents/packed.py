"""A number's values with each unit of text left out, as a short word: what pairs two reports, in one character a unit.

The first character is the step, a power of the root of two, the others are how many steps each value lies from the
middle of all, -45 to 45. Only differences from the middle decide a standard error, so the middle is not kept. Words
hold no space, no quote and no backslash, so that many stand in one JSON string.

Words of one length stand side by side, others with spaces between, where "=" repeats the one before.

Not here: the numbers themselves (baseline.py) and the errors (srdd.core.uncertainty).

Worked number: 0.1, 0.3 and 0.2 have the middle 0.2 and the step 2^-8.5 = 0.00276, so 0.1 lies 36 steps below. With 16
units rounding to a step adds, squared, at most 4 % of the number's own standard error to the error of a difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_CHARACTERS = "".join(chr(code) for code in range(33, 127) if chr(code) not in '"\\')
_NUMBER = {character: number for number, character in enumerate(_CHARACTERS)}
_MOST = 45  # steps to either side
_STEP_OF_1 = 70  # the number of the step 2^0
_COARSEST = len(_CHARACTERS) - 1


def pack(values: Sequence[float], least: float = 0.0) -> str:
    """The word of some finite values; "" of none, and where one of them is not finite.

    Differences below `least` are none.
    """
    if not values or not all(map(math.isfinite, values)):
        return ""
    middle = math.fsum(values) / len(values)
    most = max(abs(value - middle) for value in values)
    unseen = most <= max(least, _step(0) / 2)
    number = 0 if unseen else math.ceil(2 * math.log2(most / _MOST)) + _STEP_OF_1
    number = min(max(number, 0), _COARSEST)
    step = _step(number)
    steps = (0 if unseen else min(max(round((value - middle) / step), -_MOST), _MOST) for value in values)
    return _CHARACTERS[number] + "".join(_CHARACTERS[_MOST + at] for at in steps)


def unpack(word: str, middle: float) -> list[float]:
    """The values around a middle. Raises ValueError for a word that `pack` does not write."""
    try:
        number, *steps = (_NUMBER[character] for character in word)
    except (KeyError, ValueError):
        raise ValueError(f"{word!r} is no packed word") from None
    if not steps or max(steps) > 2 * _MOST:
        raise ValueError(f"{word!r} is no packed word")
    step = _step(number)
    return [middle + (at - _MOST) * step for at in steps]


def join(words: Sequence[str]) -> str:
    """One text of many words."""
    same = [place > 0 and len(word) > 1 and word == words[place - 1] for place, word in enumerate(words)]
    apart = " ".join("=" if repeats else word for word, repeats in zip(words, same, strict=True))
    side_by_side = "".join(words)
    alike = len({len(word) for word in words}) == 1 and len(words[0]) > 1
    return side_by_side if alike and len(side_by_side) <= len(apart) else apart


def split(text: str, count: int) -> list[str]:
    """The words of a text. Raises ValueError unless they are `count`."""
    if count > 1 and " " not in text:
        size = len(text) // count
        words = [text[start : start + size] for start in range(0, size * count, size)] if size > 1 else []
        if len(text) != size * count:
            words = []
    else:
        words = text.split(" ")
    if len(words) != count:
        raise ValueError(f"no packed words of {count} sites")
    for place, word in enumerate(words):
        if word == "=" and place > 0:
            words[place] = words[place - 1]
    return words


def _step(number: int) -> float:
    return float(2.0 ** ((number - _STEP_OF_1) / 2))
