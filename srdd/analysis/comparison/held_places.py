"""What a limit holds for in a report: kinds of sites and formats, whole layers, or the whole model.

Not here: limits (limits.py) and the verdict (gate.py).

Worked number: "sqnr_db=-0.5" without more holds for every kind and format of the baseline, "kl=+10%" for the whole
model under every format that was measured.
"""

from __future__ import annotations

from srdd.analysis.comparison.costs import by_cost, cost_spec_of, model_specs
from srdd.analysis.comparison.limits import Factor, Floor, Limit
from srdd.analysis.comparison.recalled import Recalled
from srdd.analysis.layer_costs import cost_specs
from srdd.core.formats import parse
from srdd.core.metrics import OF_MODEL
from srdd.documents.parts import KINDS, Kind, Place, same_sequences
from srdd.documents.report import Report
from srdd.errors import ReportError


def held_places(limit: Limit | Factor | Floor, report: Report) -> tuple[list[Place], list[str]]:
    """The kinds and formats of a report that a limit holds for; a cost is of whole layers.

    Raises ReportError when the report has none of them.
    """
    if limit.of in OF_MODEL:
        if limit.site is not None or limit.layers is not None:
            what = f"{limit.site} sites" if limit.site is not None else f"layers {limit.layers}"
            raise ReportError(f"{limit.text}: that is of the whole model, not of {what}")
        whole = model_specs(report)
        if not whole:
            raise ReportError(f"{limit.text}: the whole model was not measured in this report; scan it with costs")
        wanted = whole if limit.quant is None else [spec for spec in whole if _is(spec, limit.quant)]
        if not wanted:
            raise ReportError(f"{limit.text}: the whole model was measured under {', '.join(whole)}")
        return ["model"], wanted
    if by_cost(limit.of, report):
        if limit.site is not None:
            raise ReportError(f"{limit.text}: a cost is of whole layers, not of {limit.site} sites")
        return ["layer"], cost_specs(report) if limit.quant is None else [cost_spec_of(report, limit.quant)]
    present = [kind for kind in KINDS if any(site.kind == kind for site in report.sites)]
    kinds: list[Place] = [kind for kind in present if limit.site in (None, kind)]
    if not kinds:
        raise ReportError(f"{limit.text}: the report has {', '.join(present) or 'no sites'}")
    known = report.settings.formats
    if limit.quant is None:
        return kinds, list(known)
    spec = limit.quant if limit.quant in known else parse(limit.quant).spec
    if spec not in known:
        raise ReportError(f"{limit.text}: the report has {', '.join(known)}, not {spec}")
    return kinds, [spec]


def _is(spec: str, name: str) -> bool:
    return name == spec or parse(name).spec == spec


def may_compare_costs(base: Report, new: Report) -> bool:
    """Whether the whole model was measured in both under the same formats, on the same tokens."""
    a, b = base.costs, new.costs
    if a is None or b is None or not same_sequences(a.settings.calibration, b.settings.calibration):
        return False
    known = model_specs(base)
    return bool(known) and set(known) <= set(model_specs(new))


def may_compare_predictions(base: Report, new: Report) -> bool:
    """Whether the predicted KL of layers is known in both under the same formats and modes, on the same tokens."""
    a, b = base.costs, new.costs
    if a is None or b is None or not same_sequences(a.settings.calibration, b.settings.calibration):
        return False
    one, other = ({(r.format, r.mode) for r in c.layers if r.predicted_kl is not None} for c in (a, b))
    return bool(one) and one <= other


def has_kind(report: Report, kind: Kind) -> bool:
    """Whether a report holds sites of a kind."""
    return any(site.kind == kind for site in report.sites)


def counts_blocks(report: Report) -> bool:
    """Whether a report holds counts of single blocks, which older ones do not."""
    return any(
        measured.counts_blocks if isinstance(measured, Recalled) else measured.blocks is not None
        for site in report.sites
        for measured in site.formats.values()
    )
