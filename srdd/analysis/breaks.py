"""The sigma at which noise breaks a model: predicted from its noise sensitivities, or measured by a probe.

A model is said to break where its loss rises by a tenth, the probe's own limit. Where labels are as the model expects
them noise costs as much loss as KL, so the break is predicted where the KL is a tenth of the loss.

Not here: measuring it (srdd.runs.experiments.probe), and how much noise to give (dose.py).

Worked number: traces of 1,548 cost 774 nats at sigma 1; a loss of 2.96 breaks at sqrt(0.296 / 774) = 0.0196.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from srdd.core.modes import MODES, mode_title
from srdd.core.uncertainty import jackknife
from srdd.documents.costs import Cost
from srdd.documents.parts import other_model
from srdd.documents.probe import Break, Probe
from srdd.documents.report import Report
from srdd.documents.rin import Dose, RinConfig
from srdd.errors import ReportError, SettingError, setting

RISE = 0.1  # of the loss, at the break
MOST = 0.5  # of the break: what may be given without being asked twice
PREDICTED = "predicted"
_ERRORS = 2  # standard errors in an interval


@dataclass(frozen=True)
class Breaking:
    """A sigma before multipliers, its interval of about 95 %, and "predicted" or the mode of the probe."""

    sigma: float
    interval: tuple[float, float] | None
    source: str


def is_breaking(config: RinConfig) -> bool:
    """Whether a document starts above half of the break, as far as one is known."""
    dose = config.dose
    if dose is None or dose.break_sigma is None:
        return False
    return config.schedule.sigma_start > MOST * dose.break_sigma * (1 + 1e-9)


def refuse_breaking(config: RinConfig) -> None:
    """Raises SettingError for a document that does."""
    dose, start = config.dose, config.schedule.sigma_start
    if dose is not None and is_breaking(config):
        raise SettingError(
            "sigma_start",
            f"{start:.3g}",
            f"more than half of the sigma at which the model breaks ({dose.break_sigma:.3g}, {source_in_words(dose)}); "
            f"lower it, or take it all the same with {setting('force')}",
        )


def source_in_words(dose: Dose) -> str:
    """ "predicted for the model as it is", "measured in W4A4"."""
    if dose.break_source == PREDICTED:
        return "predicted for the model as it is"
    return f"measured in {dose.break_source}"


def predicted_break(report: Report, at_one: Cost) -> Breaking | None:
    """For noise that costs `at_one` at sigma 1; None where the loss of the model is not known."""
    clean = report.costs.clean if report.costs is not None else None
    if clean is None or clean.loss.value <= 0 or at_one.value <= 0:
        return None
    sigma = math.sqrt(RISE * clean.loss.value / at_one.value)
    losses, noise = clean.loss.by_unit, at_one.by_unit
    error = math.nan
    if len(losses) == len(noise):
        error = jackknife([math.sqrt(RISE * a / b) for a, b in zip(_without(losses), _without(noise), strict=True)])
    interval = None if math.isnan(error) else (max(sigma - _ERRORS * error, 0.0), sigma + _ERRORS * error)
    return Breaking(sigma, interval, PREDICTED)


def _without(values: list[float]) -> list[float]:
    return [fmean(values[:i] + values[i + 1 :]) for i in range(len(values))] if len(values) > 1 else []


def probed_break(report: Report, config: RinConfig, probe: Probe, mode: str | None) -> Break:
    """The probe's break of uniform noise. Raises ReportError, SettingError for a probe of something else."""
    for field, mine, theirs in other_model(report.model, probe.model):
        raise ReportError(f"the probe is of another model: {field} is {theirs}, in the report {mine}")
    settings, spec = probe.settings, config.provenance.quant
    if spec and settings.format != spec:
        raise SettingError("probe", None, f"it is of {settings.format}, and the multipliers of {spec}")
    if config.target not in settings.targets:
        raise SettingError("probe", None, f"its noise is on {', '.join(settings.targets)}, not on {config.target}")
    if settings.relative != config.relative:
        units = "in units of each weight's rms" if settings.relative else "absolute"
        raise SettingError("probe", None, f"its sigmas are {units}; choose the same by {setting('relative')}")
    chosen = _probed_mode(probe, mode)
    found = next((b for b in probe.breaks if (b.mode, b.target, b.profile) == (chosen, config.target, "global")), None)
    if found is None or found.sigma is None:
        why = (found.note if found else "") or "it was not looked for"
        raise ReportError(f"the probe found no break of {chosen}: {why}; probe other sigmas")
    return found


def _probed_mode(probe: Probe, mode: str | None) -> str:
    """As the probe calls it; without `mode` that of weights and inputs, else the last."""
    known = {name.lower(): name for name in probe.settings.modes}
    titles: dict[str, str] = {m: mode_title(m, probe.settings.format).lower() for m in MODES}
    if mode is None:
        return known.get(titles["both"], probe.settings.modes[-1])
    text = mode.strip().lower()
    chosen = known.get(titles.get(text, text))
    if chosen is None:
        raise SettingError("mode", mode, f"the probe has {', '.join(known)}")
    return chosen


def of_multipliers(config: RinConfig, found: Break) -> Breaking:
    """The break of a document's own multipliers: where they make as much noise as uniform noise has at its break."""
    assert found.sigma is not None
    values = [value * value for value in config.layer_multipliers.values()]
    if config.norm_multipliers:
        values = [value * value for norms in config.norm_multipliers.values() for value in norms.values()]
    loudness = max(math.sqrt(fmean(values)), 1.0)  # fewer noisy layers need not bear more
    interval = None if found.interval is None else (found.interval[0] / loudness, found.interval[1] / loudness)
    return Breaking(found.sigma / loudness, interval, found.mode.upper())
