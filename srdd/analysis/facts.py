"""Which model was measured and how, and the warnings that belong before any number, as plain text.

Not here: verdicts (overview.py) and markup. Nothing of provenance: no time, no place on a machine.

Worked number: 134,515,008 parameters of which 134,479,872 are measured are "99.97 % of the parameters".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from srdd.analysis.bundle import Bundle
from srdd.analysis.layer_costs import weakness
from srdd.analysis.overview import KIND_TITLES
from srdd.analysis.rankings import AGREE, agreement
from srdd.documents.parts import Kind
from srdd.documents.report import Report

_LISTED = 5


def facts(report: Report) -> list[tuple[str, str]]:
    """Label and text, in the order in which they are shown."""
    model, settings, coverage = report.model, report.settings, report.coverage
    rows = [("Model", f"{model.id}{f' at {model.revision}' if model.revision else ''}")]
    layers = f"{model.layer_count} layers" if model.layer_count else "layers unknown"
    rows.append(("Architecture", f"{model.architecture or 'unknown'}, {layers}, {model.parameter_count:,} parameters"))
    rows.append(("Formats with rules", ", ".join(settings.formats)))
    rows.append(
        ("Measured", ", ".join(KIND_TITLES[kind] for kind in settings.kinds) + f": {len(report.sites):,} sites")
    )
    if settings.selection:
        rows.append(("Only", settings.selection))
    if settings.calibration:
        c = settings.calibration
        rows.append(("Tokens", f"{c.tokens:,} ({len(c.sequence_hashes)} sequences of {c.seq_len}) from {c.source}"))
    if "weight" in settings.kinds and coverage.parameters:
        reasons = Counter(row.reason.partition(":")[0] for row in coverage.skipped)
        rest = f"; left out: {', '.join(f'{n} x {why}' for why, n in reasons.items())}" if reasons else ""
        rows.append(("Coverage", f"{coverage.share:.2%} of the parameters{rest}"))
    rows.append(("Computed in", f"{settings.dtype} on {settings.device}, kernel {settings.backend}"))
    if model.weights_hash:
        rows.append(("Hash of the weights", model.weights_hash[:16]))
    return rows


def warnings(bundle: Bundle, kinds: Sequence[Kind]) -> list[str]:
    """Gravest first: tensors with NaN, what was not covered, metrics that say nothing, rankings that disagree."""
    report = bundle.report
    gravest_first = sorted(report.warnings, key=lambda note: note.level not in ("dead", "error"))
    texts: list[str] = [*gravest_first, *weakness(report)]
    idle = report.coverage.uncovered
    if idle:
        more = f" and {len(idle) - _LISTED} more" if len(idle) > _LISTED else ""
        texts.append(f"{len(idle)} expert(s) got no tokens and have no inputs here: {', '.join(idle[:_LISTED])}{more}")
    zero = dict.fromkeys(row.format for row in report.summary if row.zero_by_construction)
    if zero:
        texts.append(f"saturation_ratio is zero by construction under {', '.join(zero)}: their rule never clips")
    texts += _disagreements(report, kinds)
    if bundle.impact is not None:
        texts += [f"impact: {text}" for text in unsaid(report, bundle.impact.warnings)]
    return [*texts, *bundle.notes]


def unsaid(report: Report, warnings: Sequence[str]) -> list[str]:
    """Another document's warnings that the report does not give itself."""
    return [text for text in warnings if text not in report.warnings]


def _disagreements(report: Report, kinds: Sequence[Kind]) -> list[str]:
    """One sentence for all kinds and formats in which SQNR and relative error rank the layers differently."""
    places, cases = [], 0
    for kind in kinds:
        for spec in report.settings.formats:
            layers = [layer for layer in report.layers if layer.kind == kind and spec in layer.formats]
            rankings = agreement(layers, spec, 10)
            cases += rankings is not None
            if rankings and rankings.spearman < AGREE:
                places.append(f"{KIND_TITLES[kind]} {spec} ({rankings.spearman:.2f})")
    if not places:
        return []
    said = f"SQNR and relative error rank the layers differently in {len(places)} of {cases} cases"
    return [f"{said}; Spearman, 1 is agreement: {', '.join(places)}"]
