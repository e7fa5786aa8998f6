"""What probe and experiment documents add to the page: curves over sigma, breaks, arms, comparisons, sentences.

Every sigma gets its place on the axis here: the axis is logarithmic, and sigma 0 stands one step left of the smallest.

Not here: figures (probe.js, experiment.js) and the sentences themselves (srdd.exporters.wording).

Worked number: sigmas 0.01 and 0.02 stand at their own values, sigma 0 at 0.01 * 0.01 / 0.02 = 0.005.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from srdd.analysis.facts import unsaid
from srdd.documents.experiment import ArmResult, Experiment
from srdd.documents.probe import Baseline, Break, Probe, Profile, Trial, over_seeds
from srdd.documents.report import Report
from srdd.exporters.page.columns import Number, number
from srdd.exporters.wording import (
    conditions,
    dips,
    equal_damage,
    layers_of,
    limit_of,
    loss_of,
    measured_loss,
    profiles,
    unit_of,
)

_STEP = 2.0  # from the only sigma to the place of sigma 0
# name, title, digits, times, of a trial, of the mode without noise
_Measure = tuple[str, str, int, float, Callable[[Trial], float | None], Callable[[Baseline], float | None]]
_MEASURES: tuple[_Measure, ...] = (
    ("loss", "loss, nats per token", 3, 1, lambda t: t.loss, lambda b: b.loss),
    ("entropy", "entropy, nats per token", 3, 1, lambda t: t.entropy, lambda b: b.entropy),
    ("agreement", "same top token as without noise %", 1, 100, lambda t: t.top1, lambda b: 1.0),
    ("kl", "KL against no noise, nats per token", 4, 1, lambda t: t.kl, lambda b: 0.0),
)


def probe_data(document: Probe | None, report: Report) -> dict[str, Any] | None:
    """Charts by target, each with a curve per profile, mode and measure."""
    if document is None:
        return None
    settings = document.settings
    return {
        "facts": f"{settings.format}, {_seeds(len(settings.seeds))}, {settings.calibration.tokens:,} tokens; "
        f"{unit_of(settings)}",
        "limit": limit_of(settings),
        "seeds": len(settings.seeds),
        "modes": settings.modes,
        "measures": [{"name": name, "title": title, "digits": digits} for name, title, digits, *_ in _MEASURES],
        "charts": [_chart(document, target) for target in settings.targets],
        "breaks": [_break(row) for row in document.breaks],
        "said": [*_collapses(document), *equal_damage(document), *dips(document)],
        "warnings": unsaid(report, document.warnings),
    }


def _chart(document: Probe, target: str) -> dict[str, Any]:
    sigmas = document.settings.sigmas.get(target, [])
    return {
        "target": target,
        "ticks": ["0", *(f"{sigma:g}" for sigma in sigmas)],
        "places": _places(sigmas),
        "profiles": [
            {
                "name": profile,
                "curves": [_curve(document, mode, target, profile, sigmas) for mode in document.settings.modes],
            }
            for profile in profiles(document, target)
        ],
    }


def _places(sigmas: Sequence[float]) -> list[Number]:
    positive = sorted({sigma for sigma in sigmas if sigma > 0})
    if not positive:
        return [1, *(1 for _ in sigmas)]
    zero = positive[0] * (positive[0] / positive[1] if len(positive) > 1 else 1 / _STEP)
    return [number(sigma if sigma > 0 else zero) for sigma in (0.0, *sigmas)]


def _curve(document: Probe, mode: str, target: str, profile: Profile, sigmas: Sequence[float]) -> dict[str, Any]:
    """Mean and standard error over seeds, the mode without noise first; the error of that, or of one seed, is None."""
    cells = [document.of(mode, target, profile, sigma) for sigma in sigmas]
    base = next((row for row in document.baselines if row.mode == mode), None)
    found: dict[str, Any] = {
        "mode": mode,
        "relative": [0, *(number(cell[0].relative) if cell else None for cell in cells)],
        "lost": [0, *(sum(t.loss is None for t in cell) for cell in cells)],
    }
    for name, _, _, times, of_trial, of_base in _MEASURES:
        pairs = [over_seeds([of_trial(t) for t in cell]) for cell in cells]
        start = None if base is None else of_base(base)
        found[name] = {
            "mean": [_scaled(start, times), *(_scaled(p[0] if p else None, times) for p in pairs)],
            "error": [None, *(_scaled(p[1] if p else None, times) for p in pairs)],
        }
    return found


def _scaled(value: float | None, times: float) -> Number:
    return None if value is None or not math.isfinite(value) else number(times * value)


def _break(row: Break) -> dict[str, Any]:
    return {
        "mode": row.mode,
        "target": row.target,
        "profile": row.profile,
        "sigma": row.sigma if row.sigma and row.sigma > 0 else None,
        "interval": row.interval if row.interval and row.interval[0] > 0 else None,
        "relative": _scaled(row.relative, 100),
        "note": row.note,
    }


def _collapses(document: Probe) -> list[str]:
    """Sigmas at which a loss was not finite, as sentences."""
    cells = dict.fromkeys((t.mode, t.target, t.profile, t.sigma) for t in document.trials if t.loss is None)
    said = []
    for mode, target, profile, sigma in cells:
        trials = document.of(mode, target, profile, sigma)
        lost = sum(t.loss is None for t in trials)
        what = f"{mode}, {target}, {profile}: sigma {sigma:g}"
        said.append(f"{what} collapsed the model with {lost} of {len(trials)} seeds (a loss that is not finite)")
    return said


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"


def experiment_data(document: Experiment | None, report: Report) -> dict[str, Any] | None:
    """Arms with the loss of every seed, comparisons, the verdict and how it was run."""
    if document is None:
        return None
    settings = document.settings
    return {
        "verdict": document.verdict,
        "measured": measured_loss(settings),
        "facts": f"{settings.format} {settings.mode}, noise on {settings.target} weights, "
        f"{_seeds(len(settings.seeds))}; layers ranked by {settings.ranked_by}",
        "seeds": settings.seeds,
        "arms": [_arm(arm) for arm in document.arms],
        "comparisons": [row.model_dump(mode="json") for row in document.comparisons],
        "said": conditions(settings),
        "warnings": unsaid(report, document.warnings),
    }


def _arm(arm: ArmResult) -> dict[str, Any]:
    return {
        "name": arm.name,
        "meaning": arm.meaning,
        "layers": layers_of(arm),
        "rms": arm.noise_rms[0] if any(arm.noise_rms) else None,
        "losses": arm.losses,
        "mean": arm.mean,
        "text": loss_of(arm),
    }
