"""What kind of fault the deviations of a module are, by the pattern that they have, and how large it is.

Not here: whether a module stands out (faults.py), and what deviates (srdd.runs.faults).

Worked number: of the values that are not what they must be 95 % are 0, and of the small ones 1 % are spared: a
deadzone, whose size is the largest magnitude that became 0 over the token's largest.
"""

from __future__ import annotations

from srdd.documents.fault import Deviation, Finding, ModuleHealth, Where

_PATTERN = 0.9  # share of what deviates that must have the pattern of a kind
_ALIKE = 0.02  # scatter of noise over tokens, in its own unit and in the token's, that is as large


def deviating(row: ModuleHealth, off_in: bool, off_out: bool) -> Finding | None:
    """What a module shows that gives other values than its parts make; None where it does not stand out."""
    at_output = None if row.output is None or not off_out else pattern(row.output)
    at_input = None if row.input is None else pattern(row.input)
    if row.kind != "linear":
        if off_in and at_input is not None:
            assert row.input is not None
            return finding(row, *_placed(at_input, "input"), _told(row.input))
        if at_output is None:
            return None
        assert row.output is not None
        return finding(row, *_placed(at_output, "output"), _told(row.output))
    if at_output is None:
        return None
    assert row.output is not None
    if at_output[0] == "error" and at_input is not None and at_input[0] != "error":
        assert row.input is not None
        return finding(row, *_placed(at_input, "input"), _told(row.input))
    return finding(row, *_placed(at_output, "output"), _told(row.output))


def _placed(found: tuple[str, float | None, float], at: Where) -> tuple[str, Where, float | None, float]:
    return found[0], at, found[1], found[2]


def pattern(d: Deviation) -> tuple[str, float | None, float]:
    """Kind, size, and share of what deviates that has the kind's pattern; "error" for none that is known."""
    if d.zeroed >= _PATTERN:
        if d.spared < 0.2:
            return "deadzone", d.threshold, d.zeroed
        if d.heads and d.in_channels >= _PATTERN:
            return "dead_head", d.heads, d.zeroed
        if d.in_channels >= _PATTERN:
            return "dead_channel", d.channels, d.zeroed
        return "deadzone", d.threshold, d.zeroed * (1 - d.spared)
    if d.same >= _PATTERN and d.in_channels >= 0.5:
        return "stuck", d.share, d.same
    if d.flipped >= _PATTERN:
        return "bit_flip", d.share, d.flipped
    if d.clamped >= _PATTERN:
        return "saturation", d.limit, d.clamped
    if abs(d.offset) > 5 * d.spread:
        return "bias", d.offset, 1 - d.spread / abs(d.offset)
    return "error", d.relative, max(0.0, 1 - max(d.zeroed, d.same, d.flipped, d.clamped)) / 2


def _told(d: Deviation) -> str:
    inferred = "" if d.explained == 1.0 else f", inferred from the output ({100 * d.explained:.4g} % of it explained)"
    return f"{100 * d.share:.3g} % of the values are not what they must be, by {d.relative:.2g} of the whole{inferred}"


def noise(row: ModuleHealth) -> Finding:
    """A module that answers the same question differently: noise of its output's size, or of one size throughout."""
    assert row.unstable_at is not None
    relative, absolute = row.noise_size or (row.instability, row.instability)
    by_token, by_unit = row.noise_scatter or (0.0, 0.0)
    evidence = f"two runs on the same input differ by {row.instability:.2g} of the output"
    if abs(by_token - by_unit) < _ALIKE:  # after a norm all tokens are of one size
        told = f"{evidence}; of its {absolute:.2g} it cannot be told whether it follows the token's size"
        return finding(row, "noise", row.unstable_at, relative, 0.5, told)
    kind, size = ("noise", relative) if by_token < by_unit else ("absolute_noise", absolute)
    sure = 1 - min(by_token, by_unit) / max(by_token, by_unit)
    return finding(row, kind, row.unstable_at, size, 0.5 + sure / 2, evidence)


def finding(row: ModuleHealth, kind: str, at: Where, size: float | None, confidence: float, evidence: str) -> Finding:
    """One finding at the place of a row."""
    return Finding(
        kind=kind,
        layer=row.layer,
        module=row.module,
        at=at,
        size=size,
        confidence=round(confidence, 3),
        evidence=evidence,
    )
