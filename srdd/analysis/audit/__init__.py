"""What is wrong with a packed checkpoint: one rule a file, each a function `find(facts)` that yields findings.

A new kind of finding is a file with `find`, and its name in RULES. Not here: reading (srdd.runs.audit), printing
(srdd.exporters.terminal.audit).

Worked number: q_proj in NVFP4 beside k_proj and v_proj in MXFP8 is one finding of rule "fusion", at error level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from srdd.analysis.audit import (
    claims,
    codes,
    fusion,
    incomplete,
    inputs,
    kept,
    reference,
    scales,
    size,
    tensor_scales,
    unclaimed,
)
from srdd.analysis.audit.facts import Facts
from srdd.documents.audit import Finding

Rule = Callable[[Facts], Iterator[Finding]]
RULES: tuple[Rule, ...] = (
    incomplete.find,
    claims.find,
    fusion.find,
    tensor_scales.find,
    scales.find,
    codes.find,
    size.find,
    reference.find,
    kept.find,
    inputs.find,
    unclaimed.find,
)


def findings(facts: Facts) -> list[Finding]:
    """Of every rule, errors first; among them in the order of the rules and of the file."""
    found = [finding for rule in RULES for finding in rule(facts)]
    return sorted(found, key=lambda finding: finding.level != "error")
