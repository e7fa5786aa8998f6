"""Which layers are worst, by one metric and by another, and whether the two agree.

Not here: printing. Relative error and SQNR weigh elements differently: a few massive activations carry most of a
layer's power and are quantized well, so they lift its SQNR while the mean relative error does not move.

Worked number: rankings of layers [0, 1, 2] by error 3, 2, 1 and by SQNR 10, 20, 30 dB agree: Spearman 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from srdd.core.metrics import BY_NAME
from srdd.documents.schema import Layer

AGREE = 0.7  # Spearman below this: the reader is told that the two rankings differ
_ENOUGH = 5  # layers; with fewer, the order is a matter of chance


def worst(layers: Sequence[Layer], spec: str, metric: str, top: int) -> list[Layer]:
    """The `top` worst layers by a metric, worst first; layers without a finite value are left out."""
    known = [layer for layer in layers if math.isfinite(layer.formats[spec].value(metric))]
    up = BY_NAME[metric].better == "up"
    return sorted(known, key=lambda layer: layer.formats[spec].value(metric) * (1 if up else -1))[:top]


@dataclass(frozen=True)
class Agreement:
    """How the two rankings of one kind and format compare."""

    spearman: float
    common: int
    top: int
    ranked: int  # layers in all
    of_activations: bool

    def sentence(self) -> str:
        """What a reader should know before using either ranking."""
        shared = f"Spearman {self.spearman:.2f}"
        if self.top < self.ranked:  # lists of all layers share all of them, whatever their order
            shared = f"{self.common} of the {self.top} worst layers are in both lists, {shared}"
        if self.spearman >= AGREE:
            return f"The two rankings agree: {shared}."
        said = (
            f"The two rankings disagree: {shared}. SQNR is ruled by the few largest values of a layer, relative error "
            "counts every value alike"
        )
        massive = "; massive activations lift SQNR without helping the rest" if self.of_activations else ""
        return f"{said}{massive}."


def agreement(layers: Sequence[Layer], spec: str, top: int) -> Agreement | None:
    """Compare the rankings by relative error and by SQNR; None with few layers, or when all are alike."""
    both = [
        layer
        for layer in layers
        if all(math.isfinite(layer.formats[spec].value(m)) for m in ("relative_error", "sqnr_db"))
    ]
    if len(both) < _ENOUGH:
        return None
    errors = ranks([layer.formats[spec].value("relative_error") for layer in both])
    noise = ranks([-layer.formats[spec].value("sqnr_db") for layer in both])
    correlation = _pearson(errors, noise)
    if math.isnan(correlation):
        return None
    top = min(top, len(both))
    first = {layer.layer for layer in worst(both, spec, "relative_error", top)}
    second = {layer.layer for layer in worst(both, spec, "sqnr_db", top)}
    return Agreement(correlation, len(first & second), top, len(both), both[0].kind != "weight")


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation; nan when one side is constant."""
    return _pearson(ranks(a), ranks(b))


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-b, which accounts for ties; nan when one side is constant."""
    score, ties_a, ties_b, pairs = 0, 0, 0, 0
    for i in range(len(a)):
        for j in range(i):
            x, y = _sign(a[i] - a[j]), _sign(b[i] - b[j])
            pairs += 1
            score += x * y
            ties_a += x == 0
            ties_b += y == 0
    below = (pairs - ties_a) * (pairs - ties_b)
    return score / math.sqrt(below) if below > 0 else math.nan


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 0, ties sharing their mean rank. scipy would cost half a second of start-up for these lines."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for index in order[start : end + 1]:
            ranks[index] = (start + end) / 2
        start = end + 1
    return ranks


def _pearson(a: Sequence[float], b: Sequence[float]) -> float:
    mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
    cov = math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    var = math.fsum((x - mean_a) ** 2 for x in a) * math.fsum((y - mean_b) ** 2 for y in b)
    return cov / math.sqrt(var) if var > 0 else math.nan
