"""What to do about a format, by rule, with every input of the rule shown: by costs where known, else by errors.

Not here: the rules themselves (cost_advice.py, error_advice.py, noise_advice.py), and a search for the best mix of
formats.

Worked number: as in the rules.
"""

from __future__ import annotations

from srdd.analysis.cost_advice import advise_by_cost, priced_spec
from srdd.analysis.error_advice import advise_by_errors
from srdd.analysis.layer_costs import has_costs
from srdd.analysis.noise_advice import advise_noise
from srdd.analysis.series import choose_kind, choose_spec
from srdd.documents.advice import Advice, Against
from srdd.documents.parts import KINDS, Kind
from srdd.documents.probe import Probe
from srdd.documents.report import Report
from srdd.errors import NoEffectError, SettingError, setting


def advise(
    report: Report,
    kind: Kind | None = None,
    spec: str | None = None,
    against: Against | None = None,
    probe: Probe | None = None,
) -> Advice:
    """The advice under one format of the report, e.g. "mxfp4": by what its layers cost, else by their errors.

    `against` is "cost", the default where costs are known and no kind of site is asked for; "format", the margin around
    Gaussian data; or "classic", the report's thresholds. `kind` is of the sites whose errors are judged. A sigma for
    noise in training is named only from the noise sensitivities of the report, or from `probe`. Raises SettingError,
    NoEffectError, and ReportError for a report in which nothing can be judged.
    """
    if kind not in (None, *KINDS):
        raise SettingError("kind", kind, f"expected {', '.join(KINDS)}")
    if against not in (None, "cost", "format", "classic"):
        raise SettingError("against", against, "expected cost, format or classic")
    if against == "cost" or (against is None and kind is None and has_costs(report)):
        if kind is not None:
            raise NoEffectError("kind", f"with {setting('against', 'cost')}, which is of whole layers")
        priced = priced_spec(report, spec, against)
        if priced is not None:
            return _with_noise(advise_by_cost(report, priced), report, probe)
    judged = choose_kind(report, None) if kind is None else kind
    advice = advise_by_errors(report, judged, choose_spec(report, spec), against or "format")
    return _with_noise(advice, report, probe)


def _with_noise(advice: Advice, report: Report, probe: Probe | None) -> Advice:
    return advice.model_copy(update={"noise": advise_noise(report, probe)})
