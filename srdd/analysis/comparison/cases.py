"""Cases of a check: one limit over one kind of site and format, with a finding for every place that it holds for.

Not here: the verdict (gate.py), limits (limits.py), whether a value beyond its bound is chance (decisions.py).

Worked number: "sqnr_db=-0.5" with 19.0 dB in the baseline of layer 7 and 16.0 dB now: bound 18.5, a failure, named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from srdd.analysis.comparison.costs import cost_pairs, model_pairs
from srdd.analysis.comparison.decisions import decide
from srdd.analysis.comparison.limits import Factor, Floor, Limit
from srdd.analysis.comparison.pairing import By, Pair, pairs
from srdd.analysis.comparison.policy import Policy
from srdd.analysis.comparison.recalled import RecalledReport
from srdd.core.layers import parse_layers
from srdd.core.metrics import Metric, as_error
from srdd.documents.check import Case, Finding
from srdd.documents.parts import Place
from srdd.documents.report import Report
from srdd.errors import ReportError

_OF_MODULES = ("zero_ratio", "zero_ratio_after", "rms", "crest")


class Pairs:
    """The pairs of two reports by kind, format and by layer or module, merged once for all limits."""

    def __init__(self, base: Report, new: Report) -> None:
        self._base, self._new = base, new
        self._made: dict[tuple[Place, str, By], list[Pair]] = {}

    @property
    def called(self) -> str:
        """What the base is, in messages."""
        return "the slim baseline" if isinstance(self._base, RecalledReport) else "the baseline"

    def of(self, kind: Place, spec: str, by: By) -> list[Pair]:
        if (kind, spec, by) not in self._made:
            if kind == "model":
                found = model_pairs(self._base, self._new, spec)
            elif kind == "layer":
                found = cost_pairs(self._base, self._new, spec, by=by)
            else:
                found = pairs(self._base, self._new, kind, spec, by=by)
            self._made[kind, spec, by] = found
        return self._made[kind, spec, by]


class Checked(NamedTuple):
    """A place against a limit, before it is known whether chance may be to blame; most are never told of."""

    base: float | None
    new: float
    bound: float
    passed: bool
    excess: float
    implausible: bool = False


@dataclass(frozen=True)
class Held:
    """One limit on one kind and format, and the places that it holds for, with what is known of each."""

    limit: Limit | Factor | Floor
    kind: Place
    spec: str
    places: list[tuple[Pair, Checked]]


def held_by(
    limit: Limit | Factor | Floor,
    compared: Pairs,
    kinds: Sequence[Place],
    specs: Sequence[str],
    policy: Policy,
    *,
    optional: bool,
) -> tuple[list[Held], list[str]]:
    """What a limit holds for, kind by kind and format by format, and notes of where the metric is not measured.

    Raises ReportError when it is measured nowhere and the limit is not `optional`.
    """
    wanted = None if limit.layers is None else set(parse_layers(limit.layers))
    held: list[Held] = []
    notes: list[str] = []
    which = "this report" if isinstance(limit, Floor) else compared.called
    for kind in kinds:
        for spec in specs:
            by = _by(limit, kind, policy)
            members = [p for p in compared.of(kind, spec, by) if wanted is None or p.layer in wanted]
            places = [(p, found) for p in members if (found := _checked(limit, p, policy)) is not None]
            if places:
                held.append(Held(limit, kind, spec, places))
            unknown = [p.name for p in members if math.isnan(p.values(limit.metric)[0])]
            if unknown:
                names = ", ".join(unknown[:8]) + (" ..." if len(unknown) > 8 else "")
                notes.append(f"not held to {limit.text}, {which} has no {limit.metric}: {kind} {spec} {names}")
    if not held and not optional:
        where = f"layers {limit.layers}" if limit.layers else "any layer or site"
        raise ReportError(f"{limit.text} matches nothing: {limit.metric} is not known for {where} of {which}")
    return held, notes


def _by(limit: Limit | Factor | Floor, kind: Place, policy: Policy) -> By:
    """What a limit is checked on: what one module lost is not made good by its neighbours."""
    hide = kind in ("weight", "input")  # an output is its layer's own
    if limit.metric in _OF_MODULES and hide:
        return "module"
    return policy.by or ("module" if policy.are_defaults and hide else "layer")


def case_of(held: Held, policy: Policy, tests: int, *, moved: bool = True) -> Case:
    """The limit with all its findings decided; `tests` is the size of the family, over all cases of the check.

    `moved` is whether a weight changed, as far as the reports tell.
    """
    metric = held.limit.of
    told: list[tuple[float, Finding]] = []
    worst = max(held.places, key=lambda place: place[1].excess)
    for place in held.places:
        pair, checked = place
        if not checked.passed or checked.implausible or place is worst:
            told.append((checked.excess, _decided(held.limit, pair, checked, policy, tests, moved)))
    ranked = [finding for _, finding in sorted(told, key=lambda row: -row[0])]
    return Case(
        kind=held.kind,
        format=held.spec,
        mode=held.places[0][0].mode,
        limit=held.limit.text,
        metric=metric.name,
        unit=metric.unit,
        checked=len(held.places),
        worst=ranked[0],
        failures=[f for f in ranked if not f.passed],
        undecided=[f for f in ranked if f.undecided],
        implausible=[f for f in ranked if f.implausible],
    )


def _checked(limit: Limit | Factor | Floor, pair: Pair, policy: Policy) -> Checked | None:
    """None where the base has no value to hold the new one to; a floor's base is the report itself."""
    metric = limit.of
    base, value = pair.values(metric.name)
    if math.isnan(base):
        return None
    bound = limit.bound(base, value)
    known = None if isinstance(limit, Floor) else base
    implausible = known is not None and _implausible(metric, known, value, policy.implausible_gain)
    return Checked(known, value, bound, limit.holds(base, value), _excess(metric, known, value, bound), implausible)


def _decided(
    limit: Limit | Factor | Floor, pair: Pair, checked: Checked, policy: Policy, tests: int, moved: bool
) -> Finding:
    """What lies beyond its bound, once it is known whether that may be chance. A floor is a value, not a change."""
    base, value, bound, passed, excess, implausible = checked
    finding = Finding(name=pair.name, base=base, new=value, bound=bound, passed=passed, implausible=implausible)
    if finding.passed or isinstance(limit, Floor) or not math.isfinite(excess):
        return finding
    decision = decide(pair, limit.of, excess, tests, limit.times if isinstance(limit, Limit) else 1.0, moved=moved)
    error = None if math.isnan(decision.error) else decision.error
    if decision.sure:
        return finding.model_copy(update={"standard_error": error})
    told = {"undecided": True, "standard_error": error, "needed": decision.needed}
    return finding.model_copy(update={**told, "passed": policy.undecided == "pass"})


def _implausible(metric: Metric, base: float, new: float, factor: float) -> bool:
    """A gain by more than the factor, and by more than what the metric calls material."""
    if metric.better is None or math.isnan(new) or abs(base - new) <= (metric.material or 0.0):
        return False
    before, after = as_error(metric, base), as_error(metric, new)
    return before > factor * after


def _excess(metric: Metric, base: float | None, new: float, bound: float) -> float:
    """How far beyond its bound, in the metric's unit; a missing value is infinitely far."""
    if math.isnan(new):
        return math.inf
    if metric.better is None and base is not None:
        return abs(new - base) - abs(bound - base)
    if new == bound:  # both may be infinite: exact before and now
        return 0.0
    distance = new - bound
    return -distance if metric.better == "up" else distance
