"""The gate: a report held to limits beside a baseline, and to floors without one; the verdict follows from data alone.

Not here: what limits are (limits.py), whether two reports may be compared (comparability.py), printing. A limit that is
given is checked on every decoder layer and on every site outside the layers (lm_head), the built-in ones by module on
every Linear, for each kind of site and format they hold for. A value that the baseline has and the new report lacks
fails; a value that the baseline lacks is held to nothing, and that is said. A gain beyond a factor passes but is
flagged: an error halved between two checkpoints is more often the wrong file than a gain.

Worked number: "sqnr_db=-0.5" with 19.0 dB in the baseline of layer 7 and 16.0 dB now: bound 18.5, failed, named.
"""

from __future__ import annotations

from dataclasses import replace

from srdd.analysis.comparison.beginning import beginning, changed_weights, place_of
from srdd.analysis.comparison.cases import Held, Pairs, case_of, held_by
from srdd.analysis.comparison.comparability import comparable
from srdd.analysis.comparison.costs import comparable_costs, model_specs
from srdd.analysis.comparison.dead import newly_dead, newly_equal, newly_rearranged
from srdd.analysis.comparison.held_places import (
    counts_blocks,
    has_kind,
    held_places,
    may_compare_costs,
    may_compare_predictions,
)
from srdd.analysis.comparison.limits import Factor, Floor, Limit
from srdd.analysis.comparison.older import sharing_documents
from srdd.analysis.comparison.pairing import sequence_order
from srdd.analysis.comparison.policy import Policy, built_in
from srdd.analysis.comparison.recalled import RecalledReport, recall
from srdd.analysis.layer_costs import cost_specs, has_costs, weakness
from srdd.documents.baseline import Baseline
from srdd.documents.check import Case, CheckResult
from srdd.documents.comparison import Beginning
from srdd.documents.parts import Kind, Place, same_sequences
from srdd.documents.report import Report
from srdd.errors import ReportError, SettingError, setting

_COSTS: tuple[Place, ...] = ("layer", "model")
_OF_ZEROS = ("zero_ratio", "zero_ratio_after")


def check(
    new: Report,
    baseline: Report | Baseline | None,
    policy: Policy | None = None,
    *,
    allow_different_model: bool = False,
    allow_other_text: bool = False,
) -> CheckResult:
    """Hold `new` to the policy, by default the built-in limits, which need a baseline.

    On other text of the same kind and length errors are those of two samples: what the gate finds there is less.

    Raises SettingError for limits without a baseline, ReportError for what differs and for limits that match nothing.
    """
    policy = Policy(are_defaults=True) if policy is None else policy
    baseline = recall(baseline) if isinstance(baseline, Baseline) else baseline
    if baseline is not None:
        baseline, new = sharing_documents(baseline, new)
    if policy.are_defaults and not policy.limits:
        priced = baseline is not None and may_compare_costs(baseline, new)
        counted = baseline is not None and counts_blocks(baseline) and counts_blocks(new)
        predicted = baseline is not None and may_compare_predictions(baseline, new)
        made = built_in(policy.scope, with_costs=priced, with_layer_costs=predicted, with_blocks=counted)
        policy = replace(policy, limits=made)
    if not policy.limits and not policy.floors:
        raise SettingError("policy", None, f"nothing was checked: give limits with {setting('baseline')}, or floors")
    if policy.limits and baseline is None:
        raise SettingError("baseline", None, f"missing; limits compare with it, a {setting('floor')} needs none")
    notes: list[str] = _of_slim(baseline, new) if isinstance(baseline, RecalledReport) else []
    held: list[Held] = []
    seen: list[tuple[list[Kind], list[str]]] = []  # most limits hold for the same sites
    compared = Pairs(baseline or new, new)
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
            notes += comparable_costs(baseline, new, allow_other_text=allow_different_model or allow_other_text)
        measured: list[Kind] = [kind for kind in kinds if kind != "layer" and kind != "model"]
        if (measured, specs) not in seen:
            seen.append((measured, specs))
            notes += comparable(
                baseline,
                new,
                measured,
                specs,
                allow_different_model=allow_different_model,
                allow_other_text=allow_other_text,
            )
        more, untested = held_by(limit, compared, kinds, specs, policy, optional=policy.are_defaults)
        held, notes = held + more, notes + untested
    alone = Pairs(new, new)
    for floor in policy.floors:
        kinds, specs = held_places(floor, new)
        more, untested = held_by(floor, alone, kinds, specs, policy, optional=False)
        held, notes = held + more, notes + untested
    notes += _costliest(baseline or new, new) if policy.are_defaults else []
    if not held:
        names = ", ".join(limit.metric for limit in policy.limits)
        raise ReportError(f"nothing was checked: the baseline has none of {names}")
    sizes = families(held)
    moved = baseline is None or _may_have_moved(baseline, new)
    cases = [case_of(one, policy, sizes[one.kind in _COSTS], moved=moved) for one in held]
    problems: list[str] = [note for note in new.warnings if note.level == "error"]
    if baseline is not None and not any(limit.metric in _OF_ZEROS for limit in _given(policy)):
        problems += newly_dead(baseline, new)  # whoever prunes on purpose says so by a limit on zeros
    if baseline is not None and policy.limits:
        problems += [*newly_equal(baseline, new), *newly_rearranged(baseline, new)]
    began = None if baseline is None else beginning(baseline, new)
    return CheckResult(
        passed=not problems and all(case.passed for case in cases),
        baseline=None if baseline is None else baseline.model.id,
        new=new.model.id,
        defaults=policy.are_defaults,
        cases=cases,
        problems=problems,
        beginning=began,
        first=_first(cases, new, began),
        notes=list(dict.fromkeys(notes)),
    )


