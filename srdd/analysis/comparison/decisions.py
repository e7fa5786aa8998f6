"""Whether a value beyond its bound failed, or could be chance: the error of a change and what it must be to decide.

A change has three sources of error: other documents would give another one (standard_error of a pair), the largest
values lie elsewhere between two powers of two (`srdd.core.position`), and stochastic rounding draws anew. A limit is
failed where the change is beyond it by more than Student's t for the whole family of places that a check looks at
(costs and error statistics each have half of the level), so that one false alarm in twenty checks is the most. Beyond
it by less it is undecided.

Costs move with the place of the scales too, by a share that was measured, where weights changed.

Not here: limits (limits.py) and the verdict (gate.py).

Worked number: 0.6 dB lost where 0.5 are allowed, ± 0.01 over 16 documents, in a family of 1,000: 0.1 is 10 standard
errors, 5.24 decide, so it failed. With ± 0.05 it is undecided, and some 110 documents would decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from srdd.analysis.comparison.pairing import Pair
from srdd.analysis.comparison.recalled import Recalled
from srdd.analysis.layer_costs import Priced
from srdd.core.formats import parse
from srdd.core.metrics import Metric
from srdd.core.position import swing_db
from srdd.core.student import critical
from srdd.core.tally import Tally
from srdd.documents.schema import Measurement
from srdd.errors import FormatError

_AMPLITUDES = ("sqnr_db", "relative_rms", "cosine")  # metrics that a few large values decide
_DB = 10 / math.log(10)


@dataclass(frozen=True)
class Decision:
    """Whether a change is beyond a bound for certain. `needed` documents would decide; None: more would not."""

    sure: bool
    error: float  # nan where nothing is drawn: weights, and reports without errors
    needed: int | None = None


def decide(
    pair: Pair, metric: Metric, excess: float, tests: int, times: float = 1.0, *, moved: bool = True
) -> Decision:
    """Of a value that lies beyond its bound by `excess`, one of `tests` that have an error.

    `times` is 1.1 for a limit of +10 %: then the error is that of new minus 1.1 times the base. `moved`: whether a
    weight changed; where none did, no value of a weight lies elsewhere between two powers of two.
    """
    sampled = pair.error(metric, times)
    if isinstance(pair.base, Priced):
        fixed = _cost_error(pair, metric, times, moved)
    else:
        fixed = math.hypot(_position_error(pair, metric), _draw_error(pair, metric))
    if math.isnan(sampled) and not fixed:
        return Decision(True, math.nan)
    sampled = 0.0 if math.isnan(sampled) else sampled
    error, degrees = math.hypot(sampled, fixed), pair.degrees(metric)
    needs = critical(degrees, tests) if sampled else critical(10**6, tests)
    if excess > needs * error:
        return Decision(True, error)
    room = (excess / needs) ** 2 - fixed**2
    if math.isinf(needs) or room <= 0 or not sampled:
        return Decision(False, error)
    return Decision(False, error, math.ceil((degrees + 1) * sampled**2 / room))


def _cost_error(pair: Pair, metric: Metric, times: float, moved: bool) -> float:
    """By the place of values, of the KL that a cost goes with, and by draws of stochastic rounding.

    As if nothing had changed: both sides scatter as the base does, which is at its bound.
    """
    base = pair.base
    size = {"loss": base.value("kl"), "top1": 1 - base.value("top1")}.get(metric.name, base.value(metric.name))
    placed = pair.scatter * times * abs(size) * math.sqrt(2) if moved and math.isfinite(size) else 0.0
    drawn = [side.draw_error(metric.name) for side in (base, pair.new) if isinstance(side, Priced)]
    return math.hypot(placed, *drawn)


def _position_error(pair: Pair, metric: Metric) -> float:
    """As if each side's swing were uniform: swing / sqrt(12); 0 where there are no sums, and for steady metrics."""
    if metric.name not in _AMPLITUDES:
        return 0.0
    errors = []
    for side, spec in zip(_sides(pair), (pair.spec, pair.new_spec), strict=True):
        swing = swing_db(tallies, parse(spec)) if (tallies := _tallies(side)) and _is_known(spec) else 0.0
        errors.append(0.0 if math.isnan(swing) else swing / math.sqrt(12))
    db = math.hypot(*errors)
    if metric.unit == "dB":
        return db
    value = pair.new.value(metric.name)
    # relative_rms is an amplitude, of which 1 dB is 11.5 %; 1 - cosine goes with its square
    return abs(value) * db / (2 * _DB) if metric.name == "relative_rms" else abs(1 - value) * db / _DB


def _draw_error(pair: Pair, metric: Metric) -> float:
    """Of stochastic rounding: as if as many values decided as sum x^2 and sum x^4 say; 0 for what counts blocks."""
    if metric.name not in _AMPLITUDES or not (_is_known(pair.spec) and parse(pair.spec).stochastic):
        return 0.0
    relative = math.hypot(*(math.sqrt(2 * t.sum_x4) / t.sum_x2 for s in _sides(pair) for t in _whole(s)))
    value = pair.new.value(metric.name)
    return relative * (_DB if metric.unit == "dB" else value / 2 if metric.name == "relative_rms" else abs(1 - value))


def _sides(pair: Pair) -> tuple[object, object]:
    """Base and new; a slim baseline keeps no sums, and its largest values are taken to be those of the new report."""
    return pair.new if isinstance(pair.base, Recalled) else pair.base, pair.new


def _tallies(side: object) -> list[Tally]:
    """Of each sequence, or the one of a weight; none of a cost and of reports without sums."""
    return (side.per_sequence() or _whole(side)) if isinstance(side, Measurement) else []


def _whole(side: object) -> list[Tally]:
    known = isinstance(side, Measurement) and side.tally is not None
    return [tally] if known and isinstance(side, Measurement) and (tally := side.merged()).sum_x2 > 0 else []


def _is_known(spec: str) -> bool:
    try:
        parse(spec)
    except FormatError:  # of a newer srdd, or a stranger's
        return False
    return True
