"""Why a tensor quantizes badly, as far as its sums tell.

Not here: remedies (advice.py). The noise power of a tensor has three parts: values clipped at the largest that the
block can hold, values that became zero (underflow), and rounding of the rest. Which part matters is judged against
Gaussian data: under mxfp4:even 1.5 % of its noise comes from clipping, 4.3 % from underflow, 94.2 % from rounding.

Worked number: shares of 0.5 %, 14.5 % and 85 % exceed those by -1, +10.2 and -9.2 points, so underflow is the cause.
"""

from __future__ import annotations

import math

from srdd.core.gaussian import gaussian_metrics
from srdd.core.metrics import BY_NAME
from srdd.documents.schema import Measurement

_APART = 0.03  # of the noise power, from Gaussian data: less is no cause
_HEAVY = 10.0  # kurtosis; a Gaussian has 3, a Laplace distribution 6


def noise_shares(measured: Measurement) -> dict[str, float]:
    """Shares of the noise power by cause; they sum to 1, or are all 0 where there is no noise."""
    clipping, underflow = measured.value("noise_clipped"), measured.value("noise_deadzone")
    if not math.isfinite(clipping + underflow):
        return {"clipping": 0.0, "underflow": 0.0, "rounding": 0.0}
    return {"clipping": clipping, "underflow": underflow, "rounding": 1 - clipping - underflow}


def cause(spec: str, measured: Measurement) -> str:
    """The part of the noise that stands out most against Gaussian data; a few massive values are named beside it."""
    shares = noise_shares(measured)
    baseline = gaussian_metrics(spec)
    usual = dict.fromkeys(shares, 0.0)
    if baseline is not None:
        usual = {"clipping": baseline["noise_clipped"], "underflow": baseline["noise_deadzone"]}
        usual["rounding"] = 1 - usual["clipping"] - usual["underflow"]
    most = max(shares, key=lambda name: shares[name] - usual[name])
    if baseline is not None and shares[most] - usual[most] < _APART:
        text = "rounding as on Gaussian data"
    else:
        text = f"{most} {shares[most]:.0%} of the noise (Gaussian {usual[most]:.0%})"
    kurtosis = measured.value("kurtosis")
    return f"{text}; massive values, kurtosis {BY_NAME['kurtosis'].text(kurtosis)}" if kurtosis > _HEAVY else text
