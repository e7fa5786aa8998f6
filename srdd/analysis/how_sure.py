"""How sure the answers about a report are, in sentences: errors, the worth of what ranks, the firmness of its order.

A flagged layer is "firm" when it lies beyond a limit by more than two of its standard errors; weights have no such
error, they are measured whole.

Not here: the answers (overview.py).

Worked number: a limit of 33.2 % and a layer at 34.0 +- 0.3 %: 0.8 is more than 2 x 0.3, the layer is firm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from srdd.analysis.first_look import series_by
from srdd.analysis.rankings import agreement
from srdd.analysis.screen import screen
from srdd.analysis.trust import trust_in
from srdd.core.metrics import significant
from srdd.core.units import ENOUGH
from srdd.documents.advice import Flagged
from srdd.documents.parts import Calibration, Kind
from srdd.documents.report import Report
from srdd.documents.schema import Layer
from srdd.errors import OptionError, ReportError

TOP = 10  # worst layers that two rankings are compared by
FIRM = 2.0  # standard errors


def trust(report: Report, kind: Kind, spec: str, metric: str) -> list[str]:
    """How well what ranks tells the cost, and how far its order is firm."""
    try:
        series = series_by(report, kind, spec, metric)
    except (OptionError, ReportError):
        return []
    said = trust_in(report, series)
    return [f"{said}."] if said else []


def firm_order(report: Report) -> list[str]:
    """How far the layers' order by cost holds against their errors."""
    facts = screen(report)
    firm = facts.firmness if facts is not None else None
    if firm is None or firm.units < 2:
        return []
    if not firm.layers:
        return ["The first two layers are within two standard errors of each other: the order is rough."]
    above = significant(firm.above)
    return [f"The order of the layers is firm down to {above}: each is two standard errors above the next."]


def error_of(layer: Layer, spec: str, name: str) -> float:
    """The standard error of a metric over units of text; nan where there are none."""
    measured = layer.formats[spec]
    return measured.error(name) if measured.sequences else math.nan


def is_firm(layer: Layer, spec: str, flagged: Flagged, limits: dict[str, float]) -> bool | None:
    """Whether a flagged layer is beyond a limit by more than FIRM of its standard errors; None: it has none."""
    errors = {name: error_of(layer, spec, name) for name in flagged.beyond}
    if not any(math.isfinite(error) for error in errors.values()):
        return None
    return any(abs(value - limits[name]) > FIRM * errors[name] for name, value in flagged.beyond.items())


def units_in_words(calibration: Calibration) -> str:
    """What the errors are taken over: "16 calibration sequences", "5 documents (16 calibration sequences)"."""
    sequences = f"{len(calibration.sequence_hashes)} calibration sequences"
    if calibration.unit_of is None:
        return sequences
    what = "documents" if len(set(calibration.documents)) > 1 else "parts of one document"
    return f"{calibration.units} {what} ({sequences})"


def errors(
    report: Report,
    kind: Kind,
    layers: Sequence[Layer],
    spec: str,
    flagged: dict[int, Flagged],
    limits: dict[str, float],
) -> list[str]:
    """What the numbers' own errors are, and how many flagged layers are firm."""
    if kind == "weight":
        return ["Weights are measured whole: their numbers have no sampling error."]
    calibration = report.settings.calibration
    if calibration is None or calibration.units < 2 or not any(layer.formats[spec].sequences for layer in layers):
        return ["No standard errors: they need two texts or more, and a report with sums."]
    text = f"± is one standard error over {units_in_words(calibration)}"
    few = "; with so few it is rough itself, scan more of them" if calibration.units < ENOUGH else ""
    firm = [is_firm(layer, spec, flagged[layer.layer], limits) for layer in layers if layer.layer in flagged]
    if not firm:
        return [f"{text}{few}."]
    beyond = f"{sum(map(bool, firm))} of {len(firm)} flagged layers are beyond a limit by more than {FIRM:g} of them"
    return [f"{text}{few}.", f"{beyond}."]


def rankings(layers: Sequence[Layer], spec: str) -> list[str]:
    """Whether SQNR and relative error agree."""
    found = agreement(layers, spec, TOP)
    return [found.sentence()] if found else []
