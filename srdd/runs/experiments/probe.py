"""`measure_probe`: how much sigma each quantization mode bears, before any training.

Not here: opening models, the terminal, and the trials themselves (probe_grid.py). The bisection, which needs loss,
entropy and agreement alone, runs after the grid. Noise on norms is never quantized, as in QeRL.

    probe = measure_probe(model, sequences, "mxfp4", modes="w16a16,w4a4", seeds=range(5))
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srdd.core.formats import BlockFormat
from srdd.core.formats import parse as parse_format
from srdd.documents.parts import Model
from srdd.documents.probe import Break, Criterion, Probe, ProbeSettings, Profile, Trial
from srdd.documents.rin import CLASSES, RinConfig, Target, load_rin
from srdd.errors import SettingError
from srdd.models.fake import EXCLUDE, left_out_by
from srdd.models.faults import planted_in
from srdd.models.quantizer import Quantizer
from srdd.models.running import evaluating
from srdd.runs.calibration import Sequences
from srdd.runs.experiments import profiles
from srdd.runs.experiments.crossing import crossing, geometric
from srdd.runs.experiments.evaluation import finite_mean
from srdd.runs.experiments.modes import name_of, parse_modes
from srdd.runs.experiments.probe_grid import Cell, Probing, grid_of, run_grid
from srdd.runs.experiments.same_model import check_multipliers
from srdd.runs.setup import Progress, open_loss_run, silent
from srdd.runs.token_ids import batches_of

LIMITS: dict[Criterion, float] = {"loss": 1.1, "entropy": 1.1, "agreement": 0.8}
STEPS = 5  # of the bisection: to 2 % of sigma on a grid of doublings


def measure_probe(
    model: nn.Module,
    sequences: Tensor | Sequences,
    spec: str | BlockFormat,
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
    exclude: str | Sequence[str] = (),
    default_exclude: Sequence[str] = EXCLUDE,
    backend: str = "auto",
    identity: Model | None = None,
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> Probe:
    """The sigma table of a model. `limit` is a ratio to the mode without noise (loss, entropy) or an agreement.

    Raises SettingError and NoiseError for what cannot be probed, CalibrationError for token ids.
    """
    fmt = parse_format(spec)
    if isinstance(multipliers, str | Path):
        multipliers = load_rin(multipliers)
    targets = [targets] if isinstance(targets, str) else list(targets)
    wanted_modes = parse_modes(modes, fmt)
    for target in targets:
        profiles.check_target(target, setting="targets")
    if criterion not in LIMITS:
        raise SettingError("criterion", criterion, f"expected {', '.join(LIMITS)}")
    limit = LIMITS[criterion] if limit is None else limit
    check_settings(seeds, sigmas, criterion, limit)
    run = open_loss_run(model, sequences, [fmt], repeats=len(seeds), backend=backend, identity=identity)
    notes = [*notes, *(check_multipliers(multipliers, run.identity) if multipliers is not None else [])]
    exclude = left_out_by(exclude, default_exclude)
    batches = batches_of(run.token_ids, batch_size, run.device)
    assert run.calibration is not None, "a run of losses has tokens"
    names = iter(run.calibration.sequence_hashes)
    by_batch = [[next(names) for _ in batch] for batch in batches]
    quantizer, units = Quantizer(fmt, run.backend, kept={}), run.calibration.unit_of
    probing = Probing(model, fmt, batches, by_batch, quantizer, exclude, relative, multipliers, seeds, units)
    grids = {target: grid_of(probing, target, sigmas) for target in targets}
    shapes: list[Profile] = ["global", "guided"] if multipliers is not None else ["global"]
    cells = [Cell(mode, target, profile) for mode in wanted_modes for target in targets for profile in shapes]
    with evaluating(model), torch.no_grad():
        trials, baselines = run_grid(probing, wanted_modes, cells, grids, seeds, progress)
        breaks = []
        for done, cell in enumerate(cells):
            breaks.append(_break(probing, cell, trials, seeds, criterion, limit))
            progress("breaks", done + 1, len(cells))
    return Probe(
        model=run.identity,
        settings=ProbeSettings(
            format=fmt.spec,
            modes=[name_of(mode, fmt) for mode in wanted_modes],
            targets=list(targets),
            sigmas={target: list(grid) for target, grid in grids.items()},
            relative=relative,
            seeds=list(seeds),
            criterion=criterion,
            limit=limit,
            multipliers_sha256=None if multipliers is None else _sha256(multipliers),
            exclude=exclude,
            **run.settings(),
        ),
        baselines=baselines,
        trials=trials,
        breaks=breaks,
        warnings=[*notes, *planted_in(model), *_warnings(trials)],
        provenance=run.provenance(),
    )


def check_settings(seeds: Sequence[int], sigmas: Sequence[float] | None, criterion: Criterion, limit: float) -> None:
    """Raises SettingError for what no probe can run with; no model is needed to tell."""
    if not isinstance(seeds, Sequence):
        raise SettingError("seeds", repr(seeds), "expected a list, e.g. range(5)")
    if not seeds or len(set(seeds)) != len(seeds):
        raise SettingError("seeds", list(seeds), "expected at least one, each once")
    if sigmas is not None and not (sigmas and all(0 < s < math.inf for s in sigmas)):
        above = "expected finite numbers above 0; the trial without noise always runs"
        raise SettingError("sigmas", list(sigmas), above)
    if criterion == "agreement" and not 0 < limit < 1:
        raise SettingError("limit", f"{limit:g}", "agreement is a share between 0 and 1")
    if criterion != "agreement" and not 1 < limit < math.inf:
        raise SettingError("limit", f"{limit:g}", f"expected a ratio above 1 to the {criterion} without noise")


def targets_of(text: str) -> list[Target]:
    """`rmsnorm,linear`. Raises SettingError."""
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) != len(names) or not set(names) <= set(CLASSES):
        raise SettingError("targets", repr(text), f"expected each of {', '.join(CLASSES)} at most once")
    return names  # type: ignore[return-value]  # checked above


def _break(
    probing: Probing, cell: Cell, trials: Sequence[Trial], seeds: Sequence[int], criterion: Criterion, limit: float
) -> Break:
    """Where the criterion crosses its limit, with every seed and on the whole."""
    place: dict[str, Any] = {"mode": name_of(cell.mode, probing.fmt), "target": cell.target, "profile": cell.profile}
    mine = [t for t in trials if (t.mode, t.target, t.profile) == tuple(place.values())]
    bases = {seed: _base(probing, cell, seed, criterion) for seed in seeds}
    if None in bases.values():
        return _no_break(place, "the mode without noise is not finite", seeds)

    def beyond(value: float | None, seed: int) -> float:
        """Above 0 beyond the limit, nan where not finite."""
        base = bases[seed]
        if value is None or base is None:
            return math.nan
        return limit - value if criterion == "agreement" else value / base - limit

    by_seed: list[float | str] = []
    for seed in seeds:
        rows = sorted((t for t in mine if t.seed == seed), key=lambda t: t.sigma)
        points = [(t.sigma, beyond(t.of(criterion), seed)) for t in rows]

        def value(sigma: float, seed: int = seed) -> float:
            return beyond(finite_mean(probing.outcome(cell, sigma, seed).of(criterion)), seed)

        by_seed.append(crossing(points, value, STEPS))
    numbers = [value for value in by_seed if isinstance(value, float)]
    if len(numbers) < len(by_seed):
        reasons = ", ".join(sorted({value for value in by_seed if isinstance(value, str)}))
        return _no_break(place, f"{reasons} with {len(by_seed) - len(numbers)} of {len(by_seed)} seeds", by_seed)
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


def _base(probing: Probing, cell: Cell, seed: int, criterion: Criterion) -> float | None:
    """What the criterion is without noise, with the seed's draw of stochastic rounding."""
    without = probing.noiseless[cell.mode, probing.draw_of(cell.mode, seed)]
    return 1.0 if criterion == "agreement" else finite_mean(without.of(criterion))


def _no_break(place: dict[str, Any], note: str, by_seed: Sequence[object]) -> Break:
    known = [value if isinstance(value, float) else None for value in by_seed]
    return Break(**place, sigma=None, interval=None, noise_rms=None, relative=None, by_seed=known, note=note)


def _sha256(multipliers: RinConfig) -> str:
    return hashlib.sha256(multipliers.model_dump_json().encode()).hexdigest()


def _warnings(trials: Sequence[Trial]) -> list[str]:
    lost = sorted({t.sigma for t in trials if t.changed_share < 0.5})
    if not lost:
        return []
    return [f"at sigma {', '.join(f'{s:g}' for s in lost)} the weights' type rounds most of the noise away"]
