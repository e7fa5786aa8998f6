"""Two verdicts side by side: the classic absolute thresholds, and what is unusual for this format and this model.

The classic thresholds flag every layer of every model in 4-bit formats, so they are shown and not trusted. The second
verdict compares each number with the model's own median in robust standard deviations:
z = (value - median) / max(1.4826 MAD, material / Z_LIMIT). The floor in the denominator keeps a series without spread
(random weights) from flagging differences too small to matter.

Not here: what to do about it (srdd.analysis.advice).

Worked number: SQNR 18.9, 19.0, 19.1, 19.0 and 15.0 dB: median 19.0, MAD 0.1, denominator max(0.148, 0.5/3.5 = 0.143),
so 15.0 has z = -27 and is flagged, 18.9 has z = -0.7 and is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median

from srdd.core.metrics import BY_NAME, METRICS, Metric
from srdd.errors import SettingError

# Iglewicz and Hoaglin (1993) recommend 3.5 for modified z-scores.
Z_LIMIT = 3.5
_MAD_TO_SIGMA = 1.4826  # MAD of a normal distribution times this is its standard deviation
_TOO_FEW = 4  # a median of three says nothing about a fourth

CLASSIC: dict[str, float] = {m.name: m.threshold for m in METRICS if m.threshold is not None}


def check_thresholds(thresholds: Mapping[str, float]) -> None:
    """Raises SettingError for a metric that is unknown or has no better side, and for what is not a finite number."""
    for name, value in thresholds.items():
        metric = BY_NAME.get(name)
        if metric is None or metric.better is None:
            known = ", ".join(m.name for m in METRICS if m.better is not None)
            raise SettingError(
                "thresholds", None, f"{name!r} is no metric that can be judged; expected one of: {known}"
            )
        if not isinstance(value, float | int) or not math.isfinite(value):
            raise SettingError("thresholds", f"{name}={value!r}", "expected a finite number")


def violates(metric: Metric, value: float | None, threshold: float) -> bool:
    """True when the value is on the wrong side of its classic threshold; an undefined value violates nothing."""
    if value is None or math.isnan(value) or metric.better is None:
        return False
    return value < threshold if metric.better == "up" else value > threshold


def robust_z(metric: Metric, series: Mapping[str, float | None]) -> dict[str, float]:
    """z of every finite value of the series by key; empty when the metric has no direction or values are too few."""
    finite = {key: v for key, v in series.items() if v is not None and math.isfinite(v)}
    if metric.material is None or len(finite) < _TOO_FEW:
        return {}
    middle = median(finite.values())
    mad = median(abs(v - middle) for v in finite.values())
    material = max(metric.material, metric.material_share * abs(middle))
    sigma = max(_MAD_TO_SIGMA * mad, material / Z_LIMIT)
    return {key: (v - middle) / sigma for key, v in finite.items()}


def is_unusual(metric: Metric, z: float) -> bool:
    """True when z lies beyond the limit on the bad side; being unusually good is no problem."""
    return z < -Z_LIMIT if metric.better == "up" else z > Z_LIMIT if metric.better == "down" else False
