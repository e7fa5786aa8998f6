"""How much noise: the sigma that a schedule starts with, and what that noise costs.

The noise of a rin.yaml costs about sigma^2 / 2 * sum over weights of multiplier^2 * trace, in nats a token
(sensitivities.py). A sigma comes from what it may cost (`noise_kl`), or from the break that a probe measured times
`safety`, or is given, or is QeRL's 0.01. By default it is never beyond half of the predicted break.

Not here: where the noise goes (strategies.py), what breaks a model (breaks.py), and the schedule over steps
(srdd.documents.schedule).

Worked number: traces of 1,548: noise of 0.05 nats is sigma = sqrt(2 * 0.05 / 1548) = 0.0080.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import ValidationError

from srdd.analysis.breaks import MOST, Breaking, of_multipliers, predicted_break, probed_break
from srdd.analysis.sensitivities import has_sensitivities, sensitivities, summed, unit
from srdd.documents import schedule as schedules
from srdd.documents.costs import Cost
from srdd.documents.parts import Estimate
from srdd.documents.probe import Probe
from srdd.documents.report import Report
from srdd.documents.rin import ChosenBy, Dose, RinConfig, Schedule
from srdd.errors import ConflictError, NoEffectError, SettingError, setting

NOISE_KL, SAFETY = 0.05, 0.5
QERL_START = 0.01  # what QeRL's training scripts start with


@dataclass(frozen=True)
class Course:
    """The schedule as far as a user set it; None: not set. The last sigma is a hundredth of the first, as QeRL's."""

    kind: str = "staged"
    sigma_start: float | None = None
    sigma_end: float | None = None
    num_stages: int | None = None
    warmup_share: float | None = None

    def starting(self, sigma: float) -> Schedule:
        """The schedule from this sigma on. Raises SettingError and NoEffectError, as `Schedule` does."""
        end = sigma if self.kind == "constant" else float(f"{sigma / 100:.3g}")
        try:
            return Schedule(
                kind=self.kind,  # type: ignore[arg-type]  # pydantic refuses any other
                sigma_start=sigma,
                sigma_end=end if self.sigma_end is None else self.sigma_end,
                num_stages=10 if self.num_stages is None and self.kind == "staged" else self.num_stages,
                warmup_share=self.warmup_share,
            )
        except ValidationError as problem:
            first = problem.errors()[0]
            field = str(first["loc"][0])
            raise SettingError("schedule" if field == "kind" else field, first["input"], first["msg"]) from problem


@dataclass(frozen=True)
class Amount:
    """What a user asked for; None: not asked. `mode` is the probe's, by name or as "w4a4"."""

    noise_kl: float | None = None
    probe: Probe | None = None
    mode: str | None = None
    safety: float | None = None


def dosed(report: Report, config: RinConfig, course: Course, amount: Amount) -> tuple[RinConfig, list[str]]:
    """The document with its schedule and dose, and in words where the sigma comes from.

    Raises SettingError, ConflictError, NoEffectError, and ReportError for a probe of something else.
    """
    _refuse(course, amount)
    known = has_sensitivities(report, config.target)
    if amount.noise_kl is not None and not known:
        sensitivities(report, config.target)  # says what is missing
    at_one = noise_at_one(report, config) if known else None
    if at_one is not None and not at_one.value > 0:  # the loss does not depend on these weights at all
        at_one = None
    found = None if amount.probe is None else probed_break(report, config, amount.probe, amount.mode)
    if found is None and at_one is not None:
        broken = predicted_break(report, at_one)
    else:
        broken = None if found is None else of_multipliers(config, found)
    sigma, chosen_by, said = _sigma(course, amount, at_one, broken)
    dose = Dose(
        chosen_by=chosen_by,
        predicted_kl=None if at_one is None else _scaled(at_one, sigma**2),
        rms_share=sigma * _rms_ratio(report, config) if known else (sigma if config.relative else None),
        break_sigma=None if broken is None else broken.sigma,
        break_interval=None if broken is None else broken.interval,
        break_source="" if broken is None else broken.source,
    )
    return config.model_copy(update={"schedule": course.starting(sigma), "dose": dose}), said


