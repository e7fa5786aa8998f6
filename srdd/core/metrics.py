"""The metrics as rows: name, unit, which way is better, and the value as a function of a Tally.

Tables, reports, gates and exporters iterate over METRICS, so a new metric over existing sums is one row here and
nothing else.

Not here: the sums (tally.py) and what is a problem (verdicts.py).

Worked number: sum_x2 = 100 and sum_e2 = 1 give sqnr_db = 10 log10(100) = 20, relative_rms = 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from srdd.core.near import did_you_mean
from srdd.core.tally import Tally
from srdd.errors import SettingError

_MOST_DECIMALS = 7  # smaller numbers are written as 1.23e-08


@dataclass(frozen=True)
class Metric:
    """One metric. `formula` returns nan where nothing was measured, and +inf for the SQNR of an exact copy."""

    name: str
    unit: Literal["dB", "%", ""]  # "%": stored as a ratio, shown times 100
    better: Literal["up", "down"] | None
    formula: Callable[[Tally], float] | None  # None: a cost, which no tally can tell
    meaning: str
    threshold: float | None = None  # the classic limit, a problem when the value is on its wrong side
    material: float | None = None  # the smallest difference from the median that may be called unusual ...
    material_share: float = 0.0  # ... or this share of the median, if larger. 0.06 in amplitude is 0.5 dB
    of_blocks: bool = False  # from counts of blocks, which older reports lack
    in_points: bool = False  # percent of a limit are points, not shares of what it was
    of_maximum: bool = False  # it follows a largest value, which has no standard error

    def of(self, tally: Tally) -> float:
        """The value for these sums; nan for a cost."""
        return math.nan if self.formula is None else self.formula(tally)

    def text(self, value: float | None) -> str:
        """For people: 18.74, 9.7 %, 7511, 2.345e+05. None and nan are a dash."""
        if value is None or math.isnan(value):
            return "-"
        if math.isinf(value):
            return "exact" if value > 0 else "-inf"
        if self.formula is None and not self.unit:  # costs differ by orders of magnitude
            return significant(value)
        if not self.unit and 0 < abs(value) < 0.1:  # the rms of weights, the bias
            return significant(value)
        return f"{100 * value:.2f}" if self.unit == "%" else f"{value:.2f}" if abs(value) < 1e3 else f"{value:.4g}"


def significant(value: float, error: float | None = None) -> str:
    """Three significant digits, and the error with as many decimals: "0.0123 ± 0.0005"."""
    if not math.isfinite(value):
        return "-" if math.isnan(value) else f"{value:g}"
    decimals = max(2 - math.floor(math.log10(abs(value))), 0) if value else 2
    form = f".{decimals}f" if decimals <= _MOST_DECIMALS else ".2e"
    text = f"{value:{form}}"
    return text if error is None else f"{text} ± {error:{form}}"


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def _sqnr_db(t: Tally) -> float:
    if t.n == 0 or t.sum_x2 == 0:
        return math.nan
    return 10 * math.log10(t.sum_x2 / t.sum_e2) if t.sum_e2 > 0 else math.inf


def _rms(t: Tally) -> float:
    return math.sqrt(_ratio(t.sum_x2, t.n))


METRICS: tuple[Metric, ...] = (
    Metric(
        "sqnr_db",
        "dB",
        "up",
        _sqnr_db,
        "signal to quantization noise: 10 log10(sum x^2 / sum e^2), a ratio of sums",
        threshold=20.0,
        material=0.5,
    ),
    Metric(
        "relative_error",
        "%",
        "down",
        lambda t: _ratio(t.sum_rel, t.nonzero),
        "mean of |e| / |x| over nonzero x; every element counts the same",
        threshold=0.10,
        material=0.001,
        material_share=0.06,
    ),
    Metric(
        "relative_rms",
        "%",
        "down",
        lambda t: math.sqrt(_ratio(t.sum_e2, t.sum_x2)),
        "sqrt(sum e^2 / sum x^2); the SQNR as a ratio",
        material=0.001,
        material_share=0.06,
    ),
    Metric(
        "deadzone_ratio",
        "%",
        "down",
        lambda t: _ratio(t.deadzone, t.nonzero),
        "share of nonzero x that become zero (underflow)",
        threshold=0.05,
        material=0.01,
    ),
    Metric(
        "saturation_ratio",
        "%",
        "down",
        lambda t: _ratio(t.clipped, t.n),
        "share of x beyond the largest value their block can hold: really clipped",
        threshold=0.01,
        material=0.01,
    ),
    Metric(
        "zero_ratio",
        "%",
        "down",
        lambda t: _ratio(t.n - t.nonzero, t.n),
        "share of x that is 0; a layer cannot improve by dying",
        material=0.01,
        in_points=True,
    ),
    Metric(
        "zero_ratio_after",
        "%",
        "down",
        lambda t: _ratio(t.n - t.nonzero + t.deadzone, t.n),
        "share of q that is 0: what was 0 and what became it",
        material=0.01,
        in_points=True,
    ),
    Metric(
        "block_sqnr_db",
        "dB",
        "up",
        lambda t: t.blocks.sqnr_db(0.5),
        "median of the SQNR of single blocks: one massive value cannot move it",
        material=0.5,
        of_blocks=True,
    ),
    Metric(
        "block_sqnr_p5_db",
        "dB",
        "up",
        lambda t: t.blocks.sqnr_db(0.05),
        "the SQNR that 5 % of the blocks stay below",
        of_blocks=True,
    ),
    Metric(
        "block_sqnr_p1_db",
        "dB",
        "up",
        lambda t: t.blocks.sqnr_db(0.01),
        "the SQNR that 1 % of the blocks stay below",
        of_blocks=True,
    ),
    Metric(
        "zeroed_blocks",
        "%",
        "down",
        lambda t: _ratio(t.blocks.zeroed, t.blocks.count),
        "share of blocks that became zero, because their scale did",
        of_blocks=True,
        in_points=True,
    ),
    Metric("rms", "", None, _rms, "root mean square of x"),
    Metric("at_max_ratio", "%", None, lambda t: _ratio(t.at_max, t.n), "share of x that land on that largest value"),
    Metric("cosine", "", "up", lambda t: _ratio(t.sum_xq, math.sqrt(t.sum_x2 * t.sum_q2)), "cosine of x and q"),
    Metric("gain", "", None, lambda t: _ratio(t.sum_xq, t.sum_x2), "sum xq / sum x^2; below 1: values shrink"),
    Metric("bias", "", None, lambda t: _ratio(t.sum_e, t.n), "mean of e, in the units of x"),
    Metric("kurtosis", "", None, lambda t: _ratio(t.n * t.sum_x4, t.sum_x2**2), "n sum x^4 / (sum x^2)^2; Gaussian: 3"),
    Metric(
        "crest",
        "",
        None,
        lambda t: _ratio(t.max_abs_x, _rms(t)),
        "max |x| over the rms of x: how far outliers stand",
        of_maximum=True,
    ),
    Metric(
        "noise_clipped",
        "%",
        None,
        lambda t: _ratio(t.sum_e2_clipped, t.sum_e2),
        "share of the noise power that comes from clipped values",
    ),
    Metric(
        "noise_deadzone",
        "%",
        None,
        lambda t: _ratio(t.sum_e2_deadzone, t.sum_e2),
        "share of the noise power that comes from the deadzone; the rest is rounding",
    ),
)
BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
# What the first table shows; the rest is in the report and in `srdd show --layer`.
MAIN = ("sqnr_db", "relative_error", "deadzone_ratio", "saturation_ratio")


def values(tally: Tally) -> dict[str, float]:
    """Every metric of one tally by name."""
    return {metric.name: metric.of(tally) for metric in METRICS}


# What quantizing a layer alone costs. No tally tells it, but layers are ranked by it.
COSTS: tuple[Metric, ...] = (
    Metric("predicted_kl", "", "down", None, "KL in nats per token that a gradient predicts"),
    Metric("measured_kl", "", "down", None, "KL in nats per token measured with this layer alone quantized"),
)
# What noise on a layer's norms costs; the model's own, whatever it is quantized to.
NOISE_SENSITIVITY = Metric(
    "noise_sensitivity", "", "down", None, "trace of the Fisher information: noise of sigma costs sigma^2 / 2 times it"
)
RANKED: dict[str, Metric] = BY_NAME | {metric.name: metric for metric in (*COSTS, NOISE_SENSITIVITY)}


# What quantizing the whole model costs, in one mode.
OF_MODEL: tuple[Metric, ...] = (
    Metric("kl", "", "down", None, "KL of the quantized model against the model as it is, nats per token"),
    Metric("loss", "", "down", None, "loss of the quantized model, nats per token"),
    Metric("top1", "%", "up", None, "share of tokens with the same most likely next token", in_points=True),
)
GATED: dict[str, Metric] = RANKED | {metric.name: metric for metric in OF_MODEL}


def as_error(metric: Metric, value: float) -> float:
    """A value of a metric as an error. SQNR becomes the amplitude ratio of noise to signal, a cosine 1 - cosine."""
    if metric.unit == "dB":
        return float(10 ** (-value / 20))
    return 1 - value if metric.better == "up" else value


def choose_metric(name: str) -> Metric:
    """A metric that has a better side. Raises SettingError."""
    metric = RANKED.get(name)
    if metric is None or metric.better is None:
        near = did_you_mean(name, [] if metric else _judged(RANKED.values()))
        known = ", ".join(_judged(RANKED.values()))
        raise SettingError("metric", repr(name), f"cannot rank layers; expected one of: {known}{near}")
    return metric


def gated_metric(name: str) -> Metric:
    """A metric that a limit may name: one that ranks layers, or one of the whole model. Raises SettingError."""
    of_model = next((metric for metric in OF_MODEL if metric.name == name), None)
    return choose_metric(name) if of_model is None else of_model


def any_metric(name: str) -> Metric:
    """A metric by name, with or without a better side. Raises SettingError."""
    metric = RANKED.get(name)
    if metric is None:
        near = did_you_mean(name, RANKED)
        raise SettingError("metric", repr(name), f"unknown metric; expected one of: {', '.join(RANKED)}{near}")
    return metric


def _judged(metrics: Iterable[Metric]) -> list[str]:
    return [metric.name for metric in metrics if metric.better is not None]
