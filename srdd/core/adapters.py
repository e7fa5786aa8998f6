"""The two forms of a LoRA adapter on a quantized model, and how much of it a quantization of the merged weight keeps.

apart: Q(W) + s B A, the base quantized and the adapter beside it in 16 bit: what vLLM serves, and QLoRA trains.
merged: Q(W + s B A), one weight: what is exported.

With D = s B A (DoRA: all that the adapter adds) and P = Q(W + D) - Q(W), what of it arrives:

    survival        <P, D> / |D|^2     1: arrives whole on average; 0: nothing of it
    relative error  |P - D| / |D|      0: arrives as it is; 1: as wrong as leaving it out; above: mostly other noise
    moved           share of values of W whose quantized value changes at all

Survival alone flatters: where D is far below the grid's step, few values move, each by a whole step, and on average
that is right. P - D is the error of the merged weight's rounding less that of the base's: the relative error tells how
much noise changes beside D. It is no loss of accuracy by itself, since the base's rounding had noise of that size too;
the SQNR of the changed weight in both forms stands beside. Where a format has a tensor scale (nvfp4), `moved` counts
what a new largest value moves, too: nearly all.

Not here: measuring (srdd.runs.scans.survival).

Worked number: in mxfp4 under scale 1, W = (6, 1, 1) and D = (0, 0.1, 0.3) give Q(W) = (6, 1, 1) and
Q(W + D) = (6, 1, 1.5), so P = (0, 0, 0.5): survival 0.15 / 0.1 = 1.5, relative error sqrt(0.05 / 0.1) = 0.71, and 1 of
3 values has moved.
"""

from __future__ import annotations

import math
from typing import Literal

AdapterForm = Literal["apart", "merged"]
FORMS: tuple[AdapterForm, ...] = ("apart", "merged")


def survival(sum_pd: float, sum_d2: float) -> float:
    """<P, D> / |D|^2; nan for an adapter that adds nothing."""
    return sum_pd / sum_d2 if sum_d2 > 0 else math.nan


def relative_error(sum_r2: float, sum_d2: float) -> float:
    """|P - D| / |D| from the sum of squares of P - D; nan for an adapter that adds nothing."""
    return math.sqrt(sum_r2 / sum_d2) if sum_d2 > 0 else math.nan