def noise_at_one(report: Report, config: RinConfig) -> Cost:
    """What the noise of a document would cost at sigma 1, to second order: sigma^2 times that is its cost at sigma.

    Raises ReportError without sensitivities, NoiseError for a layer without a multiplier.
    """
    rows = sensitivities(report, config.target, config.exclude)
    factors = {
        row.name: schedules.multiplier(config, row.layer, row.feeds, 0, 1) * unit(row, relative=config.relative)
        for row in rows
    }
    return _half(summed(factors, rows))


def _refuse(course: Course, amount: Amount) -> None:
    for name, value in (("noise_kl", amount.noise_kl), ("probe", amount.probe)):
        if value is not None and course.sigma_start is not None:
            raise ConflictError("sigma_start", name)
    if amount.noise_kl is not None and amount.probe is not None:
        raise ConflictError("noise_kl", "probe")
    if amount.safety is not None and amount.probe is None:
        raise NoEffectError("safety", f"without {setting('probe')}")
    if amount.noise_kl is not None and not 0 < amount.noise_kl < math.inf:
        raise SettingError("noise_kl", f"{amount.noise_kl:g}", "expected nats a token, above 0")
    if amount.safety is not None and not 0 < amount.safety <= 1:
        raise SettingError("safety", f"{amount.safety:g}", "expected a share of the break, above 0 and up to 1")


def _sigma(
    course: Course, amount: Amount, at_one: Cost | None, broken: Breaking | None
) -> tuple[float, ChosenBy, list[str]]:
    if course.sigma_start is not None:
        return course.sigma_start, "given", []
    if amount.probe is not None and broken is not None:
        safety = SAFETY if amount.safety is None else amount.safety
        said = f"sigma_start is {safety:g} of the break that the probe measured in {broken.source}"
        return _rounded(safety * broken.sigma), "probe", [said]
    if at_one is None:
        return QERL_START, "default", ["sigma_start is QeRL's; what it costs on this model is not known"]
    wanted = NOISE_KL if amount.noise_kl is None else amount.noise_kl
    sigma = math.sqrt(wanted / at_one.value)
    if amount.noise_kl is None and broken is not None and sigma > MOST * broken.sigma:
        said = f"sigma_start is {MOST:g} of the predicted break; {wanted:g} nats a token would be beyond that"
        return _rounded(MOST * broken.sigma), "noise_kl", [said]
    said = f"sigma_start is what costs {wanted:g} nats a token by the noise sensitivities of the report"
    return _rounded(sigma), "noise_kl", [said]


def _rms_ratio(report: Report, config: RinConfig) -> float:
    """The rms of the noise at sigma 1 over the rms of the weights that get it."""
    rows = sensitivities(report, config.target, config.exclude)
    noise = math.fsum(
        row.parameters
        * (schedules.multiplier(config, row.layer, row.feeds, 0, 1) * unit(row, relative=config.relative)) ** 2
        for row in rows
    )
    weights = math.fsum(row.parameters * row.rms**2 for row in rows)
    return math.sqrt(noise / weights) if weights > 0 else math.inf


def _half(cost: Cost) -> Cost:
    if cost.sequences:
        return Cost.of([value / 2 for value in cost.sequences], cost.unit_of)
    return Cost(value=cost.value / 2)


def _scaled(cost: Cost, factor: float) -> Estimate:
    return Estimate(value=cost.value * factor, error=None if cost.error is None else cost.error * factor)


def _rounded(sigma: float) -> float:
    """Down to three digits, so that it costs no more than was asked for; multipliers are rounded to a millionth."""
    step = 10.0 ** (math.floor(math.log10(sigma)) - 2)
    return float(f"{math.floor(sigma / step * (1 + 1e-5)) * step:.3g}")
