"""Measurements as the columns of the page's data, one entry per row.

Not here: which rows (page_sites.py). None: no number; "exact": infinite, which JSON has no number for.

Worked number: 3.0 is written 3, nan is None, infinity is "exact".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from srdd.core.metrics import MAIN, RANKED
from srdd.documents.schema import Measurement

Number = float | int | str | None


def number(value: float) -> Number:
    """A number as JSON holds it: None for none, a word for an infinite one, whole numbers without a fraction."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "exact" if value > 0 else "-inf"
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def columns(measured: Sequence[dict[str, Measurement]], spec: str) -> dict[str, list[Number]]:
    columns = {name: [value_of(formats.get(spec), name) for formats in measured] for name in RANKED}
    return {name: column for name, column in columns.items() if any(value is not None for value in column)}


def error_columns(measured: Sequence[dict[str, Measurement]], spec: str) -> dict[str, list[Number]]:
    columns = {name: [error_of(formats.get(spec), name) for formats in measured] for name in MAIN}
    return {name: column for name, column in columns.items() if any(value is not None for value in column)}


def tallies(measured: Sequence[dict[str, Measurement]], spec: str) -> list[list[Number] | None]:
    rows = [m.tally if (m := formats.get(spec)) is not None else None for formats in measured]
    return [[number(value) for value in row] if row is not None else None for row in rows]


def value_of(measured: Measurement | None, name: str) -> Number:
    return None if measured is None else number(measured.value(name))


def error_of(measured: Measurement | None, name: str) -> Number:
    return None if measured is None or not measured.sequences else number(measured.error(name))
