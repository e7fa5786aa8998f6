"""One number of the costs: a mean over sequences or a ratio of sums, with its values by sequence and its error.

Not here: the rows that hold such numbers (costs.py); they tell each which of its sequences are of one document.

Worked number: 0.1 and 0.3 of one document, 0.5 of another: 0.3, without the first 0.5, without the second 0.2, hence
0.3 ± 0.15.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

from pydantic import Field, model_validator

from srdd.core.uncertainty import by_unit, jackknife, mean_and_error, sums_by_unit
from srdd.documents.drawn import Drawn


class Cost(Drawn):
    """A mean over sequences and its standard error over units of text (None with fewer than two)."""

    value: float
    error: float | None = None
    sequences: list[float] | None = None  # None: version 1 kept none, so there is nothing to merge or pair
    # The unit of uncertainty of every sequence, which `Costs` knows; None: each is its own
    unit_of: tuple[int, ...] | None = Field(default=None, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _of_its_sequences(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not _numbers(data.get("sequences")):
            return data
        try:
            units = by_unit(data["sequences"], data.get("unit_of"))
            return {**data, "value": fmean(data["sequences"]), "error": _known(mean_and_error(units)[1])}
        except OverflowError:
            raise ValueError("sequences have no mean, they are too large") from None

    @classmethod
    def of(cls, sequences: list[float], unit_of: tuple[int, ...] | None = None) -> Cost:
        """From one value a sequence, at least one."""
        return cls.model_validate({"sequences": sequences, "unit_of": unit_of})

    def group(self, unit_of: tuple[int, ...] | None) -> None:
        """Let sequences that belong to one unit stand or fall together."""
        if self.sequences and unit_of != self.unit_of and len(unit_of or self.sequences) == len(self.sequences):
            self.unit_of, self.error = unit_of, Cost.of(self.sequences, unit_of).error

    @property
    def by_unit(self) -> list[float]:
        """One number per unit, whose mean and error are those of the cost; empty where sequences are not known.

        Sums and differences of them are those of costs on the same sequences: what is paired is paired by these.
        """
        return by_unit(self.sequences, self.unit_of) if self.sequences else []


class Ratio(Drawn):
    """sqrt(sum of `above` / sum of `below`), a relative error, with its jackknife error over units of text."""

    value: float
    error: float | None = None
    above: list[float] | None = None  # squared norms by sequence: of the error
    below: list[float] | None = None  # and of what it is an error of
    unit_of: tuple[int, ...] | None = Field(default=None, exclude=True)  # as of a Cost

    @model_validator(mode="before")
    @classmethod
    def _of_its_sequences(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not _numbers(data.get("above")) or not _numbers(data.get("below")):
            return data
        if len(data["above"]) != len(data["below"]):
            raise ValueError(f"{len(data['above'])} sequences above and {len(data['below'])} below")
        if min(*data["above"], *data["below"]) < 0 or math.isinf(sum(data["above"]) + sum(data["below"])):
            raise ValueError("squared norms are negative, or too large")
        above, below = (sums_by_unit(data[name], data.get("unit_of")) for name in ("above", "below"))
        without = [
            _root(math.fsum(above[:i]) + math.fsum(above[i + 1 :]), math.fsum(below[:i]) + math.fsum(below[i + 1 :]))
            for i in range(len(above))
        ]
        value = _root(math.fsum(above), math.fsum(below))
        return {**data, "value": value, "error": _known(jackknife(without))}

    @classmethod
    def of(cls, above: list[float], below: list[float], unit_of: tuple[int, ...] | None = None) -> Ratio:
        """From squared norms, one a sequence."""
        return cls.model_validate({"above": above, "below": below, "unit_of": unit_of})

    def group(self, unit_of: tuple[int, ...] | None) -> None:
        """Let sequences that belong to one unit stand or fall together."""
        if self.above and self.below and unit_of != self.unit_of and len(unit_of or self.above) == len(self.above):
            self.unit_of, self.error = unit_of, Ratio.of(self.above, self.below, unit_of).error


def _numbers(given: Any) -> bool:
    """False for what is missing, empty or no list of numbers, which pydantic says better."""
    return isinstance(given, list) and bool(given) and all(isinstance(value, int | float) for value in given)


def _known(error: float) -> float | None:
    return None if math.isnan(error) else error


def _root(above: float, below: float) -> float:
    return math.sqrt(above / below) if below > 0 else 0.0