def _may_have_moved(base: Report, new: Report) -> bool:
    """Whether a weight changed, or none was measured, so that it is not known."""
    changed, weights = changed_weights(base, new)
    return bool(changed) or not weights


def _given(policy: Policy) -> tuple[Limit | Factor, ...]:
    """The limits that a user wrote."""
    return () if policy.are_defaults else policy.limits


def families(held: list[Held]) -> dict[bool, int]:
    """By whether it is of costs, the tests that share the level of 5 %: a weight is no sample, and a floor no change.

    Costs are few and decide, so they are not outnumbered by error statistics: where there are both, each has half.
    """
    tests = {False: 0, True: 0}
    for one in held:
        if one.kind != "weight" and not isinstance(one.limit, Floor) and not one.limit.of.of_maximum:
            tests[one.kind in _COSTS] += len(one.places)
    return {family: count * 2 if all(tests.values()) else count for family, count in tests.items()}


def _of_slim(base: RecalledReport, new: Report) -> list[str]:
    """What a slim baseline makes of the check."""
    notes = [
        "the baseline is a slim one: its values are rounded to the worse side, and changes of sqnr_db are not paired"
    ]
    a, b = base.settings.calibration, new.settings.calibration
    if a is not None and b is not None and same_sequences(a, b) and sequence_order(a, b) is None:
        notes.append("the slim baseline does not know the documents of its text: no change is paired; write it anew")
    return notes


def _costliest(base: Report, new: Report) -> list[str]:
    """What no built-in limit holds: the dearest layer under each format, or that no costs are known."""
    if not has_costs(new) or not has_costs(base):
        return weakness(new) or weakness(base)
    if may_compare_predictions(base, new):
        return []
    from srdd.analysis.series import cost_series  # takes as long to import as a tenth of a check

    notes = []
    for spec in cost_specs(new):
        series = cost_series(new, spec)
        layer, value = max(zip(series.layers, series.values, strict=True), key=lambda pair: pair[1])
        said = f"layer {layer} costs most, {series.metric.text(value)}; no built-in limit holds it"
        notes.append(f"{series.title}: {said}, only one that is given")
    return notes


def _first(cases: list[Case], new: Report, began: Beginning | None) -> tuple[int, int] | None:
    """Which case and which of its failures to name first: the tensor to blame, else what a pass reaches first."""
    sites: dict[tuple[Place, str], tuple[float, float, int]] = {
        (site.kind, site.name): place_of(site.kind, site.layer, site.index) for site in new.sites
    }

    def order(place: tuple[int, int]) -> tuple[bool, tuple[float, float, int]]:
        case = cases[place[0]]
        name = case.failures[place[1]].name
        layer = int(name.removeprefix("layer ")) if name.startswith("layer ") else None
        blamed = began is not None and (case.kind, name) in (
            (began.kind, began.name),
            (began.kind, f"layer {began.layer}"),
        )
        return not blamed, sites.get((case.kind, name), place_of("output", layer, 0.0))

    failed = [(i, j) for i, case in enumerate(cases) for j in range(len(case.failures))]
    return min(failed, key=order, default=None)
