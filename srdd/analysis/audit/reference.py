"""Rule "reference": matrices that are far from the 16-bit original, and why: permuted, transposed, scaled, another's.

An error of 4 bits is 0.1 to 0.3 of the weight; two unrelated weights differ by 1.4. So 0.5 says that something other
than quantization is wrong.

Not here: the sums and the matching (srdd.runs.audit).

Worked number: two experts in each other's place have a relative error of 1.41 each, and each fits the other's
original at 0.1.
"""

from __future__ import annotations

from collections.abc import Iterator

from srdd.analysis.audit.facts import Compared, Facts
from srdd.analysis.audit.orders import named
from srdd.documents.audit import Finding

FAR = 0.5  # relative rms of the error
_ALIKE = 0.75  # squared cosine: the same values but for a factor
_FACTOR = 1.25
_SOME = 2  # matrices, of which all may be wrong one by one
_OTHER = "see whether both are of one training step, and no rotation or smoothing was folded in"


def is_off(matrix: Compared) -> bool:
    """Whether something other than quantization is wrong with it."""
    error, gain = matrix.relative_rms, matrix.gain
    if error is None or gain is None:
        return matrix.packed2 > 0
    return error > FAR or matrix.wrong_rows > 0 or not 1 / _FACTOR < gain < _FACTOR


def find(facts: Facts) -> Iterator[Finding]:
    """One finding for a matrix, with the first explanation that fits; one in all where every matrix is another."""
    if len(facts.compared) > _SOME and all(map(_is_unrelated, facts.compared)):
        errors = [matrix.relative_rms or 0.0 for matrix in facts.compared]
        yield Finding(
            level="error",
            kind="reference",
            module=facts.compared[0].name,
            found=f"none of {len(errors)} matrices is near the reference's (relative error from {min(errors):.3g} on)",
            expected="the 16-bit original of these weights",
            advice=_OTHER,
        )
        return
    for matrix in facts.compared:
        if matrix.reference2 == 0:
            if matrix.packed2 > 0:
                yield _finding(matrix, "all zero in the reference, and not here")
        elif is_off(matrix):
            found, advice = _why(matrix)
            yield _finding(matrix, found, advice)


def _is_unrelated(matrix: Compared) -> bool:
    """Whether nothing is known of it but that it is far off."""
    told = matrix.inverted or matrix.holds or matrix.transposed or matrix.permuted or matrix.packed2 == 0
    return (matrix.relative_rms or 0.0) > FAR and not told and matrix.cosine2 < _ALIKE


def _why(matrix: Compared) -> tuple[str, str]:
    error, gain = matrix.relative_rms or 0.0, matrix.gain or 0.0
    if matrix.inverted is not None and matrix.factor is not None:
        way = "the inverse of what its form means: its readers multiply where it was made to divide, or the other way"
        return (
            f"{matrix.factor:.4g} times the reference; it fits with {matrix.inverted} inverted",
            f"{matrix.inverted.rpartition('.')[2]} is {way}; write 1 / its value",
        )
    if matrix.holds is not None:
        return f"it is the reference's {matrix.holds} (relative error {error:.3g})", "put them in their places"
    if matrix.transposed:
        return f"it is the transpose of the reference (relative error {error:.3g})", "export it the other way around"
    if matrix.permuted is not None:
        return (
            f"rows in another order (relative error {error:.3g}): {named(matrix.permuted.order)}",
            "put the rows in the order of the reference, or compare with a reference of the same layout",
        )
    if matrix.packed2 == 0:
        return "all zero, and the reference is not", "export this module again"
    if matrix.cosine2 > _ALIKE and not 1 / _FACTOR < abs(gain) < _FACTOR:
        return f"{gain:.4g} times the reference, with the same values but for that", "look at its scales"
    if matrix.wrong_rows and error <= FAR:
        return f"{matrix.wrong_rows} of {matrix.rows} rows are not the reference's", "export this module again"
    return (
        f"relative error {error:.3g}, and no order of its rows fits",
        _OTHER,
    )


def _finding(matrix: Compared, found: str, advice: str = "export this module again") -> Finding:
    return Finding(
        level="error",
        kind="reference",
        module=matrix.name,
        found=found,
        expected=f"the reference within {FAR:g} of its rms",
        advice=advice,
    )
