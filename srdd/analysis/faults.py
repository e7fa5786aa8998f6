"""The verdict over a faults document: which layer or module is broken, in what kind, how large, how sure.

Evidence is local: a module that does not give what its own weight, input and parts make of it, that gives another
answer to the same question, that turns numbers into NaN, or whose weight holds what no other layer's does. What a
module passes on of a fault before it is no evidence, so the first place is named and not the last. Each number is
compared with that of the same module in all other layers by robust z (srdd.core.verdicts), and must lie `material`
beyond their median.

Not here: measuring (srdd.runs.faults), kinds of faults (fault_patterns.py), references (fault_reference.py).

Worked number: of 30 layers one has 0.001 of its output at 0 where its parts give numbers, the others none: z is
0.001 / (3e-4 / 3.5) = 12, and the pattern, all of them 0 and below 0.00002 of their token's largest, is a deadzone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from srdd.analysis.fault_patterns import deviating, finding, noise
from srdd.analysis.fault_reference import against_reference, refuse_other_model
from srdd.core.metrics import Metric
from srdd.core.verdicts import Z_LIMIT, robust_z
from srdd.documents.fault import Criterion, Faults, Finding, ModuleHealth, WeightHealth
from srdd.documents.report import Report

STUDY_LIMIT = 0.9
_OFF = 3e-5  # share of values beyond that of other layers: one of 33,000
_EPS = {"float32": 1.2e-7, "bfloat16": 7.8e-3, "float16": 9.8e-4}
_MEAN = 0.1  # of a weight in its rms, beyond those of other layers; trained ones (MiniLM) have 0.03
_SPREAD = 4  # standard deviations that a mean may be off by chance
_CHANCE = 6  # standard deviations that a count of a weight may be off by chance
_SAMPLED = 65_536  # values of a weight among which the most frequent one is looked for

Counted = tuple[float, int]  # a share, and of how many


def judged(document: Faults, reference: Faults | Report | None = None, sha256: str | None = None) -> Faults:
    """The document with its findings and the study's criterion. Raises ReportError for a reference that is of another
    model or knows nothing to compare."""
    found, notes = find(document), list(document.warnings)
    if reference is not None:
        refuse_other_model(document.model, reference)
        more, said = against_reference(document, reference, found)
        found, notes = found + more, notes + said
    place = {(row.layer, row.module): at for at, row in enumerate(document.modules)}
    found.sort(key=lambda f: (f.layer, not f.module, place[f.layer, f.module]))
    return document.model_copy(
        update={
            "findings": found,
            "criterion": criterion(document, found),
            "compared_with": sha256,
            "warnings": notes,
        }
    )


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
                    finding(row, "nonfinite", "output", None, 1.0, f"{row.nonfinite} values of a finite input")
                )
            spoilt.add(row.layer)
            continue
        if row.unstable_at and at in unstable:
            found.append(noise(row))
            continue
        wrong = deviating(row, at in off_in, at in off_out)
        if wrong is None and at in numb and (row.module or row.layer not in {f.layer for f in found}):
            what = f"{100 * row.zeros_made:.2g} % of the output is 0 where the input is not"
            wrong = finding(row, "deadzone", "output", None, 0.9, what)
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
            found.append(finding(row, kind, "output", size, 0.5, what))
            named.add(row.layer)
    return _outermost_last(found)


def _outermost_last(found: Sequence[Finding]) -> list[Finding]:
    """One finding a module and place: a layer whose NaNs began in a module of it is not named beside it."""
    kept: list[Finding] = []
    for one in found:
        if not any((f.layer, f.module, f.at) == (one.layer, one.module, one.at) for f in kept):
            kept.append(one)
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
            found.append(finding(row, kind[0], "weight", kind[1], 0.8, kind[2]))
    return found


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
