"""What a cost is called: free, small, noticeable or too much, by limits that are stated here.

Not here: verdicts of error statistics (srdd.core.verdicts).

Worked number: 1.43 ± 0.11 nats a token are too much, and firmly so; 0.19 ± 0.02 are noticeable, and 0.23 would not be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from srdd.core.formats import bits_per_value
from srdd.documents.costs import WholeCost

Word = Literal["free", "small", "noticeable", "too much"]
# KL in nats a token, up to which a format is called so. It is the rise of the loss on text that the model writes
# itself, and a nat multiplies the perplexity by e: 0.01 is 1 %, 0.05 is 5 %, 0.2 is 22 %. A choice; agreement mostly
# tells the same in another unit, so it is shown and takes no part.
LIMITS: dict[Word, float] = {"free": 0.01, "small": 0.05, "noticeable": 0.2}
FIRM = 2.0  # standard errors
IDENTITY = "identity"  # the control, which changes nothing


@dataclass(frozen=True)
class Verdict:
    """One format in one mode, the whole model."""

    row: WholeCost
    bits: float | None
    word: Word
    firm: bool  # the same word two standard errors up and down


def word_of(kl: float) -> Word:
    """What a KL is called."""
    return next((word for word, limit in LIMITS.items() if kl <= limit), "too much")


def verdict_of(row: WholeCost) -> Verdict:
    """The verdict on one format in one mode."""
    off = FIRM * (row.kl.error or 0.0)
    firm = word_of(row.kl.value - off) == word_of(row.kl.value + off)
    return Verdict(row, bits_per_value(row.format), word_of(row.kl.value), firm)
