"""A faults document held against an earlier one, or against the weights of a scan report: the first place that differs.

Not here: what a document shows by itself (faults.py).

Worked number: a weight whose digest is another one, and of which 0.4 % more is 0, is a deadzone of 0.004.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from srdd.analysis.fault_patterns import finding
from srdd.documents.fault import Faults, Finding, ModuleHealth, WeightHealth, Where
from srdd.documents.parts import Model, other_model
from srdd.documents.report import Report
from srdd.errors import ReportError, setting

_WEIGHTS_ALONE = "only weights are compared with the reference"
_CHANGED = 1e-3  # relative change of what a module did, against a reference on the same text


def refuse_other_model(model: Model, reference: Faults | Report) -> None:
    """Raises ReportError when the reference is of another model."""
    for name, theirs, mine in other_model(reference.model, model):
        raise ReportError(f"the reference is of another model: its {name} is {theirs}, this model's is {mine}")


def against_reference(
    document: Faults, reference: Faults | Report, found: Sequence[Finding]
) -> tuple[list[Finding], list[str]]:
    """The first place that differs from the reference, unless a fault is known there or before it; and notes.

    Raises ReportError where nothing of it can be compared.
    """
    known = {(f.layer, f.module, f.at) for f in found}
    first = min((f.layer for f in found), default=math.inf)
    if isinstance(reference, Report):
        return _against_report(document, reference, known), [_WEIGHTS_ALONE]
    was = {(row.layer, row.module): row for row in reference.modules}
    same_text = _same_run(document, reference)
    more: list[Finding] = []
    compared = 0
    for row in document.modules:
        old = was.get((row.layer, row.module))
        if old is None:
            continue
        compared += bool(same_text or (row.weight and old.weight))
        if row.weight and old.weight and row.weight.sha256 != old.weight.sha256:
            if (row.layer, row.module, "weight") not in known:
                more.append(_changed_weight(row, row.weight, old.weight))
            first = min(first, row.layer)
    if not compared:
        raise ReportError(
            "nothing of the reference can be compared: it holds no weights of these modules, and ran another text, "
            f"type or device; run both with {setting('depth', 'linear')}, or on the same text"
        )
    if not same_text:
        return more, [f"the reference ran another text, type or device: {_WEIGHTS_ALONE}"]
    for row in document.modules:
        old = was.get((row.layer, row.module))
        if old is not None and row.layer < first and (what := _changed(row, old)):
            told = f"the first that differs from the reference: {what}"
            return [*more, finding(row, "changed", "output", None, 0.5, told)], []
    return more, []


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
            return finding(row, kind, "weight", size, 0.9, told)
    return finding(row, "changed", "weight", abs(new.rms / old.rms - 1), 1.0, told)


def _against_report(document: Faults, report: Report, known: set[tuple[int, str, Where]]) -> list[Finding]:
    """Weights against the sums of a scan: how many are 0, and their power."""
    was: dict[tuple[int, str], tuple[float, float]] = {}
    for site in report.sites:
        tally = next((m.merged() for m in site.formats.values() if m.tally is not None), None)
        if site.kind == "weight" and site.layer is not None and tally is not None and tally.n:
            was[site.layer, site.name] = 1 - tally.nonzero / tally.n, math.sqrt(tally.sum_x2 / tally.n)
    more, compared = [], 0
    for row in document.modules:
        key = next((k for k in was if k[0] == row.layer and row.module and k[1].endswith(f".{row.module}")), None)
        if row.weight is None or key is None:
            continue
        compared += 1
        if (row.layer, row.module, "weight") in known:
            continue
        zeros, rms = was[key]
        if abs(row.weight.zeros - zeros) > 1e-6 or abs(row.weight.rms - rms) > 1e-5 * rms:
            kind = "deadzone" if row.weight.zeros > zeros + 1e-6 else "changed"
            told = f"the weight is not that of the report: rms {rms:.6g} became {row.weight.rms:.6g}"
            more.append(finding(row, kind, "weight", row.weight.zeros - zeros, 0.8, told))
    if not compared:
        raise ReportError(
            f"nothing of the reference can be compared: the report holds no weights of these modules; scan with "
            f"{setting('sites', 'weight')}"
        )
    return more
