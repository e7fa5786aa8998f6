"""Rule "inputs": scales of activations, of formats that calibrate them: numbers, and there for all modules of a group.

Not here: scales of weights. Unequal ones within a group are common and harmless: stacks take the largest.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from srdd.analysis.audit.facts import Facts, Module
from srdd.documents.audit import Finding


def find(facts: Facts) -> Iterator[Finding]:
    """Scales that are no positive number, and groups of which only some modules have one."""
    groups: dict[str, list[Module]] = defaultdict(list)
    for module in facts.packed:
        scale = module.input_scale
        broken = [] if scale is None else [v for v in scale.values if not (math.isfinite(v) and v > 0)]
        if scale is not None and broken:
            yield Finding(
                level="error",
                kind="inputs",
                module=module.name,
                found=f"{scale.name} is {broken[0]:g}",
                expected="a finite number above 0",
                advice="calibrate and export again",
            )
        groups[f"{module.matrix or module.name}, {module.form}"].append(module)
    for modules in groups.values():
        without = [module for module in modules if module.input_scale is None]
        if without and len(without) < len(modules):
            has = next(module for module in modules if module.input_scale is not None)
            yield Finding(
                level="error",
                kind="inputs",
                module=without[0].name,
                found=f"no scale of its inputs, and {has.name.rpartition('.')[2]}, which is fused with it, has one",
                expected="one for each, or for none",
                advice="calibrate and export again",
            )
