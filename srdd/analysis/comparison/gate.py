"""The gate: a report held to limits beside a baseline, and to floors without one; the verdict follows from data alone.

Not here: what limits are (limits.py), whether two reports may be compared (comparability.py), printing. A limit is
checked on every decoder layer and on every site outside the layers (lm_head), or by module on every site, for each kind
of site and format it holds for. A value that the baseline has and the new report lacks fails; a value that the baseline
lacks is held to nothing, and that is said. A gain beyond a factor passes but is flagged: an error halved between two
checkpoints is more often the wrong file than a gain.

Worked number: "sqnr_db=-0.5" with 19.0 dB in the baseline of layer 7 and 16.0 dB now: bound 18.5, failed, named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from srdd.analysis.comparison.comparability import comparable
from srdd.analysis.comparison.costs import (
    comparable_costs,
    cost_pairs,
    model_pairs,
    model_specs,
)
from srdd.analysis.comparison.dead import newly_dead, newly_equal
from srdd.analysis.comparison.held_places import has_kind, held_places, may_compare_costs
from srdd.analysis.comparison.limits import Factor, Floor, Limit
from srdd.analysis.comparison.pairing import By, Pair, pairs, within_noise
from srdd.analysis.comparison.policy import Policy, built_in
from srdd.analysis.layer_costs import cost_specs, has_costs, weakness
from srdd.analysis.series import cost_series
from srdd.core.layers import parse_layers
from srdd.core.metrics import Metric, as_error
from srdd.core.modes import Mode
from srdd.documents.check import Case, CheckResult, Finding
from srdd.documents.parts import Place
from srdd.documents.report import Report
from srdd.errors import ReportError, SettingError, setting

_OF_MODULES = ("zero_ratio", "zero_ratio_after", "rms")


def check(
    new: Report, baseline: Report | None, policy: Policy | None = None, *, allow_different_model: bool = False
) -> CheckResult:
    """Hold `new` to the policy, by default the built-in limits, which need a baseline.

    Raises SettingError for limits without a baseline, ReportError for what differs and for limits that match nothing.
    """
    policy = Policy(are_defaults=True) if policy is None else policy
    if policy.are_defaults and not policy.limits:
        priced = baseline is not None and may_compare_costs(baseline, new)
        policy = replace(policy, limits=built_in(policy.scope, with_costs=priced))
    if not policy.limits and not policy.floors:
        raise SettingError("policy", None, f"nothing was checked: give limits with {setting('baseline')}, or floors")
    if policy.limits and baseline is None:
        raise SettingError("baseline", None, f"missing; limits compare with it, a {setting('floor')} needs none")
    notes: list[str] = []
    cases: list[Case] = []
    compared = _Pairs(baseline or new, new)
    for limit in policy.limits:
        assert baseline is not None
        if policy.are_defaults and limit.site is not None and not has_kind(baseline, limit.site):
            continue
        kinds, specs = held_places(limit, baseline)
        if kinds[0] in ("layer", "model"):
            known = cost_specs(new) if kinds == ["layer"] else model_specs(new)
            if lacking := [spec for spec in specs if spec not in known]:
                raise ReportError(
                    f"{limit.text}: the new report has no costs of {', '.join(lacking)}; scan it with costs"
                )
            notes += comparable_costs(baseline, new, allow_other_text=allow_different_model)
        measured = [kind for kind in kinds if kind != "layer" and kind != "model"]
        notes += comparable(baseline, new, measured, specs, allow_different_model=allow_different_model)
        more, untested = _cases(limit, compared, kinds, specs, policy, optional=policy.are_defaults)
        cases, notes = cases + more, notes + untested
    alone = _Pairs(new, new)
    for floor in policy.floors:
        kinds, specs = held_places(floor, new)
        more, untested = _cases(floor, alone, kinds, specs, policy, optional=False)
        cases, notes = cases + more, notes + untested
    notes += _costliest(baseline or new, new) if policy.are_defaults else []
    if not cases:
        names = ", ".join(limit.metric for limit in policy.limits)
        raise ReportError(f"nothing was checked: the baseline has none of {names}")
    problems: list[str] = [note for note in new.warnings if note.level == "error"]
    if baseline is not None and policy.are_defaults:
        problems += [*newly_dead(baseline, new), *newly_equal(baseline, new)]
    return CheckResult(
        passed=not problems and all(case.passed for case in cases),
        baseline=None if baseline is None else baseline.model.id,
        new=new.model.id,
        defaults=policy.are_defaults,
        cases=cases,
        problems=problems,
        notes=list(dict.fromkeys(notes)),
    )


def _costliest(base: Report, new: Report) -> list[str]:
    """What no built-in limit holds: the dearest layer under each format, or that no costs are known."""
    if not has_costs(new) or not has_costs(base):
        return weakness(new) or weakness(base)
    notes = []
    for spec in cost_specs(new):
        series = cost_series(new, spec)
        layer, value = max(zip(series.layers, series.values, strict=True), key=lambda pair: pair[1])
        said = f"layer {layer} costs most, {series.metric.text(value)}; no built-in limit holds it"
        notes.append(f"{series.title}: {said}, only one that is given")
    return notes


class _Pairs:
    """The pairs of two reports by kind, format and by layer or module, merged once for all limits."""

    def __init__(self, base: Report, new: Report) -> None:
        self._base, self._new = base, new
        self._made: dict[tuple[Place, str, By], list[Pair]] = {}

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


def _cases(
    limit: Limit | Factor | Floor,
    compared: _Pairs,
    kinds: Sequence[Place],
    specs: Sequence[str],
    policy: Policy,
    *,
    optional: bool,
) -> tuple[list[Case], list[str]]:
    """One case per kind and format in which the metric is measured, and notes of where it is not.

    Raises ReportError when it is measured nowhere and the limit is not `optional`.
    """
    wanted = None if limit.layers is None else set(parse_layers(limit.layers))
    cases: list[Case] = []
    notes: list[str] = []
    which = "this report" if isinstance(limit, Floor) else "the baseline"
    for kind in kinds:
        for spec in specs:
            # what one module lost is not made good by its neighbours
            by: By = "module" if limit.metric in _OF_MODULES and kind != "layer" else policy.by
            members = [p for p in compared.of(kind, spec, by) if wanted is None or p.layer in wanted]
            findings = [f for p in members if (f := _finding(limit, p, policy)) is not None]
            if findings:
                cases.append(_case(limit, kind, spec, members[0].mode, findings))
            unknown = [p.name for p in members if math.isnan(p.values(limit.metric)[0])]
            if unknown:
                names = ", ".join(unknown[:8]) + (" ..." if len(unknown) > 8 else "")
                notes.append(f"not held to {limit.text}, {which} has no {limit.metric}: {kind} {spec} {names}")
    if not cases and not optional:
        where = f"layers {limit.layers}" if limit.layers else "any layer or site"
        raise ReportError(f"{limit.text} matches nothing: {limit.metric} is not known for {where} of {which}")
    return cases, notes


def _case(
    limit: Limit | Factor | Floor, kind: Place, spec: str, mode: Mode | None, findings: Sequence[Finding]
) -> Case:
    metric = limit.of
    ranked = sorted(findings, key=lambda f: -_excess(metric, f))
    return Case(
        kind=kind,
        format=spec,
        mode=mode,
        limit=limit.text,
        metric=metric.name,
        unit=metric.unit,
        checked=len(findings),
        worst=ranked[0],
        failures=[f for f in ranked if not f.passed],
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
        within_noise=not passed and within_noise(pair.change(metric.name), pair.error(metric)),
        implausible=_implausible(metric, base, value, policy.implausible_gain),
    )


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
