"""Rule "kept": embeddings and routers that are packed, which deployment stacks keep in 16 bits.

vLLM serves quantized embeddings in integers alone; a router decides over experts with a few bits of difference.
"""

from __future__ import annotations

from collections.abc import Iterator

from srdd.analysis.audit.facts import Facts
from srdd.documents.audit import Finding


def find(facts: Facts) -> Iterator[Finding]:
    """Every packed module that is no weight of a Linear or of experts."""
    for module in facts.packed:
        if not module.is_site:
            yield Finding(
                level="warning",
                kind="kept",
                module=module.name,
                found=f"stored in {module.form}",
                expected="16 bits: most stacks read embeddings and routers in no other form",
                advice="leave it out of the targets",
            )
