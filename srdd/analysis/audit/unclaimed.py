"""Rule "unclaimed": tensors that no module takes: scales without codes, leftovers, weights of another model.

Not here: weights that are missing (incomplete.py). Heads for further tokens and scales of a cache are known and taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from srdd.analysis.audit.facts import Facts
from srdd.documents.audit import Finding


def find(facts: Facts) -> Iterator[Finding]:
    """One warning for each kind of such tensors."""
    by_look: dict[str, list[str]] = defaultdict(list)
    for name, look in facts.unclaimed.items():
        by_look[look].append(name)
    for look, names in by_look.items():
        more = f", and so on: {len(names)} tensors" if len(names) > 1 else ""
        yield Finding(
            level="warning",
            kind="unclaimed",
            module=names[0],
            found=f"{look}{more}",
            expected="tensors that a module takes",
            advice="see whether the export renamed or left over something",
        )
    for what, only in (("the reference", facts.reference_only), ("the packed checkpoint", facts.packed_only)):
        if only:
            yield Finding(
                level="warning",
                kind="unclaimed",
                module=only[0],
                found=f"only {what} holds it" + (f", and so on: {len(only)} modules" if len(only) > 1 else ""),
                expected="the same modules in both",
                advice="see whether both are of one model",
            )
