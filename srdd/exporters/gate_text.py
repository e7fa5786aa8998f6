"""The sentences of a verdict: which layer, which metric, base, new, limit. JUnit, Markdown and the terminal share them.

Not here: verdicts. Worked number: "output mxfp4:even layer 7: sqnr_db 16.00 dB, baseline 19.00, bound 18.50".
"""

from __future__ import annotations

import math

from srdd.gate import Case, Finding
from srdd.metrics import RANKED


def failure_text(case: Case) -> list[str]:
    """One sentence per failure, furthest beyond first."""
    return [sentence(case, finding) for finding in case.failures]


def worst_text(case: Case) -> str:
    """What came closest to the limit."""
    return f"{case.checked} checked; closest: {sentence(case, case.worst)}"


def implausible_text(case: Case, finding: Finding) -> str:
    """Why a gain is looked at twice."""
    return f"implausible gain, is this the right file? {sentence(case, finding)}"


def sentence(case: Case, finding: Finding) -> str:
    """One layer against one limit."""
    text, unit = RANKED[case.metric].text, f" {case.unit}" if case.unit else ""
    new = "not measured" if math.isnan(finding.new) else f"{text(finding.new)}{unit}"
    base = "" if finding.base is None else f", baseline {text(finding.base)}"
    noise = ", change within noise" if finding.within_noise and not finding.passed else ""
    bound = text(finding.bound)
    return f"{case.kind} {case.format} {finding.name}: {case.metric} {new}{base}, bound {bound} ({case.limit}){noise}"
