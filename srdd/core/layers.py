"""Layers as a user writes them, "0-3,29", and zones for comparing: "0-3,4-9", or thirds of the depth.

Not here: zones found from data (zones.py); two reports need the same zones, whatever their data say.
Worked number: thirds of layers 0 to 9 are early 0-2, middle 3-6, late 7-9.
"""

from __future__ import annotations

from collections.abc import Sequence

from srdd.errors import OptionError, SiteError

_MOST_LAYERS = 100_000  # a typing slip such as 0-99999999999 must not fill the memory


def layer_numbers(text: str, option: str) -> list[int]:
    """ "0-3,29" -> [0, 1, 2, 3, 29]. Raises OptionError that names `option`."""
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise OptionError(f"{option} {text!r} not understood; expected numbers and ranges such as 0-3,29")
        start, end = int(first), int(last if dash else first)
        if not start <= end < _MOST_LAYERS:
            raise OptionError(f"{option} {text!r}: {part.strip()} is no range of layers")
        chosen.update(range(start, end + 1))
    return sorted(chosen)


def parse_zones(text: str) -> dict[str, list[int]]:
    """ "0-3,4-9" -> {"0-3": [0, 1, 2, 3], "4-9": [4, ..., 9]}. Raises OptionError when two zones overlap."""
    zones: dict[str, list[int]] = {}
    seen: set[int] = set()
    for part in text.split(","):
        layers = layer_numbers(part, "--zones")
        if seen & set(layers):
            raise OptionError(f"--zones {text!r}: layer(s) {span(sorted(seen & set(layers)))} are in two zones")
        seen.update(layers)
        zones[span(layers)] = layers
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


def parse_layers(text: str) -> tuple[int, ...]:
    """ "0-3,29" -> (0, 1, 2, 3, 29). Raises SiteError when it is no such list."""
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise SiteError(f"layers {text!r} not understood; expected numbers and ranges such as 0-3,29")
        chosen.update(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(chosen))
