"""`measure_probe`: how much sigma each quantization mode bears, before any training.

Not here: opening models, the terminal, and the trials themselves (trials.py). The bisection, which needs loss, entropy
and agreement alone, runs after the grid. Noise on norms is never quantized, as in QeRL.

    probe = measure_probe(model, sequences, "mxfp4", modes="w16a16,w4a4", seeds=range(5))
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srdd import kernels
from srdd.core.formats import BlockFormat
from srdd.core.formats import parse as parse_format
from srdd.documents.probe import Break, Criterion, Probe, ProbeSettings, Profile, Trial
from srdd.documents.rin import CLASSES, RinConfig, Target, load_rin
from srdd.documents.schema import Model
from srdd.errors import OptionError
from srdd.kernels.selfcheck import checked, values_differ
from srdd.models.fake import EXCLUDE, Quantizer
from srdd.models.placement import device_of, dtype_of, refuse_nonfinite
from srdd.models.running import evaluating
from srdd.models.sites import find_sites
from srdd.runs.calibration import Sequences
from srdd.runs.experiments import evaluation, profiles
from srdd.runs.experiments.crossing import crossing, geometric
from srdd.runs.experiments.evaluation import finite_mean
from srdd.runs.experiments.modes import parse_modes
from srdd.runs.experiments.probe_grid import Cell, Run, grid_of, run_grid
from srdd.runs.experiments.same_model import check_multipliers
from srdd.runs.setup import (
    identify,
    provenance,
    token_ids_of,
    used,
    versions,
)

LIMITS: dict[Criterion, float] = {"loss": 1.1, "entropy": 1.1, "agreement": 0.8}
STEPS = 5  # of the bisection: to 2 % of sigma on a grid of doublings


def measure_probe(
    model: nn.Module,
    sequences: Tensor | Sequences,
    fmt: str | BlockFormat,
    modes: str = "w16a16,w4a16,w16a4,w4a4",
    targets: Target | Sequence[Target] = ("rmsnorm",),
    *,
    sigmas: Sequence[float] | None = None,
    relative: bool = False,
    seeds: Sequence[int] = (0, 1, 2),
    criterion: Criterion = "loss",
    limit: float | None = None,
    multipliers: RinConfig | str | Path | None = None,
    batch_size: int = 1,
    exclude: str | Sequence[str] = EXCLUDE,
    backend: str = "auto",
    identity: Model | None = None,
    notes: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Probe:
    """The sigma table of a model. `limit` is a ratio to the mode without noise (loss, entropy) or an agreement.

    Raises OptionError and NoiseError for what cannot be probed, CalibrationError for token ids.
    """
    started = time.monotonic()
    parsed = parse_format(fmt)
    if isinstance(multipliers, str | Path):
        multipliers = load_rin(multipliers)
    targets = [targets] if isinstance(targets, str) else list(targets)
    chosen_modes = parse_modes(modes, parsed)
    if criterion not in LIMITS:
        raise OptionError(f"criterion {criterion!r}: expected {', '.join(LIMITS)}")
    for target in targets:
        profiles.check_target(target)
    limit = LIMITS[criterion] if limit is None else limit
    check_settings(seeds, sigmas, criterion, limit)
    ids, calibration = token_ids_of(sequences, model)
    sites = find_sites(model, ("weight", "input"))
    identity = identity or identify(model, sites)
    notes = [*notes, *(check_multipliers(multipliers, identity) if multipliers is not None else [])]
    refuse_nonfinite(model)
    device = device_of(model)
    work = sum(s.numel for s in sites.of("weight")) * len(seeds)
    kernel = kernels.choose(backend, elements=work, formats=[parsed], device=device)
    kernel = checked(kernel, [parsed], device, dtype_of(model), values_differ)
    exclude = [exclude] if isinstance(exclude, str) else list(exclude)
    run = Run(
        model,
        evaluation.batches_of(ids, batch_size, device),
        Quantizer(parsed, kernel, kept={}),
        exclude,
        relative,
        multipliers,
    )
    grids = {t: grid_of(run, t, sigmas) for t in targets}
    shapes: list[Profile] = ["global", "guided"] if multipliers is not None else ["global"]
    cells = [Cell(mode, target, profile) for mode in chosen_modes for target in targets for profile in shapes]
    with evaluating(model), torch.no_grad():
        trials, baselines = run_grid(run, chosen_modes, cells, grids, seeds, progress)
        breaks = []
        for done, cell in enumerate(cells):
            breaks.append(_break(run, cell, trials, seeds, criterion, limit))
            progress("breaks", done + 1, len(cells))
    digest = None
    if multipliers is not None:
        digest = hashlib.sha256(multipliers.model_dump_json().encode()).hexdigest()
    return Probe(
        model=identity,
        settings=ProbeSettings(
            format=parsed.spec,
            modes=[mode.name for mode in chosen_modes],
            targets=list(targets),
            sigmas={target: list(grid) for target, grid in grids.items()},
            relative=relative,
            seeds=list(seeds),
            criterion=criterion,
            limit=limit,
            multipliers_sha256=digest,
            calibration=calibration,
            exclude=list(exclude),
            device=device.type,
            dtype=str(dtype_of(model)).removeprefix("torch."),
            backend=used(kernel)[0],
            versions=versions(),
        ),
        baselines=baselines,
        trials=trials,
        breaks=breaks,
        warnings=[*notes, *_warnings(trials)],
        provenance=provenance(started),
    )


def check_settings(seeds: Sequence[int], sigmas: Sequence[float] | None, criterion: Criterion, limit: float) -> None:
    """Raises OptionError for what no probe can run with; no model is needed to tell."""
    if not isinstance(seeds, Sequence):
        raise OptionError(f"seeds {seeds!r}: expected a list, e.g. range(5)")
    if not seeds or len(set(seeds)) != len(seeds):
        raise OptionError(f"seeds {list(seeds)}: expected at least one, each once")
    if sigmas is not None and not (sigmas and all(0 < s < math.inf for s in sigmas)):
        raise OptionError(
            f"sigmas {list(sigmas)}: expected finite numbers above 0; the trial without noise always runs"
        )
    if criterion == "agreement" and not 0 < limit < 1:
        raise OptionError(f"limit {limit:g}: agreement is a share between 0 and 1")
    if criterion != "agreement" and not 1 < limit < math.inf:
        raise OptionError(f"limit {limit:g}: expected a ratio above 1 to the {criterion} without noise")


def _break(
    run: Run, cell: Cell, trials: Sequence[Trial], seeds: Sequence[int], criterion: Criterion, limit: float
) -> Break:
    base = run.own[cell.mode.name]
    place: dict[str, Any] = {"mode": cell.mode.name, "target": cell.target, "profile": cell.profile}
    mine = [t for t in trials if (t.mode, t.target, t.profile) == tuple(place.values())]
    before = {"loss": finite_mean(base.loss), "entropy": finite_mean(base.entropy), "agreement": 1.0}[criterion]
    if before is None:
        return _no_break(place, "the mode without noise is not finite", seeds)

    def beyond(value: float | None) -> float:
        """Above 0 beyond the limit, nan where not finite."""
        if value is None:
            return math.nan
        return limit - value if criterion == "agreement" else value / before - limit

    found: list[float | str] = []
    pick = {"loss": "loss", "entropy": "entropy", "agreement": "top1"}[criterion]
    for seed in seeds:
        rows = sorted((t for t in mine if t.seed == seed), key=lambda t: t.sigma)
        points = [(t.sigma, beyond(getattr(t, pick))) for t in rows]

        def value(sigma: float, seed: int = seed) -> float:
            return beyond(finite_mean(getattr(run.losses(cell, sigma, seed), pick)))

        found.append(crossing(points, value, STEPS))
    numbers = [value for value in found if isinstance(value, float)]
    if len(numbers) < len(found):
        reasons = sorted({value for value in found if isinstance(value, str)})
        return _no_break(place, f"{', '.join(reasons)} with {len(found) - len(numbers)} of {len(found)} seeds", found)
    sigma, interval = geometric(numbers)
    near = min(mine, key=lambda t: abs(math.log(t.sigma / sigma)))
    return Break(
        **place,
        sigma=sigma,
        interval=interval,
        noise_rms=near.noise_rms * sigma / near.sigma,
        relative=near.relative * sigma / near.sigma,
        by_seed=list(numbers),
    )


def _no_break(place: dict[str, Any], note: str, found: Sequence[object]) -> Break:
    by_seed = [value if isinstance(value, float) else None for value in found]
    return Break(**place, sigma=None, interval=None, noise_rms=None, relative=None, by_seed=by_seed, note=note)


def _warnings(trials: Sequence[Trial]) -> list[str]:
    lost = sorted({t.sigma for t in trials if t.changed_share < 0.5})
    if not lost:
        return []
    return [f"at sigma {', '.join(f'{s:g}' for s in lost)} the weights' type rounds most of the noise away"]


def targets_of(text: str) -> list[Target]:
    """`rmsnorm,linear`. Raises OptionError."""
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) != len(names) or not set(names) <= set(CLASSES):
        raise OptionError(f"--target {text!r}: expected each of {', '.join(CLASSES)} at most once")
    return names  # type: ignore[return-value]  # checked above
