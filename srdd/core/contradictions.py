"""What the sums of any tally must satisfy, whatever was measured: a report whose sums break a line of it lies.

Each line holds for a single element or is an inequality of its sums (Cauchy-Schwarz, or a sum against its largest
term), so it holds for merged tallies as well. Lines that follow from others cost no time and are there for their words:
max_abs_x^2 <= sum_x2 leaves no room for a negative sum_x2.

Two slacks keep every true tally: `near` is five times what sums in float32 lose (srdd.kernels), and `tiny` what
underflows in them: squares of what is below 2^-63 of the largest magnitude near it. One true tally would be refused:
float32 values that are all exact in their format but for some below 2^-132, with nothing above 2^17.

Not here: metrics (metrics.py), and where tallies are opened (srdd.documents.contradictions).

Worked number: nonzero 100 and deadzone 120 say that more values became zero than were not zero.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from srdd.core.tally import FIELDS

_NAMES = {
    "near": 1 + 2.0**-15,
    "tiny": 2.0**-126,
    "largest": 2.0**128,  # beyond float32, in which everything is measured
    "exact": 2.0**53,  # counts are exact below it
    "most_relative": 2.0**181,  # that many, each of 2^128
}


@dataclass(frozen=True)
class Invariant:
    """One line: a formula that is true of every tally, and what is said of one of which it is not."""

    formula: str  # over the fields of a Tally and _NAMES
    said: str
    stochastic: bool = True  # False: stochastic rounding may break it, because it may round away from x
    codes: bool = True  # False: codes that somebody else chose may break it: they may be any, also where x is 0
    follows: bool = False  # from other lines

    @property
    def fields(self) -> tuple[str, ...]:
        """The sums it is about, in the order in which it names them."""
        return tuple(dict.fromkeys(name for name in re.findall(r"\w+", self.formula) if name in FIELDS))


_COUNTS = ("n", "nonzero", "deadzone", "clipped", "at_max", "nonfinite", "excluded", "zero_scale")

INVARIANTS: tuple[Invariant, ...] = (
    # counts
    *(
        Invariant(f"{name} >= 0", f"{name} is negative", follows=True)
        for name in ("n", "nonzero", "at_max", "excluded")
    ),
    *(Invariant(f"{name} >= 0", f"{name} is negative") for name in ("deadzone", "clipped", "zero_scale", "nonfinite")),
    *(Invariant(f"{name} < exact", f"{name} is too large for a count") for name in ("n", "excluded")),
    Invariant(" + ".join(f"{name} % 1" for name in _COUNTS) + " == 0", "a count is no whole number"),
    Invariant("nonzero <= n", "more values are not zero than there are"),
    Invariant("deadzone <= nonzero", "more values became zero than were not zero"),
    Invariant(
        "clipped <= at_max", "more values were clipped than ended at the largest value of their block", codes=False
    ),
    Invariant(
        "at_max <= nonzero - deadzone",
        "more values are the largest of their block than are not zero after",
        codes=False,
    ),
    Invariant("zero_scale <= deadzone", "values in blocks without a scale did not become zero"),
    Invariant("nonfinite <= excluded", "more values are NaN or infinite than were left out for it"),
    Invariant("nonfinite > 0 or excluded == 0", "values were left out, and none was NaN or infinite"),
    # no negative sum of squares or sizes, and no infinite one: each is bounded by a count and a magnitude
    *(
        Invariant(f"{name} >= 0", f"{name} is negative", follows=True)
        for name in ("sum_x2", "sum_x4", "sum_abs_x", "sum_abs_e", "sum_rel")
    ),
    *(
        Invariant(f"{name} >= 0", f"{name} is negative")
        for name in ("sum_e2", "sum_q2", "sum_e2_clipped", "sum_e2_deadzone", "max_abs_x", "max_abs_e")
    ),
    Invariant("sum_xq >= 0", "sum_xq is negative", codes=False),
    Invariant("max_abs_x < largest", "max_abs_x is beyond float32"),
    Invariant("max_abs_e < largest", "max_abs_e is beyond float32", codes=False),
    Invariant("sum_rel < most_relative", "the relative errors are infinite", codes=False),
    # x
    Invariant("abs(sum_x) <= near * sum_abs_x", "the sum of x is larger than that of its magnitudes"),
    Invariant(
        "sum_x * sum_x <= near * near * near * n * sum_x2", "the squares of x are too small for its sum", follows=True
    ),
    Invariant("sum_abs_x * sum_abs_x <= near * nonzero * sum_x2", "the squares of x are too small for its magnitudes"),
    Invariant("sum_x2 <= near * max_abs_x * sum_abs_x", "the squares of x are too large for its largest value"),
    Invariant("sum_x2 * sum_x2 <= near * nonzero * sum_x4", "the fourth powers of x are too small for its squares"),
    Invariant("sum_x4 <= near * max_abs_x * max_abs_x * sum_x2", "the fourth powers of x are too large"),
    Invariant("max_abs_x <= near * sum_abs_x", "the largest x is larger than the sum of magnitudes"),
    Invariant("max_abs_x * max_abs_x <= near * sum_x2", "the largest x is larger than the sum of squares"),
    Invariant("max_abs_x * max_abs_x * max_abs_x * max_abs_x <= near * sum_x4", "the largest x has no fourth power"),
    Invariant("sum_abs_x <= near * nonzero * max_abs_x", "the magnitudes of x are too large for its largest value"),
    Invariant("nonzero == 0 or max_abs_x > 0", "x is not zero, and its largest magnitude is"),
    # e
    Invariant("abs(sum_e) <= near * sum_abs_e", "the sum of errors is larger than that of their magnitudes"),
    Invariant("sum_abs_e <= near * nonzero * max_abs_e", "the errors are larger than the largest one", codes=False),
    Invariant("max_abs_e <= near * sum_abs_e", "the largest error is larger than the sum of all"),
    Invariant(
        "max_abs_e * max_abs_e <= near * sum_e2 + tiny * max_abs_x * max_abs_x",
        "the largest error is larger than the noise power",
    ),
    Invariant(
        "sum_e2 <= near * max_abs_e * sum_abs_e + tiny * n * max_abs_x * max_abs_x",
        "the noise power is too large for the errors",
    ),
    Invariant(
        "sum_abs_e * sum_abs_e <= near * nonzero * sum_e2 + tiny * n * n * max_abs_x * max_abs_x",
        "the noise power is too small for the errors",
        codes=False,
    ),
    Invariant(
        "sum_abs_e <= near * max_abs_x * sum_rel", "the errors are too large for the relative errors", codes=False
    ),
    Invariant(
        "sum_rel == 0 or max_abs_e > 0 or max_abs_x >= 131072",  # 2^17: then 2^-133, bfloat16's least, may underflow
        "there are relative errors or values that became zero, and no error",
    ),
    Invariant("deadzone <= near * sum_rel", "what became zero has a relative error of 1, and the sum is below that"),
    Invariant("clipped == 0 or sum_rel > 0", "values were clipped, and nothing has an error"),
    Invariant("sum_rel <= near * nonzero", "relative errors are beyond 1", stochastic=False),
    Invariant("max_abs_e <= near * max_abs_x", "the largest error is beyond the largest value", stochastic=False),
    Invariant("sum_e2 <= near * sum_x2", "the noise is stronger than the signal", stochastic=False),
    Invariant("sum_abs_e <= near * sum_abs_x", "the errors are larger than the values", stochastic=False),
    # the shares of the noise power
    Invariant(
        "sum_e2_clipped + sum_e2_deadzone <= near * sum_e2 + tiny * n * max_abs_x * max_abs_x",
        "the shares of the noise power are more than all of it",
        codes=False,
    ),
    Invariant(
        "sum_e2_clipped <= near * clipped * max_abs_e * max_abs_e + tiny * n * max_abs_x * max_abs_x"
        " and (clipped > 0 or sum_e2_clipped == 0)",
        "clipped values have more noise power than they can have",
    ),
    Invariant(
        "sum_e2_deadzone <= near * deadzone * max_abs_x * max_abs_x and (deadzone > 0 or sum_e2_deadzone == 0)",
        "values that became zero have more noise power than they can have",
    ),
    Invariant("sum_e2_deadzone <= near * sum_x2", "values that became zero had more power than all"),
    Invariant(
        "sum_abs_x <= near * (((nonzero - deadzone) * (near * sum_x2 - sum_e2_deadzone)) ** 0.5"
        " + (deadzone * sum_e2_deadzone) ** 0.5)",
        "the noise power of what became zero is too small for its share",
    ),
    # q
    Invariant(
        "sum_xq * sum_xq <= near * (sum_q2 + tiny * n * max_abs_x * max_abs_x) * (near * sum_x2 - sum_e2_deadzone)",
        "x and what it became agree better than they can",
    ),
    Invariant(
        "sum_q2 <= near * (nonzero - deadzone) * (max_abs_x + max_abs_e) * (max_abs_x + max_abs_e)"
        " + tiny * n * max_abs_x * max_abs_x and (nonzero > deadzone or sum_q2 == 0)",
        "what x became is larger than it can be",
        codes=False,
    ),
    Invariant("nonzero == deadzone or sum_xq > 0", "values remain, and what x became is zero", codes=False),
    Invariant(
        "abs(sum_x2 + sum_q2 - 2 * sum_xq - sum_e2) <= (near - 1) * (sum_x2 + sum_q2 + 2 * abs(sum_xq))",
        "the noise power is not that of x and what it became",
    ),
)


def _lines(stochastic: bool, codes: bool) -> list[Invariant]:
    return [line for line in INVARIANTS if (line.stochastic or not (stochastic or codes)) and (line.codes or not codes)]


def _compiled(formula: str) -> Callable[..., bool]:
    """A function of the sums in the order of FIELDS. One expression is ten times as fast as a call for each line."""
    found: Any = eval(f"lambda {', '.join(FIELDS)}: {formula}", dict(_NAMES))
    return found  # type: ignore[no-any-return]


_AGREE = {
    kind: _compiled(" and ".join(f"({line.formula})" for line in _lines(*kind) if not line.follows))
    for kind in ((False, False), (True, False), (False, True), (True, True))
}


def contradiction(sums: Sequence[float], *, stochastic: bool = False, codes: bool = False) -> Invariant | None:
    """The first invariant that these sums (in the order of FIELDS) break; None for a tally that can be true.

    What a kernel returns after them, counts of blocks, is not looked at.

    `stochastic` says that the format rounds stochastically, or may; `codes` that q was read from a checkpoint, whose
    codes may be any.
    """
    sums = sums[: len(FIELDS)]
    if _AGREE[stochastic, codes](*sums):
        return None
    return next(line for line in _lines(stochastic, codes) if not _compiled(line.formula)(*sums))
