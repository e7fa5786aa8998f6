"""What is said the same way on a terminal, on the page and in Markdown: probes, experiments, values and changes.

± is the standard error over seeds. A dip of the loss has an error over text too, because seeds alone do not tell
whether other text would show it.

Not here: tables (terminal/probe.py, terminal/experiment.py) and figures (page/noise.py).

Worked number: guided noise breaks at rms 0.030, global at 0.020, each with the same ratio for every seed: "1.500 times
as large (± 0.000, paired by seed): different".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from srdd.core.metrics import Metric
from srdd.documents.probe import Probe, ProbeSettings, Profile, over_seeds

if TYPE_CHECKING:
    from srdd.documents.experiment import ArmResult, ExperimentSettings

_CLEAR = 2.0  # standard errors
_ROUNDING = 1e-9  # smaller changes are left over from float64 sums and shown as 0


def profiles(document: Probe, target: str) -> list[Profile]:
    """The shapes of noise that were tried on a target, in the order of the document."""
    return list(dict.fromkeys(t.profile for t in document.trials if t.target == target))


def limit_of(settings: ProbeSettings) -> str:
    """When noise counts as too much: "loss ratio above 1.1"."""
    return f"{settings.criterion} {'below' if settings.criterion == 'agreement' else 'ratio above'} {settings.limit:g}"


def unit_of(settings: ProbeSettings) -> str:
    """What sigma is counted in."""
    unit = "of each weight's own rms" if settings.relative else "in the weights' units"
    return (
        f"sigma is {unit}; '% of rms' is the noise over the weights' root mean square, which carries over to other "
        "models better than sigma does"
    )


def equal_damage(document: Probe) -> list[str]:
    """Guided and global noise at the sigma where each breaks: who bears more noise for the same damage?"""
    sentences = []
    for row in document.breaks:
        if row.profile != "guided" or row.noise_rms is None:
            continue
        wanted = (row.mode, row.target, "global")
        other = next((b for b in document.breaks if (b.mode, b.target, b.profile) == wanted), None)
        if other is None or not other.noise_rms:
            continue
        ratio = row.noise_rms / other.noise_rms
        pairs = zip(row.by_seed, other.by_seed, strict=False)
        logs = [math.log(a / b) for a, b in pairs if a is not None and b is not None]
        spread = over_seeds([value - sum(logs) / len(logs) for value in logs])
        what = f"{row.mode}, {row.target}: at equal damage guided noise is {ratio:.3f} times as large as global noise"
        error = spread[1] if spread is not None else math.nan
        if math.isnan(error):
            sentences.append(f"{what}; more seeds are needed to tell whether that is chance")
            continue
        clear = abs(math.log(ratio)) > _CLEAR * error
        verdict = "different" if clear else "no difference beyond twice the error over seeds"
        sentences.append(f"{what} (± {ratio * error:.3f}, paired by seed): {verdict}")
    return sentences


def dips(document: Probe) -> list[str]:
    """Noise that lowers the loss: is it more than chance?"""
    said = []
    for mode in document.settings.modes:
        for target, sigmas in document.settings.sigmas.items():
            for profile in profiles(document, target):
                for sigma in sigmas:
                    trials = document.of(mode, target, profile, sigma)
                    change = over_seeds([t.loss_change for t in trials])
                    if change is None or change[0] >= 0:
                        continue
                    text = over_seeds([t.sequence_error for t in trials])
                    what = f"{mode}, {target}, {profile}: sigma {sigma:g} lowers the loss by {-change[0]:.4f}"
                    if text is None or math.isnan(change[1]):
                        said.append(f"{what}; more seeds and sequences are needed to tell whether that is chance")
                        continue
                    error = math.hypot(change[1], text[0])
                    real = "beyond" if -change[0] > _CLEAR * error else "within"
                    said.append(f"{what} ± {error:.4f} (seeds and text): {real} twice its error")
    return said


def measured_loss(settings: ExperimentSettings) -> str:
    """What the losses of an experiment are."""
    return "loss under noise" if settings.kind == "inference" else "loss on held-out text after fine-tuning, no noise"


def conditions(settings: ExperimentSettings) -> list[str]:
    """How it was trained and what was planted; nothing for plain inference."""
    said = []
    if settings.train is not None:
        train = settings.train
        said.append(
            f"training: {train.steps} steps of {train.batch_size} sequences, {train.optimizer}, learning rate "
            f"{train.learning_rate:g}, sigma {settings.sigma_start:g} to {settings.sigma_end:g} ({train.schedule})"
        )
    if settings.fault:
        layer = settings.fault.get("layer", math.nan)
        kinds = [f"{kind.replace('_', ' ')} {size:g}" for kind, size in settings.fault.items() if kind != "layer"]
        said.append(f"planted fault: {', '.join(kinds)} at layer {layer:g}")
    return said


def layers_of(arm: ArmResult) -> str:
    """Which layers had noise: "none", "all, and outside them", "0, 1, 2" or "7, drawn for each seed"."""
    distinct = {tuple(layers) for layers in arm.layers}
    if len(distinct) > 1:
        return f"{len(arm.layers[0])}, drawn for each seed"
    layers = distinct.pop() if distinct else ()
    if not layers:
        return "none" if arm.name != "dither" else "the hidden state before the fault"
    return "all, and outside them" if arm.name == "global" else ", ".join(map(str, layers))


def loss_of(arm: ArmResult) -> str:
    """ "4.0872 ± 0.4676", mean and standard deviation over seeds, or that it collapsed."""
    if arm.collapses or arm.mean is None:
        return f"collapsed in {arm.collapses} of {len(arm.losses)}"
    return f"{arm.mean:.4f}" + ("" if arm.std is None else f" ± {arm.std:.4f}")


def value_text(metric: Metric, value: float) -> str:
    """A value for people: as `Metric.text`, with more digits where the unit is none (a cosine of 0.9962)."""
    plain = metric.unit == "" and math.isfinite(value)
    return f"{value:.4g}" if plain else metric.text(value)


def change_text(metric: Metric, change: float, error: float = math.nan) -> str:
    """A change with its sign and, where known, its standard error: "-3.01 ± 0.02". Ratios in percentage points."""
    text = "-" if math.isnan(change) else _signed(metric, change)
    return text if math.isnan(change) or math.isnan(error) else f"{text} ± {_signed(metric, error)[1:]}"


def _signed(metric: Metric, change: float) -> str:
    shown = 100 * change if metric.unit == "%" else change
    if abs(shown) < _ROUNDING:
        shown = 0.0
    coarse = shown == 0 or (abs(shown) >= 0.01 and metric.unit != "")
    return f"{shown:+.2f}" if coarse or math.isinf(shown) else f"{shown:+.2g}"
