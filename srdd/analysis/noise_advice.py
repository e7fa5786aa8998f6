"""How much noise a training may start with, where that was measured: by sensitivities of the report, or by a probe.

Error statistics never name a sigma. Not here: the document (multipliers.py) and the rules (dose.py).

Worked number: as in dose.py.
"""

from __future__ import annotations

from srdd.analysis.dose import Amount
from srdd.analysis.multipliers import find_multipliers
from srdd.analysis.sensitivities import has_sensitivities
from srdd.documents.advice import NoiseAdvice
from srdd.documents.probe import Probe
from srdd.documents.report import Report

EQUAL_DAMAGE = "equal-damage"


def recommended_strategy(report: Report) -> str:
    """Noise that costs the same everywhere where sensitivities are known, else the same noise everywhere."""
    return EQUAL_DAMAGE if has_sensitivities(report) else "global"


def advise_noise(report: Report, probe: Probe | None = None) -> NoiseAdvice | None:
    """For noise on norms; None where nothing was measured. Raises ReportError, SettingError for a probe of another."""
    if probe is None and not has_sensitivities(report):
        return None
    strategy = recommended_strategy(report)
    config, _ = find_multipliers(report, strategy=strategy, amount=Amount(probe=probe))
    if config.dose is None:
        return None
    start = config.schedule.sigma_start
    return NoiseAdvice(strategy=strategy, target=config.target, sigma_start=start, dose=config.dose)
