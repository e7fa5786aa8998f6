"""Rule "codes": codes that never occur, NaN codes, weights of zeros.

A bit of the codes' bytes that never changes means that half of the format is unused: a lost sign, a lost nibble, 4-bit
integers in 8-bit codes. -0 and 0 are one value, so neither is missed. Weights of few values anyway get a warning.

Not here: scales. Weights of a few hundred bytes are too few to miss anything.

Worked number: MXFP4 of Gaussian values has every one of its 15 values in 1 % of its codes or more.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import and_, or_

from srdd.analysis.audit.facts import Codes, Facts, Module
from srdd.documents.audit import Finding, Grave

_ENOUGH, _PLENTY = 512, 1024  # bytes: to see a bit that never changes, to miss one value
_VALUES = (0, 0.5, 1, 1.5, 2, 3, 4, 6)
_FEW = {4: 3, 8: 16}  # sizes of values: a weight with fewer, ternary for instance, leaves bits unused by design
_CLIPPED = 0.02  # of the codes of FP8 at 448, one for each scale apart


def find(facts: Facts) -> Iterator[Finding]:
    """What the counts of a module's codes tell."""
    for module in facts.packed:
        if module.codes is not None and module.codes.bytes:
            yield from _of(module, module.codes)
        if module.nonfinite:
            yield from _nonfinite(module)


def _of(module: Module, codes: Codes) -> Iterator[Finding]:
    if module.sum_x2 == 0 and not module.nonfinite:
        if codes.bits == 6 or not codes.magnitudes:  # else its scales are zero, which is another rule's
            yield _finding("warning", module, "all of its values are 0", "a weight", "check whether it is meant to be")
        return
    if codes.bytes < _ENOUGH:
        return
    stuck = [bit for bit in range(8) if _is_stuck(codes, bit)]
    few = codes.bits != 6 and len(codes.magnitudes) < _FEW[codes.bits]
    if stuck and not few:
        yield _finding(
            "error", module, f"{_bits(stuck, codes.bits)}: half of the codes or more never occur",
            "every bit of the codes in use", "export it again: a sign, a nibble or a digit is lost",
        )  # fmt: skip
    elif few and codes.bits == 8:
        count = len(codes.magnitudes)
        yield _finding(
            "warning", module, f"{count} size{'s' * (count > 1)} of value, and 0, in all of its codes", "many",
            "check whether the weight has few values by design",
        )  # fmt: skip
    elif codes.bits == 4 and codes.bytes >= _PLENTY:
        by_code = codes.by_code or ()
        missing = [
            f"{'-' if code > 7 else ''}{_VALUES[code & 7]:g}"
            for code, count in enumerate(by_code)
            if not count and code & 7
        ]
        if missing:
            yield _finding(
                "warning", module, f"{len(missing)} of 15 values never occur: {', '.join(missing)}",
                "every value of the format in use", "check whether the weight has few values by design",
            )  # fmt: skip
    if module.family == "FP8" and "E5M2" not in module.form and not few:
        # under a scale of amax / 448 each has a code there, the largest
        top = codes.by_byte[0x7E] + codes.by_byte[0xFE] - (module.scales.count if module.scales else 0)
        if top > _CLIPPED * codes.bytes:
            yield _finding(
                "warning", module, f"{top / codes.bytes:.1%} of its codes are at 448, the largest", "few",
                "compare it with its original: a scale is too small, and values are clipped",
            )  # fmt: skip


def _nonfinite(module: Module) -> Iterator[Finding]:
    """NaN among values whose scales are numbers: their own codes are."""
    scales, whole = module.scales, module.tensor_scale
    if scales is not None and (scales.nan or scales.infinite):
        return
    if whole is not None and any(not 0 < value < float("inf") for value in whole.values):
        return
    yield _finding(
        "error", module, f"{module.nonfinite} of {module.values} values are NaN or infinite", "finite values",
        "export this module again",
    )  # fmt: skip


def _is_stuck(codes: Codes, bit: int) -> bool:
    used = [byte for byte, count in enumerate(codes.by_byte) if count]
    return not reduce(or_, used) >> bit & 1 or bool(reduce(and_, used) >> bit & 1)


def _bits(stuck: list[int], bits: int) -> str:
    if bits == 8 and stuck == [7]:
        return "the sign never changes"
    if bits == 4 and stuck == [3, 7]:
        return "the sign never changes"
    if bits == 4 and stuck in ([0, 1, 2, 3], [4, 5, 6, 7]):
        return f"the {'low' if stuck[0] == 0 else 'high'} nibble of every byte is the same"
    if len(stuck) == 1:
        return f"bit {stuck[0]} of every byte never changes"
    return f"bits {', '.join(map(str, stuck))} of every byte never change"


def _finding(level: Grave, module: Module, found: str, expected: str, advice: str) -> Finding:
    return Finding(level=level, kind="codes", module=module.name, found=found, expected=expected, advice=advice)
