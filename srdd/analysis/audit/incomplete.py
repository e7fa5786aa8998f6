"""Rule "incomplete": codes without the scales that they need, scales of another shape, weights that no tensor holds."""

from __future__ import annotations

from collections.abc import Iterator

from srdd.analysis.audit.facts import Facts
from srdd.documents.audit import Finding


def find(facts: Facts) -> Iterator[Finding]:
    """Every damaged module, and every weight of the model that the files lack."""
    for line in facts.damaged:
        tensor, _, said = line.partition(" ")
        found, _, expected = said.partition("; ")
        yield Finding(
            level="error",
            kind="incomplete",
            module=tensor,
            found=found,
            expected=expected.removeprefix("expected ") or "codes with all of their scales",
            advice="export this module again, or get the files again",
        )
    for name in facts.lacking:
        yield Finding(
            level="error",
            kind="incomplete",
            module=name,
            found="no tensor holds this weight, and the model of config.json has it",
            expected="a tensor for every weight",
            advice="get the missing file, or export again",
        )
