"""Numbers that stochastic rounding draws: their value with each draw, and how far it moves them.

The spread is the standard deviation over draws. It is not the standard error over sequences, which stands beside it:
more text does not make a draw any surer, and more draws tell nothing of other text. The mean over D draws is sure to
spread / sqrt(D). Formats that round to nearest have neither, and their documents do not mention them.

Not here: drawing (srdd.models.quantizer), and means over draws (mean_of_draws.py).

Worked number: KLs of 0.10, 0.12, 0.11 and 0.11 with four draws: 0.11, spread 0.0082.
"""

from __future__ import annotations

from statistics import stdev
from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from srdd.documents.parts import Part


class Drawn(Part):
    """A number that may be drawn."""

    draws: list[float] | None = None  # its value with each draw; None: nothing is drawn
    spread: float | None = None  # standard deviation over draws, from two on

    @model_validator(mode="before")
    @classmethod
    def _of_its_draws(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("draws"):
            return {**data, "spread": stdev(data["draws"]) if len(data["draws"]) > 1 else None}
        return data

    @model_serializer(mode="wrap")
    def _without_draws(self, dumped: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]  # Any hides fields
        found: dict[str, Any] = dumped(self)
        if self.draws is None:
            for name in ("draws", "spread"):
                found.pop(name, None)
        return found
