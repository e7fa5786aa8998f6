"""Rule "scales": NaN, infinite, negative, zero and saturated scales of blocks, rows, tiles or tensors.

A zero scale over codes that are all zero is how some exporters store a block of zeros. A scale of 448 is saturated only
where many blocks have it: the largest block of a tensor has it by definition.

Not here: the tensor scale of NVFP4 (tensor_scales.py).

Worked number: NVFP4 of Gaussian values has 448 in one block of a tensor, and with a tensor scale of half the size, so
that everything above is clipped, in most.
"""

from __future__ import annotations

from collections.abc import Iterator

from srdd.analysis.audit.facts import Facts, Module, Scales
from srdd.documents.audit import Finding, Grave

_POWERS = ("U8", "F8_E8M0")
_ENOUGH = 64  # scales: of fewer, several may be the largest by chance
_MANY, _MOST = 0.02, 0.25  # of the scales at 448
_SPREAD = 2.0**40  # from the largest scale of a tensor to its smallest, for weights have no such range
_LOST = 0.5  # of the blocks with codes


def find(facts: Facts) -> Iterator[Finding]:
    """Every kind of broken scale a module has."""
    for module in facts.packed:
        if module.scales is not None:
            yield from _of(module, module.scales)


def _of(module: Module, scales: Scales) -> Iterator[Finding]:
    for count, called in ((scales.nan, "NaN"), (scales.infinite, "infinite"), (scales.negative, "negative")):
        if count:
            yield _finding("error", module, scales, count, called, "finite scales above 0")
    if scales.zero_over_codes:
        level: Grave = "error" if scales.zero_over_codes >= _LOST * scales.count else "warning"
        yield _finding(level, module, scales, scales.zero_over_codes, "0 over codes that are not", "0 over zeros alone")
    if scales.dtype in _POWERS and scales.at_top:
        yield _finding("error", module, scales, scales.at_top, "2^127", "scales of the size of the weights")
    elif scales.low and scales.high and scales.high > _SPREAD * scales.low and not _lowest_power(scales):
        yield _finding(
            "warning", module, scales, scales.count, f"from {scales.low:.3g} to {scales.high:.3g}",
            "scales of one weight within 12 decades",
        )  # fmt: skip
    share = scales.at_top / scales.count if scales.count else 0.0
    if scales.dtype == "F8_E4M3" and scales.count >= _ENOUGH and share > _MANY and not _of_one_size(module):
        yield _finding(
            "error" if share > _MOST else "warning", module, scales, scales.at_top, "448, the largest of their type",
            "448 in few blocks; the tensor scale is too small, and larger blocks are clipped",
        )  # fmt: skip


def _lowest_power(scales: Scales) -> bool:
    """Whether the smallest is 2^-127, the scale of a block of zeros."""
    return scales.dtype in _POWERS and scales.low is not None and scales.low < 2.0**-126


def _of_one_size(module: Module) -> bool:
    """Weights of one magnitude, as ternary ones are, fill every block to its largest code."""
    counts = module.codes.by_code if module.codes is not None else None
    return counts is not None and len(counts) == 16 and not any(counts[1:7]) and not any(counts[9:15])


def _finding(level: Grave, module: Module, scales: Scales, count: int, called: str, expected: str) -> Finding:
    local = scales.name.rpartition(".")[2]
    of = f"{count} of {scales.count} are" if scales.count > 1 else "is"
    return Finding(
        level=level,
        kind="scales",
        module=module.name,
        found=f"{local}: {of} {called}",
        expected=expected,
        advice="export this module again" if level == "error" else "compare it with its 16-bit original",
    )
