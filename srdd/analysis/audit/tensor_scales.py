"""Rule "tensor scales": NVFP4's second scale, one for a tensor: there, a number, and equal where stacks fuse matrices.

q, k and v (gate and up) become one matrix with one tensor scale: stacks take the largest stored number, so that a shard
with another one is off by their ratio. Of the divisors that compressed-tensors stores, the largest is of the smallest
amax.

Not here: torchao, whose exporter shares none and whose readers fuse nothing (`shares`); scales of blocks (scales.py).

Worked number: divisors 2688 for q and 5376 for k: with 5376 for both, q comes out at half of its size.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from srdd.analysis.audit.facts import Facts, Module
from srdd.documents.audit import Finding

_EQUAL = 1.001  # a scale rounded to 16 bits by one and not by another exporter is off by 2^-9, and not written so


def find(facts: Facts) -> Iterator[Finding]:
    """Scales that are no positive number, and sets of matrices with several."""
    matrices: dict[str, list[Module]] = defaultdict(list)
    for module in facts.packed:
        scale = module.tensor_scale
        if scale is None:
            continue
        broken = [value for value in scale.values if not (math.isfinite(value) and value > 0)]
        if broken:
            yield Finding(
                level="error",
                kind="tensor scales",
                module=module.name,
                found=f"{scale.name} is {broken[0]:g}" + _among(len(broken), len(scale.values)),
                expected="a finite number above 0",
                advice="export this module again",
            )
        elif module.matrix is not None and len(scale.values) == 1 and module.shares:
            matrices[module.matrix].append(module)
    for matrix, modules in matrices.items():
        values = {module.name: module.tensor_scale.values[0] for module in modules if module.tensor_scale is not None}
        low, high = min(values.values()), max(values.values())
        if high > low * _EQUAL:
            told = ", ".join(f"{name.rpartition('.')[2]} {value:.6g}" for name, value in values.items())
            yield Finding(
                level="error",
                kind="tensor scales",
                module=matrix,
                found=f"unequal: {told}; fused under the largest, values are off by up to {high / low:.4g} times",
                expected="one tensor scale for matrices that are fused",
                advice="export with the scales of fused layers shared",
            )


def _among(count: int, of: int) -> str:
    return f" for {count} of {of} experts" if of > 1 else ""
