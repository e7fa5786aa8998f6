"""The verdict over a faults document: which layer or module is broken, in what kind, how large, how sure.

Evidence is local: a module that does not give what its own weight, input and parts make of it, that gives another
answer to the same question, that turns numbers into NaN, or whose weight holds what no other layer's does. What a
module passes on of a fault before it is no evidence, so the first place is named and not the last. Each number is
compared with that of the same module in all other layers by robust z (srdd.core.verdicts), and must lie `material`
beyond their median.

Not here: measuring (srdd.runs.faults).

Worked number: of 30 layers one has 0.001 of its output at 0 where its parts give numbers, the others none: z is
0.001 / (3e-4 / 3.5) = 12, and the pattern, all of them 0 and below 0.00002 of their token's largest, is a deadzone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from srdd.core.metrics import Metric
from srdd.core.verdicts import Z_LIMIT, robust_z
from srdd.documents.fault import Criterion, Deviation, Faults, Finding, ModuleHealth, WeightHealth, Where
from srdd.documents.parts import Model, other_model
from srdd.documents.report import Report
from srdd.errors import ReportError

STUDY_LIMIT = 0.9
_PATTERN = 0.9  # share of what deviates that must have the pattern of a kind
_OFF = 3e-5  # share of values beyond that of other layers: one of 33,000
_EPS = {"float32": 1.2e-7, "bfloat16": 7.8e-3, "float16": 9.8e-4}
_MEAN = 0.1  # of a weight in its rms, beyond those of other layers; trained ones (MiniLM) have 0.03
_SPREAD = 4  # standard deviations that a mean may be off by chance
_CHANCE = 6  # standard deviations that a count of a weight may be off by chance
_ALIKE = 0.02  # scatter of noise over tokens, in its own unit and in the token's, that is as large
_SAMPLED = 65_536  # values of a weight among which the most frequent one is looked for
_CHANGED = 1e-3  # relative change of what a module did, against a reference on the same text

Counted = tuple[float, int]  # a share, and of how many


def judged(document: Faults, reference: Faults | Report | None = None, sha256: str | None = None) -> Faults:
    """The document with its findings and the study's criterion. Raises ReportError for another model's reference."""
    found = find(document)
    if reference is not None:
        refuse_other_model(document.model, reference)
        found += against_reference(document, reference, found)
    place = {(row.layer, row.module): at for at, row in enumerate(document.modules)}
    found.sort(key=lambda f: (f.layer, not f.module, place[f.layer, f.module]))
    return document.model_copy(
        update={"findings": found, "criterion": criterion(document, found), "compared_with": sha256}
    )


def refuse_other_model(model: Model, reference: Faults | Report) -> None:
    """Raises ReportError when the reference is of another model."""
    for name, theirs, mine in other_model(reference.model, model):
        raise ReportError(f"the reference is of another model: its {name} is {theirs}, this model's is {mine}")


def find(document: Faults) -> list[Finding]:
    """What the document shows by itself."""
    rows = document.modules
    eps = _EPS.get(document.settings.dtype, 1.2e-7)
    unstable = _beyond(rows, lambda r: r.instability, 30 * eps)
    off_out = _beyond(rows, lambda r: r.output.share if r.output else 0.0, _OFF)
    off_in = _beyond(rows, lambda r: r.input.share if r.input else 0.0, _OFF)
    apart = _beyond(rows, lambda r: r.agreement, 30 * eps)
    zeros = _beyond(rows, lambda r: r.zeros_made if r.unexplained is None else None, 0.02)
    numb = _beyond_chance(rows, _zeros_of)
    found: list[Finding] = []
    spoilt: set[int] = set()  # layers from which on nothing is finite
    for at, row in sorted(enumerate(rows), key=lambda r: (r[1].layer, not r[1].module, r[0])):  # a layer ends last
        if row.nonfinite:
            if not row.nonfinite_in and not spoilt:
                found.append(
                    _finding(row, "nonfinite", "output", None, 1.0, f"{row.nonfinite} values of a finite input")
                )
            spoilt.add(row.layer)
            continue
        if row.unstable_at and at in unstable:
            found.append(_noise(row))
            continue
        wrong = _deviating(row, at in off_in, at in off_out)
        if wrong is None and at in numb and (row.module or row.layer not in {f.layer for f in found}):
            what = f"{100 * row.zeros_made:.2g} % of the output is 0 where the input is not"
            wrong = _finding(row, "deadzone", "output", None, 0.9, what)
        if wrong is not None:
            found.append(wrong)
    found += _broken_weights(rows)
    named = {f.layer for f in found}
    for at, row in enumerate(rows):
        if row.layer not in named and (at in apart or at in zeros):
            what = (
                "another device gives other numbers" if at in apart else f"{100 * row.zeros:.2g} % of the output is 0"
            )
            kind, size = ("disagreement", row.agreement) if at in apart else ("deadzone", row.zeros)
            found.append(_finding(row, kind, "output", size, 0.5, what))
            named.add(row.layer)
    return _outermost_last(found)


def _outermost_last(found: Sequence[Finding]) -> list[Finding]:
    """One finding a module and place: a layer whose NaNs began in a module of it is not named beside it."""
    kept: list[Finding] = []
    for finding in found:
        if not any((f.layer, f.module, f.at) == (finding.layer, finding.module, finding.at) for f in kept):
            kept.append(finding)
    return kept


def _beyond_chance(rows: Sequence[ModuleHealth], counted: Callable[[ModuleHealth], Counted | None]) -> set[int]:
    """Places whose share is unusual, and more than counting by chance makes of that of the same module elsewhere."""
    by_name: dict[str, list[float]] = {}
    for row in rows:
        if (known := counted(row)) is not None:
            by_name.setdefault(row.module, []).append(known[0])

    def excess(row: ModuleHealth) -> float | None:
        known = counted(row)
        if known is None:
            return None
        share, count = known
        others = by_name[row.module]
        usual = min(others) if len(others) < 3 else median(others)
        return max(0.0, share - 2 * usual - _CHANCE * (math.sqrt(usual / count) + 1 / count))

    return _beyond(rows, excess, _OFF)


def _zeros_of(row: ModuleHealth) -> Counted | None:
    """Zeros that a layer or Linear makes of other numbers."""
    return (row.zeros_made, row.values) if row.kind in ("layer", "linear") and row.values else None


def _beyond(
    rows: Sequence[ModuleHealth], number: Callable[[ModuleHealth], float | None], material: float, share: float = 0.0
) -> set[int]:
    """Places in `rows` whose number is unusual among those of the same module in other layers.

    It must lie `material`, and `share` of the median, beyond the median.
    """
    by_name: dict[str, dict[str, float | None]] = {}
    for at, row in enumerate(rows):
        by_name.setdefault(row.module, {})[str(at)] = number(row)
    return {int(at) for series in by_name.values() for at in _unusual(series, material, share)}


def _unusual(series: Mapping[str, float | None], material: float, share: float) -> list[str]:
    metric = Metric("fault", "", "down", None, "", material=material, material_share=share)
    z = robust_z(metric, series)
    if z:
        return [key for key, value in z.items() if value > Z_LIMIT]
    known = {key: value for key, value in series.items() if value is not None}
    # too few layers for a median: beyond the least of them, which is 0 where one is healthy
    least = min(known.values(), default=0.0) if len(known) > 1 else 0.0
    return [key for key, value in known.items() if value > least + material]


def _deviating(row: ModuleHealth, off_in: bool, off_out: bool) -> Finding | None:
    at_output = None if row.output is None or not off_out else pattern(row.output)
    at_input = None if row.input is None else pattern(row.input)
    if row.kind != "linear":
        if off_in and at_input is not None:
            assert row.input is not None
            return _finding(row, *_placed(at_input, "input"), _told(row.input))
        if at_output is None:
            return None
        assert row.output is not None
        return _finding(row, *_placed(at_output, "output"), _told(row.output))
    if at_output is None:
        return None
    assert row.output is not None
    if at_output[0] == "error" and at_input is not None and at_input[0] != "error":
        assert row.input is not None
        return _finding(row, *_placed(at_input, "input"), _told(row.input))
    return _finding(row, *_placed(at_output, "output"), _told(row.output))


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


def _noise(row: ModuleHealth) -> Finding:
    assert row.unstable_at is not None
    relative, absolute = row.noise_size or (row.instability, row.instability)
    by_token, by_unit = row.noise_scatter or (0.0, 0.0)
    evidence = f"two runs on the same input differ by {row.instability:.2g} of the output"
    if abs(by_token - by_unit) < _ALIKE:  # after a norm all tokens are of one size
        told = f"{evidence}; of its {absolute:.2g} it cannot be told whether it follows the token's size"
        return _finding(row, "noise", row.unstable_at, relative, 0.5, told)
    kind, size = ("noise", relative) if by_token < by_unit else ("absolute_noise", absolute)
    sure = 1 - min(by_token, by_unit) / max(by_token, by_unit)
    return _finding(row, kind, row.unstable_at, size, 0.5 + sure / 2, evidence)


def _broken_weights(rows: Sequence[ModuleHealth]) -> list[Finding]:
    def of(number: Callable[[WeightHealth], float]) -> Callable[[ModuleHealth], float | None]:
        return lambda row: None if row.weight is None else number(row.weight)

    dead = _beyond(rows, of(lambda w: float(w.dead_columns)), 0.9)
    rows_dead = _beyond(rows, of(lambda w: float(w.dead_rows)), 0.9)
    zeros = _beyond_chance(rows, lambda r: (r.weight.zeros, r.weight.values) if r.weight else None)
    ties = _beyond_chance(rows, lambda r: (r.weight.at_max, r.weight.values) if r.weight else None)
    same = _beyond_chance(rows, lambda r: (r.weight.same, min(r.weight.values, _SAMPLED)) if r.weight else None)
    mean = _beyond(rows, of(lambda w: max(0.0, abs(w.mean) - _SPREAD / math.sqrt(w.values))), _MEAN, 1.0)
    found = []
    for at, row in enumerate(rows):
        w = row.weight
        if w is None:
            continue
        kind: tuple[str, float, str] | None = None
        if at in dead or at in rows_dead:
            count = max(w.dead_columns, w.dead_rows)
            kind = "dead_channel", count, f"{count} channels of the weight are 0"
        elif at in zeros:
            kind = "deadzone", w.zeros, f"{100 * w.zeros:.3g} % of the weight is 0, more than in other layers"
        elif at in same:
            kind = "stuck", w.same, f"{100 * w.same:.3g} % of the weight is one value, more than in other layers"
        elif at in ties:
            kind = "saturation", w.at_max, f"{100 * w.at_max:.3g} % of the weight ties with the largest of its row"
        elif at in mean:
            kind = "bias", w.mean, f"the weight's mean is {w.mean:.2g} of its rms, unlike in other layers"
        if kind is not None:
            found.append(_finding(row, kind[0], "weight", kind[1], 0.8, kind[2]))
    return found


def against_reference(document: Faults, reference: Faults | Report, found: Sequence[Finding]) -> list[Finding]:
    """The first place that differs from the reference, unless a fault is known there or before it."""
    known = {(f.layer, f.module, f.at) for f in found}
    first = min((f.layer for f in found), default=math.inf)
    if isinstance(reference, Report):
        return _against_report(document, reference, known)
    was = {(row.layer, row.module): row for row in reference.modules}
    same_text = _same_run(document, reference)
    more: list[Finding] = []
    for row in document.modules:
        old = was.get((row.layer, row.module))
        if old is None:
            continue
        if row.weight and old.weight and row.weight.sha256 != old.weight.sha256:
            if (row.layer, row.module, "weight") not in known:
                more.append(_changed_weight(row, row.weight, old.weight))
            first = min(first, row.layer)
    if not same_text:
        return more
    for row in document.modules:
        old = was.get((row.layer, row.module))
        if old is not None and row.layer < first and (what := _changed(row, old)):
            return [
                *more,
                _finding(row, "changed", "output", None, 0.5, f"the first that differs from the reference: {what}"),
            ]
    return more


def _same_run(a: Faults, b: Faults) -> bool:
    x, y = a.settings, b.settings
    return (x.calibration.sequence_hashes, x.dtype, x.device, x.seed) == (
        y.calibration.sequence_hashes, y.dtype, y.device, y.seed,
    )  # fmt: skip


def _changed(row: ModuleHealth, old: ModuleHealth) -> str:
    pairs = [("kurtosis", row.kurtosis_out, old.kurtosis_out)]
    pairs += [("gain", a, b) for a, b in zip(row.gains, old.gains, strict=False)]
    for name, new, was in pairs:
        if abs(new - was) > _CHANGED * max(abs(new), abs(was)):
            return f"{name} {was:.5g} became {new:.5g}"
    return ""


def _changed_weight(row: ModuleHealth, new: WeightHealth, old: WeightHealth) -> Finding:
    told = "the weight is not that of the reference"
    more_dead = max(new.dead_columns - old.dead_columns, new.dead_rows - old.dead_rows)
    tries = (
        ("dead_channel", float(more_dead), more_dead > 0),
        ("deadzone", new.zeros - old.zeros, new.zeros - old.zeros > 1e-6),
        ("stuck", new.same - old.same, new.same - old.same > 1e-5),
        ("saturation", new.at_max - old.at_max, new.at_max - old.at_max > 1e-5),
        ("bias", new.mean - old.mean, abs(new.mean - old.mean) > 1e-4 + abs(new.rms / old.rms - 1)),
    )
    for kind, size, holds in tries:
        if holds:
            return _finding(row, kind, "weight", size, 0.9, told)
    return _finding(row, "changed", "weight", abs(new.rms / old.rms - 1), 1.0, told)


def _against_report(document: Faults, report: Report, known: set[tuple[int, str, Where]]) -> list[Finding]:
    """Weights against the sums of a scan: how many are 0, and their power."""
    was: dict[tuple[int, str], tuple[float, float]] = {}
    for site in report.sites:
        tally = next((m.merged() for m in site.formats.values() if m.tally is not None), None)
        if site.kind == "weight" and site.layer is not None and tally is not None and tally.n:
            was[site.layer, site.name] = 1 - tally.nonzero / tally.n, math.sqrt(tally.sum_x2 / tally.n)
    more = []
    for row in document.modules:
        key = next((k for k in was if k[0] == row.layer and row.module and k[1].endswith(f".{row.module}")), None)
        if row.weight is None or key is None or (row.layer, row.module, "weight") in known:
            continue
        zeros, rms = was[key]
        if abs(row.weight.zeros - zeros) > 1e-6 or abs(row.weight.rms - rms) > 1e-5 * rms:
            kind = "deadzone" if row.weight.zeros > zeros + 1e-6 else "changed"
            told = f"the weight is not that of the report: rms {rms:.6g} became {row.weight.rms:.6g}"
            more.append(_finding(row, kind, "weight", row.weight.zeros - zeros, 0.8, told))
    return more


def criterion(document: Faults, found: Sequence[Finding]) -> Criterion | None:
    """The study's: a layer whose gain or kurtosis, quantized to clean, is below the limit."""
    spec = document.settings.format
    if spec is None:
        return None
    layers = [row for row in document.modules if not row.module]
    flagged = [
        row.layer
        for row in layers
        if any(v is not None and v < STUDY_LIMIT for v in (row.quantized_gain, row.quantized_kurtosis))
    ]
    missed = sorted({f.layer for f in found} - set(flagged))
    return Criterion(format=spec, limit=STUDY_LIMIT, flagged=flagged, missed=missed)


def _finding(row: ModuleHealth, kind: str, at: Where, size: float | None, confidence: float, evidence: str) -> Finding:
    return Finding(
        kind=kind,
        layer=row.layer,
        module=row.module,
        at=at,
        size=size,
        confidence=round(confidence, 3),
        evidence=evidence,
    )
