"""`run_aqn`: the comparison of noise strategies with controls, seeds and tests.

Not here: opening models, the terminal. Every seed has its own text (inference) or its own training order (train), the
same for all arms, so that seeds stand for text and noise together. What the report ranks decides the targeted arm; the
healthy and random arms are its controls. The verdict may be that nothing was shown.

    result = run_aqn(model, sequences, "mxfp4", errors, ranked_by="...", kind="inference", seeds=range(5))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import get_args

from torch import Tensor, nn

from srdd.core.faults import Fault
from srdd.core.formats import BlockFormat
from srdd.core.formats import parse as parse_format
from srdd.core.modes import Mode
from srdd.documents.experiment import (
    ArmResult,
    Experiment,
    ExperimentSettings,
    Measured,
    PairedTest,
    TrainSettings,
)
from srdd.documents.parts import Model
from srdd.documents.rin import Schedule, Target
from srdd.errors import CalibrationError, NoEffectError, ReportError, SettingError, setting
from srdd.models.fake import EXCLUDE, left_out_by
from srdd.models.faults import check_place, planted_in
from srdd.models.quantizer import Quantizer
from srdd.models.running import evaluating
from srdd.runs.calibration import Sequences, check_batch_size
from srdd.runs.experiments import arm_trial, profiles
from srdd.runs.experiments.arm_trial import Setting, Training
from srdd.runs.experiments.arms import Arm, make_arms, pairs_of
from srdd.runs.experiments.fault import check_fault
from srdd.runs.experiments.modes import name_of, parse_mode
from srdd.runs.experiments.paired_tests import compare
from srdd.runs.setup import Progress, open_loss_run, silent

FEW = 5  # seeds below which a reader is warned
# (arm, place of the seed, seed) -> loss, None where it is not finite, and the noise's root mean square
Trial = Callable[[Arm, int, int], tuple[float | None, float]]


def run_aqn(
    model: nn.Module,
    sequences: Tensor | Sequences,
    spec: str | BlockFormat,
    errors: Sequence[float],
    *,
    ranked_by: str,
    report_sha256: str = "",
    kind: Measured = "inference",
    mode: str | None = None,
    target: Target = "rmsnorm",
    schedule: Schedule,
    relative: bool = False,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    worst: int | None = None,
    samples: int = 2,
    training: Training | None = None,
    fault: Fault | None = None,
    batch_size: int = 1,
    exclude: str | Sequence[str] = (),
    default_exclude: Sequence[str] = EXCLUDE,
    backend: str = "auto",
    identity: Model | None = None,
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> Experiment:
    """Losses of all arms and their comparisons. `errors` has one value per layer, larger is worse.

    `sequences` must hold `samples` for every seed (inference), or `samples` held out and the rest to train on. Raises
    SettingError, NoEffectError, ReportError, CalibrationError, NoiseError.
    """
    fmt = parse_format(spec)
    quantized = _mode(mode, fmt)
    profiles.check_target(target)
    check_batch_size(batch_size)
    _check_trials(kind, seeds, samples, training)
    _check_errors(errors, layers := profiles.layer_count(model))
    if fault is not None:
        check_fault(fault, layers, training=training is not None)
        check_place(model, fault)
    worst = max(1, layers // 4) if worst is None else worst
    arms = make_arms(errors, worst, fault=fault is not None)
    repeats = len(seeds) * (1 if training is None else training.steps)
    run = open_loss_run(model, sequences, [fmt], repeats=repeats, backend=backend, identity=identity)
    exclude = left_out_by(exclude, default_exclude)
    quantizer = Quantizer(fmt, run.backend, kept={} if kind == "inference" else None)
    shared = Setting(model, quantized, quantizer, exclude, target, schedule, relative, fault, batch_size, run.device)
    trial = _trial(shared, training, run.token_ids, samples, seeds)
    with evaluating(model):
        losses, noise = _run_arms(trial, arms, seeds, progress)
    comparisons = compare(losses, pairs_of(arms))
    return Experiment(
        model=run.identity,
        settings=ExperimentSettings(
            kind=kind,
            format=fmt.spec,
            mode=name_of(quantized, fmt),
            target=target,
            sigma_start=schedule.sigma_start,
            sigma_end=schedule.sigma_end,
            relative=relative,
            seeds=list(seeds),
            worst=worst,
            ranked_by=ranked_by,
            report_sha256=report_sha256,
            fault=None if fault is None else {"layer": fault.layer, fault.kind: fault.size},
            samples=samples,
            train=None if training is None else _train_settings(training, schedule, samples, len(run.token_ids)),
            exclude=exclude,
            **run.settings(),
        ),
        arms=[_arm(arm, seeds, losses[arm.name], noise[arm.name]) for arm in arms],
        comparisons=comparisons,
        verdict=verdict_of(comparisons),
        warnings=[*notes, *planted_in(model), *_named(fault), *_warnings(seeds)],
        provenance=run.provenance(),
    )


def verdict_of(comparisons: Sequence[PairedTest]) -> str:
    """One sentence on the question: is guided noise better than its controls?"""
    by_pair = {(row.a, row.b): row for row in comparisons}
    against = [by_pair["targeted", other] for other in ("global", "random", "healthy")]
    won = [row.b for row in against if row.verdict == f"targeted is better than {row.b}"]
    lost = [row.b for row in against if row.verdict == f"{row.b} is better than targeted"]
    if len(won) == len(against):
        return "targeted noise is better than global, random and healthy-only noise: the guidance helps here"
    parts = [f"better than {', '.join(won)}"] if won else []
    parts += [f"worse than {', '.join(lost)}"] if lost else []
    untested = [row.b for row in against if row.verdict.startswith("not tested")]
    parts += [f"not tested against {', '.join(untested)}"] if untested else []
    rest = [row.b for row in against if row.b not in (*won, *lost, *untested)]
    parts += [f"not shown to differ from {', '.join(rest)}"] if rest else []
    helped = by_pair["targeted", "quantized"].verdict == "targeted is better than quantized"
    tail = "it is better than no noise" if helped else "no gain from noise is shown"
    return f"targeted noise is {'; '.join(parts)}; {tail}"


def _mode(name: str | None, fmt: BlockFormat) -> Mode:
    """The mode of all arms but the clean one; None: weights and inputs."""
    if name is None:
        return "both"
    mode = parse_mode(name, fmt)
    if mode is None:
        raise SettingError("mode", name, f"expected one mode that quantizes, e.g. {name_of('both', fmt)}")
    return mode


def _check_trials(kind: Measured, seeds: Sequence[int], samples: int, training: Training | None) -> None:
    if len(seeds) < 2 or len(set(seeds)) != len(seeds):
        raise SettingError("seeds", list(seeds), "expected 2 or more, each once; one seed shows nothing")
    if kind not in get_args(Measured):
        raise SettingError("measured", repr(kind), f"expected one of {', '.join(get_args(Measured))}")
    if kind == "train" and training is None:
        raise SettingError("training", None, f"{setting('kind', 'train')} needs its steps and learning rate")
    if kind != "train" and training is not None:
        raise NoEffectError("training", f"with {setting('kind', kind)}")
    if training is not None and (training.steps < 1 or training.batch_size < 1 or not training.learning_rate > 0):
        raise SettingError("training", training, "expected steps and batch_size of 1 or more, learning_rate above 0")
    if samples < 1:
        raise SettingError("samples", samples, "expected 1 or more")


def _check_errors(errors: Sequence[float], layers: int) -> None:
    if not isinstance(errors, Sequence) or not all(isinstance(e, float | int) and math.isfinite(e) for e in errors):
        raise SettingError(
            "errors",
            None,
            "expected one finite number per layer, larger is worse; srdd.analysis.series.layer_series(report).errors",
        )
    if len(errors) != layers:
        raise ReportError(f"the report ranks {len(errors)} layers, the model has {layers}; scan this model")


def _trial(shared: Setting, training: Training | None, ids: Tensor, samples: int, seeds: Sequence[int]) -> Trial:
    """One arm with one seed, the seed given by its place and its value."""
    if training is None:
        if len(ids) < samples * len(seeds):
            raise CalibrationError(
                f"{len(seeds)} seeds of {samples} sequences need {samples * len(seeds)} of them, found {len(ids)}"
            )
        return lambda arm, place, seed: arm_trial.infer(shared, arm, seed, ids[place * samples : (place + 1) * samples])
    if len(ids) < samples + training.batch_size:
        raise CalibrationError(f"{len(ids)} sequences: expected {samples} held out and some more to train on")
    return lambda arm, place, seed: arm_trial.train(shared, training, arm, seed, ids[samples:], ids[:samples])


def _run_arms(
    trial: Trial, arms: Sequence[Arm], seeds: Sequence[int], progress: Progress
) -> tuple[dict[str, list[float | None]], dict[str, list[float]]]:
    """Losses and root mean squares of the noise, by arm, in the order of the seeds."""
    losses: dict[str, list[float | None]] = {arm.name: [] for arm in arms}
    noise: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for done, (place, seed, arm) in enumerate((i, s, arm) for i, s in enumerate(seeds) for arm in arms):
        loss, rms = trial(arm, place, seed)
        losses[arm.name].append(loss)
        noise[arm.name].append(rms)
        progress(arm.name, done + 1, len(seeds) * len(arms))
    return losses, noise


def _arm(arm: Arm, seeds: Sequence[int], losses: list[float | None], noise: list[float]) -> ArmResult:
    known = [loss for loss in losses if loss is not None]
    whole = len(known) == len(losses)
    return ArmResult(
        name=arm.name,
        meaning=arm.meaning,
        quantized=arm.quantized,
        layers=[arm.noisy_layers(seed) for seed in seeds],
        noise_rms=noise,
        losses=losses,
        mean=fmean(known) if whole else None,
        std=stdev(known) if whole and all(math.isfinite(x) for x in known) else None,
    )


def _train_settings(training: Training, schedule: Schedule, samples: int, count: int) -> TrainSettings:
    return TrainSettings(
        steps=training.steps,
        learning_rate=training.learning_rate,
        batch_size=training.batch_size,
        optimizer="AdamW, weight decay 0, gradients clipped to norm 1",
        schedule=f"{schedule.kind}, {schedule.num_stages} stages" if schedule.num_stages else schedule.kind,
        held_out=samples,
        pool=count - samples,
    )


def _named(fault: Fault | None) -> list[str]:
    """What the settings of the document do not say of the fault."""
    usual = fault is None or (fault.module is None and fault.at == "output" and fault.steps == "all")
    return [] if usual else [f"PLANTED FAULT in all arms but the clean one: {fault}"]


def _warnings(seeds: Sequence[int]) -> list[str]:
    if len(seeds) >= FEW:
        return []
    return [f"{len(seeds)} seeds show large effects only; take {FEW} or more before believing a difference, or none"]
