"""Cases of a check: one limit over one kind of site and format, with a finding for every place that it holds for.

Not here: the verdict (gate.py), limits (limits.py), whether a value beyond its bound is chance (decisions.py).

Worked number: "sqnr_db=-0.5" with 19.0 dB in the baseline of layer 7 and 16.0 dB now: bound 18.5, a failure, named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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

_OF_MODULES = ("zero_ratio", "zero_ratio_after", "rms")


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


@dataclass(frozen=True)
class Held:
    """One limit on one kind and format, and the places that it holds for, with what is known of each."""

    limit: Limit | Factor | Floor
    kind: Place
    spec: str
    places: list[tuple[Pair, Finding]]


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
            places = [(p, found) for p in members if (found := _finding(limit, p, policy)) is not None]
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


def case_of(held: Held, policy: Policy, tests: int) -> Case:
    """The limit with all its findings decided; `tests` is the size of the family, over all cases of the check."""
    metric = held.limit.of
    findings = [_decided(held.limit, pair, finding, policy, tests) for pair, finding in held.places]
    ranked = sorted(findings, key=lambda f: -_excess(metric, f))
    return Case(
        kind=held.kind,
        format=held.spec,
        mode=held.places[0][0].mode,
        limit=held.limit.text,
        metric=metric.name,
        unit=metric.unit,
        checked=len(findings),
        worst=ranked[0],
        failures=[f for f in ranked if not f.passed],
        undecided=[f for f in ranked if f.undecided],
        implausible=[f for f in ranked if f.implausible],
    )


def _finding(limit: Limit | Factor | Floor, pair: Pair, policy: Policy) -> Finding | None:
    """None where the base has no value to hold the new one to; a floor's base is the report itself."""
    metric = limit.of
    base, value = pair.values(metric.name)
    if math.isnan(base):
        return None
    bound = limit.bound(base, value)
    passed = limit.holds(base, value)
    if isinstance(limit, Floor):
        return Finding(name=pair.name, base=None, new=value, bound=bound, passed=passed)
    return Finding(
        name=pair.name,
        base=base,
        new=value,
        bound=bound,
        passed=passed,
        implausible=_implausible(metric, base, value, policy.implausible_gain),
    )


def _decided(limit: Limit | Factor | Floor, pair: Pair, finding: Finding, policy: Policy, tests: int) -> Finding:
    """What lies beyond its bound, once it is known whether that may be chance. A floor is a value, not a change."""
    excess = _excess(limit.of, finding)
    if finding.passed or isinstance(limit, Floor) or not math.isfinite(excess):
        return finding
    decision = decide(pair, limit.of, excess, tests, limit.times if isinstance(limit, Limit) else 1.0)
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


def _excess(metric: Metric, finding: Finding) -> float:
    """How far beyond its bound, in the metric's unit; a missing value is infinitely far."""
    if math.isnan(finding.new):
        return math.inf
    if metric.better is None and finding.base is not None:
        return abs(finding.new - finding.base) - abs(finding.bound - finding.base)
    if finding.new == finding.bound:  # both may be infinite: exact before and now
        return 0.0
    distance = finding.new - finding.bound
    return -distance if metric.better == "up" else distance
