"""Rule "size": a module whose values are absurdly large or small, beside its siblings or for a weight at all.

Scales that are read the wrong way, divided by in place of multiplied with, put a module off by the square of its scale:
six to eight decades. No reference is needed to see that.

Not here: factors that only a reference shows (reference.py).

Worked number: q_proj has rms 0.04 in 29 layers and 3e5 in one, with a weight_global_scale of 3.7e-4 where its siblings
have 2700: that is 2700^2 times too much.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from statistics import median

from srdd.analysis.audit.facts import Facts, Module
from srdd.documents.audit import Finding, Grave

_FAR, _ODD = 1000.0, 64.0  # times its siblings: an error, a warning
_LARGE, _SMALL = 100.0, 1e-7  # rms that no weight has
_SIBLINGS = 3


def find(facts: Facts) -> Iterator[Finding]:
    """Modules far from the median of their role, or from any weight."""
    by_role: dict[str, list[Module]] = defaultdict(list)
    for module in facts.packed:
        if module.rms:
            by_role[module.role].append(module)
    for modules in by_role.values():
        middle = median(module.rms or 0.0 for module in modules)
        for module in modules:
            rms = module.rms or 0.0
            ratio = rms / middle
            far = max(ratio, 1 / ratio)
            if len(modules) >= _SIBLINGS and far > _ODD and math.isfinite(far):
                told = f"rms {rms:.3g}, {ratio:.3g} times the median of {len(modules)} modules of its role"
                yield _finding("error" if far > _FAR else "warning", module, told, f"about {middle:.3g}")
            elif not _SMALL <= rms <= _LARGE:
                yield _finding("error", module, f"rms {rms:.3g}", "the size of a weight, 0.001 to 1 in most models")


def _finding(level: Grave, module: Module, found: str, expected: str) -> Finding:
    names = [scale.name for scale in (module.tensor_scale, module.scales) if scale is not None]
    local = names[0].rpartition(".")[2] if names else "its scale"
    return Finding(
        level=level,
        kind="size",
        module=module.name,
        found=found,
        expected=expected,
        advice=f"see whether {local} is the inverse of what its readers expect, or damaged",
    )
