"""Means and ratios over sequences with their standard errors.

Not here: models. Sequences are the unit, because tokens of one text are not independent. Worked number: squared errors
1 and 3 over squared outputs 100 and 100: sqrt(4 / 200) = 0.1414; leaving out either gives 0.1732 and 0.1, so the
jackknife error is 0.0366.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from srdd.core.uncertainty import jackknife
from srdd.documents.parts import Estimate
from srdd.errors import NonfiniteError, setting


def mean(values: Sequence[float]) -> Estimate:
    """The mean of one number per sequence."""
    _refuse_nonfinite(values)
    if len(values) < 2:
        return Estimate(value=fmean(values))
    middle = fmean(values)
    # not core's mean_and_error, whose last bit may differ from what documents have held so far
    spread = math.fsum((v - middle) ** 2 for v in values) / (len(values) - 1)
    return Estimate(value=middle, error=math.sqrt(spread / len(values)))


def ratio_of_sums(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """sqrt(sum above / sum below), by the jackknife; 0 where nothing is below."""
    return _jackknife(above, below, lambda a, b: math.sqrt(a / b) if b > 0 else 0.0)


def share_change(changed: Sequence[float], base: Sequence[float]) -> Estimate:
    """sum changed / sum base - 1, paired by sequence."""
    return _jackknife(changed, base, lambda a, b: a / b - 1 if b > 0 else 0.0)


def _refuse_nonfinite(values: Sequence[float]) -> None:
    if not all(map(math.isfinite, values)):
        raise NonfiniteError(
            "a loss or an error came out as NaN or infinite: the model overflows in its type, with quantization or "
            f"without; take {setting('dtype', 'float32')} or bfloat16"
        )


def _jackknife(above: Sequence[float], below: Sequence[float], of: Callable[[float, float], float]) -> Estimate:
    _refuse_nonfinite([*above, *below])
    count = len(above)
    value = of(math.fsum(above), math.fsum(below))
    if count < 2:
        return Estimate(value=value)
    without = [
        of(math.fsum(above[:i]) + math.fsum(above[i + 1 :]), math.fsum(below[:i]) + math.fsum(below[i + 1 :]))
        for i in range(count)
    ]
    return Estimate(value=value, error=jackknife(without))
