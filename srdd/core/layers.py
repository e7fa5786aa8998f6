"""Layers as users write them: "0-3,29", and zones to compare by: "0-3,4-9", or thirds of the depth.

Not here: zones found from the data (srdd.analysis.zones). Two reports are compared zone by zone, so their zones must
not depend on what the data say.

Worked number: thirds of layers 0 to 9 are early 0-2, middle 3-6, late 7-9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from srdd.errors import SettingError

_MOST_LAYERS = 100_000  # a typing slip such as 0-99999999999 must not fill the memory
_DIGITS = len(str(_MOST_LAYERS))


class Span(NamedTuple):
    """Layers `first` to `last`, both included, and how they were written."""

    text: str
    first: int
    last: int

    @property
    def layers(self) -> range:
        return range(self.first, self.last + 1)


def parse_spans(text: str, name: str = "layers", expected: str = "numbers and ranges such as 0-3,29") -> list[Span]:
    """ "0-3,29" -> the spans 0-3 and 29, as given. Raises SettingError, which calls the setting `name`."""
    spans = []
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise SettingError(name, repr(text), f"{part.strip()!r} not understood; expected {expected}")
        start, end = _number(first), _number(last if dash else first)
        if not start <= end < _MOST_LAYERS:
            raise SettingError(name, repr(text), f"{part.strip()} is no range of layers; expected {expected}")
        spans.append(Span(part.strip(), start, end))
    return spans


def _number(digits: str) -> int:
    """Python refuses to read numbers of thousands of digits; none of them is a layer."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _DIGITS else _MOST_LAYERS


def parse_layers(text: str, name: str = "layers") -> tuple[int, ...]:
    """ "0-3,29" -> (0, 1, 2, 3, 29), ascending, each once. Raises SettingError as `parse_spans`."""
    return tuple(sorted({layer for part in parse_spans(text, name) for layer in part.layers}))


def parse_zones(text: str, name: str = "zones") -> dict[str, list[int]]:
    """ "0-3,4-9" -> {"0-3": [0, 1, 2, 3], "4-9": [4, ..., 9]}. Raises SettingError when two zones overlap."""
    zones: dict[str, list[int]] = {}
    seen: set[int] = set()
    for part in parse_spans(text, name, "spans such as 0-3,4-9"):
        twice = sorted(seen.intersection(part.layers))
        if twice:
            raise SettingError(name, repr(text), f"layer(s) {span(twice)} are in two zones")
        seen.update(part.layers)
        zones[span(part.layers)] = list(part.layers)
    return zones


def thirds(layers: Sequence[int]) -> dict[str, list[int]]:
    """Early, middle and late thirds of the layers that were measured; fewer than three layers make fewer zones."""
    count = len(layers)
    cuts = [0, round(count / 3), round(2 * count / 3), count]
    names = ("early", "middle", "late")
    return {name: list(layers[cuts[i] : cuts[i + 1]]) for i, name in enumerate(names) if cuts[i] < cuts[i + 1]}


def span(layers: Sequence[int]) -> str:
    """[0, 1, 2, 5] as "0-2,5"."""
    texts, start = [], 0
    for i in range(1, len(layers) + 1):
        if i == len(layers) or layers[i] != layers[i - 1] + 1:
            texts.append(str(layers[start]) if i - start == 1 else f"{layers[start]}-{layers[i - 1]}")
            start = i
    return ",".join(texts)
