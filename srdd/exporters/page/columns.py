"""Measurements as the columns of the page's data, one entry per row; a column without any number is left out.

None stands for no number, "exact" for an infinite one, which JSON cannot write.

Not here: which rows (sites.py, and the layers in data.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from srdd.documents.schema import Measurement

Number = float | int | str | None
Columns = dict[str, list[Number]]


def value_columns(rows: Sequence[Measurement | None], names: Iterable[str]) -> Columns:
    """The named metrics of every row."""
    return _filled({name: [None if row is None else number(row.value(name)) for row in rows] for name in names})


def shared(columns: Mapping[str, Columns]) -> dict[str, dict[str, list[Number] | str]]:
    """By format; a column that an earlier format has to the last bit (what is of x alone) is that format's name."""
    made: dict[str, dict[str, list[Number] | str]] = {}
    for spec, mine in columns.items():
        made[spec] = {
            name: next((other for other in made if columns[other].get(name) == column), column)
            for name, column in mine.items()
        }
    return made


def error_columns(rows: Sequence[Measurement | None], names: Iterable[str]) -> Columns:
    """Their standard errors, where there are sequences to tell them from; six digits of what is good to two."""
    return _filled(
        {
            name: [
                None if row is None or not row.sequences else number(float(f"{row.error(name):.6g}")) for row in rows
            ]
            for name in names
        }
    )


def tallies(rows: Sequence[Measurement | None]) -> list[list[Number] | None]:
    """The sums of every row, in the order of FIELDS."""
    return [None if row is None or row.tally is None else [number(value) for value in row.tally] for row in rows]


def number(value: float) -> Number:
    """A number as JSON holds it: None for none, a word for an infinite one, whole numbers without a fraction."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "exact" if value > 0 else "-inf"
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _filled(columns: Columns) -> Columns:
    return {name: column for name, column in columns.items() if any(value is not None for value in column)}
