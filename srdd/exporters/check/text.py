"""The sentences of a verdict, for JUnit, Markdown and the terminal: which layer and metric, the values, the limit.

One reads "output mxfp4:even layer 7: sqnr_db 16.00 dB, baseline 19.00 dB, bound 18.50 dB (sqnr_db -0.5)".

Not here: the verdict itself (srdd.analysis.comparison.gate).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from srdd.core.metrics import GATED
from srdd.documents.baseline import PAIRED, Baseline
from srdd.documents.check import Case, CheckResult, Finding


def slim_text(baseline: Baseline, size: int) -> str:
    """What a slim baseline is, and what is lost in it."""
    kept = ", ".join([*PAIRED, "sqnr_db"])
    text, costs = baseline.settings.calibration, None if baseline.costs is None else baseline.costs.settings.calibration
    told = [("", text), ("costs over ", costs)]
    parts = [f"{of}{known.units} units of text" for of, known in told if known is not None]
    paired = f"Paired over {' and '.join(parts)}, but for sqnr_db" if parts else "Nothing is paired"
    return (
        f"slim baseline of {baseline.model.id}, {size / 1000:.0f} kB. Lost: metrics other than {kept}, a weight's rms "
        f"and what follows from them; costs of single Linears; more than 0.01 dB, 0.0001 or four digits of a value "
        f"(rounded to the worse side). {paired}{' (neighbours taken together)' if baseline.regrouped else ''}"
    )


def failure_text(case: Case) -> list[str]:
    """One sentence per failure, furthest beyond first."""
    return [sentence(case, finding) for finding in case.failures]


def worst_text(case: Case) -> str:
    """What came closest to the limit."""
    return f"{case.checked} checked; closest: {sentence(case, case.worst)}"


def headline(verdict: CheckResult) -> str:
    """ "PASSED 1,104 checks; closest: ...", "FAILED 1 of 1,104: ..."."""
    checks = sum(case.checked for case in verdict.cases)
    open_ = sum(finding.passed for case in verdict.cases for finding in case.undecided)
    failed = sum(len(case.failures) for case in verdict.cases)
    if verdict.passed:
        near = max(verdict.cases, key=lambda case: nearness(case.worst), default=None)
        closest = "" if near is None or nearness(near.worst) <= 0 else f"; closest: {sentence(near, near.worst)}"
        return f"PASSED {checks:,} checks{f', {open_:,} undecided' if open_ else ''}{closest}"
    if verdict.problems:
        first = verdict.problems[0]
    else:
        case, place = verdict.first or (0, 0)
        chosen, finding = verdict.cases[case], verdict.cases[case].failures[place]
        lost = f"{chosen.kind} {chosen.shown_format} {finding.name}: not measured, so no limit holds: {chosen.metric}"
        first = _named(verdict, lost if math.isnan(finding.new) else sentence(chosen, finding))
    if not failed:
        return f"FAILED, though all of {checks:,} checks hold: {first}"
    return f"FAILED {failed:,} of {checks:,}: {first}"


def _named(verdict: CheckResult, text: str) -> str:
    """A failure, led by the tensor to blame where the failure is another's."""
    began = verdict.beginning
    if began is None or 2 * began.changed_weights > began.weights or began.name in text:
        return text
    if began.kind == "output" and f"layer {began.layer}:" in text:
        return text
    blamed = f"the output of layer {began.layer}" if began.kind == "output" else f"{began.kind} {began.name}"
    return f"since {blamed} changed, {text}"


def nearness(finding: Finding) -> float:
    """How much of what a limit allows is used up: 1 at the bound, 0 for no change; of a floor, 1 over the distance."""
    if finding.base is None:
        distance = abs(finding.new - finding.bound)
        return 0.0 if math.isnan(distance) else 1 / (1 + distance)
    allowed = finding.bound - finding.base
    used = (finding.new - finding.base) / allowed if allowed and math.isfinite(allowed) else 0.0
    return used if math.isfinite(used) else 0.0


def implausible_text(case: Case, finding: Finding) -> str:
    """A gain so large that the file may be the wrong one."""
    return f"implausible gain, is this the right file? {sentence(case, finding)}"


def sentence(case: Case, finding: Finding) -> str:
    """One layer against one limit."""
    base = "" if finding.base is None else f", baseline {_value(case, finding.base)}"
    error = "" if finding.standard_error is None else f", change ± {_value(case, finding.standard_error)}"
    values = f"{_value(case, finding.new)}{base}, bound {_value(case, finding.bound)}"
    return f"{case.kind} {case.shown_format} {finding.name}: {case.metric} {values} ({limit_text(case)}){error}"


def failures(cases: Sequence[Case], most: int) -> list[str]:
    """Failures in sentences, at most `most` a limit, then how many more.

    A layer that was not measured stands once, not once for every limit that it fails.
    """
    unmeasured: dict[str, list[str]] = {}
    for case in cases:
        for finding in case.failures:
            if math.isnan(finding.new):
                unmeasured.setdefault(f"{case.kind} {case.shown_format} {finding.name}", []).append(case.metric)
    lines = [f"{layer}: not measured, so no limit holds: {', '.join(names)}" for layer, names in unmeasured.items()]
    sentences = _some(lines, most, "not measured")
    for case in cases:
        measured = [sentence(case, finding) for finding in case.failures if not math.isnan(finding.new)]
        sentences += _some(measured, most, f"under {case.limit}")
    return sentences


def undecided_text(case: Case, finding: Finding) -> str:
    """What lies beyond its bound by no more than chance may bring, and what would decide."""
    more = f"about {finding.needed:,} documents would decide" if finding.needed else "more text would not decide"
    return f"undecided: {sentence(case, finding)}; {more}"


def limit_text(case: Case) -> str:
    """The limit as it was given; where values are shown in percent and the limit is a ratio, it says so."""
    as_ratio = case.unit == "%" and "%" not in case.limit
    return f"{case.limit} as ratio" if as_ratio else case.limit


def closest_text(case: Case) -> str:
    """ "layer 0: 19.00 dB, bound 18.50 dB", for tables."""
    return f"{case.worst.name}: {_value(case, case.worst.new)}, bound {_value(case, case.worst.bound)}"


def _some(lines: list[str], most: int, what: str) -> list[str]:
    more = len(lines) - most
    return lines[:most] + [f"and {more} more {what}"] * (more > 0)


def _value(case: Case, value: float) -> str:
    if math.isnan(value):
        return "not measured"
    text = GATED[case.metric].text(value)
    return f"{text} {case.unit}" if case.unit and math.isfinite(value) else text
