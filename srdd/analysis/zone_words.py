"""Zones in sentences: how firm a cut is, which layers stick out, and what a series without zones looks like.

Not here: the search (structure.py), resampling (resampling.py) and layout (srdd.exporters).

Worked number: a cut found again in 93 of 100 draws of 16 documents is firm; of 3 documents it is fair, because so few
say little about others; of weights, where no text is drawn, whether it is firm is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from srdd.core.metrics import Metric
from srdd.documents.zones import Cut, OutlierLayer, Ramp

Grade = Literal["firm", "fair", "weak", "not known"]
FIRM, FAIR = 0.9, 0.5  # shares of draws in which a cut is found again
FEWEST = 5  # documents that can make a cut firm


def grade_of(cut: Cut) -> Grade:
    """How far a cut would be found in other text, in a word."""
    if cut.stability < FAIR:
        return "weak"
    if cut.units is None:
        return "not known"
    return "firm" if cut.stability >= FIRM and cut.units >= FEWEST else "fair"


def cut_words(cut: Cut) -> str:
    """ "cut before layer 3: found again in 93% (16 documents resampled), firm"."""
    told: dict[Grade, str] = {
        "firm": "firm",
        "fair": "fair",
        "weak": "weak: do not build on it",
        "not known": "firm or not is not known: there are no documents to resample",
    }
    grade = told[grade_of(cut)]
    if cut.units is not None and cut.units < FEWEST and cut.stability >= FIRM:
        grade += f": firm takes {FEWEST} at least"
    return f"cut before layer {cut.before_layer}: found again in {cut.stability:.0%} ({cut.method}), {grade}"


def outlier_words(outliers: Sequence[OutlierLayer], metric: Metric) -> list[str]:
    """One sentence a layer."""
    return [
        f"outlier layer {o.layer}: {_text(metric, o.value)} where its neighbours let expect "
        f"{metric.text(o.between[0])} to {_text(metric, o.between[1])}; it is no zone and counts in no mean"
        for o in outliers
    ]


def one_zone_words(ramp: Ramp | None, metric: Metric) -> str:
    """What is said where there is no cut."""
    if ramp is None:
        return "One zone: no cut stands out from how much each layer differs from the next."
    shape, turn = "ramp", ""
    if ramp.at_turn is not None:
        shape, turn = "bend", f"{metric.text(ramp.at_turn)} near layer {ramp.turn_layer} to "
    return (
        f"One zone, a {shape}: {metric.name} {ramp.shape} along the depth, from about {metric.text(ramp.first)} to "
        f"{turn}{_text(metric, ramp.last)}, without a step."
    )


def _text(metric: Metric, value: float) -> str:
    return f"{metric.text(value)} {metric.unit}".rstrip()
