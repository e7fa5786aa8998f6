"""`measure_probe`: how much sigma each quantization mode bears, before any training.

Not here: opening models and the terminal. Batches run outermost, so that the reference logits of one batch are held and
no more; the bisection, which needs loss, entropy and agreement alone, runs after the grid. Noise on Linear weights is
added before they are quantized, as in training; noise on norms is never quantized, as in QeRL.

    probe = measure_probe(model, sequences, "mxfp4", modes="w16a16,w4a4", seeds=range(5))
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from srdd import kernels
from srdd.calibration import Sequences
from srdd.errors import OptionError
from srdd.experiments import evaluation, profiles
from srdd.experiments.crossing import crossing, geometric
from srdd.experiments.evaluation import Outcome, finite_mean, paired_error
from srdd.experiments.modes import Mode, in_mode, parse_modes
from srdd.formats import BlockFormat
from srdd.formats import parse as parse_format
from srdd.identity import Identity
from srdd.impact.divergence import Reference
from srdd.impact.fake import EXCLUDE, Quantizer
from srdd.noise import Injection, Injector
from srdd.probe_document import Baseline, Break, Criterion, Probe, ProbeSettings, Profile, Trial
from srdd.rin import CLASSES, RinConfig, Target
from srdd.run_facts import identify, model_of, provenance, token_ids_of, used, versions
from srdd.sites import find_sites
from srdd.weights import device_of

SHARES = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)  # the default grid, in units of the weights' root mean square
LIMITS: dict[Criterion, float] = {"loss": 1.1, "entropy": 1.1, "agreement": 0.8}
STEPS = 5  # of the bisection: to 2 % of sigma on a grid of doublings


@dataclass(frozen=True)
class _Cell:
    """One curve over sigma."""

    mode: Mode
    target: Target
    profile: Profile


@dataclass
class _Run:
    """What stays the same during a probe."""

    model: nn.Module
    batches: list[Tensor]
    quantizer: Quantizer
    exclude: Sequence[str]
    relative: bool
    multipliers: RinConfig | None
    own: dict[str, Outcome] = field(default_factory=dict)  # by mode: without noise
    winners: dict[str, list[Tensor]] = field(default_factory=dict)  # by mode: most likely tokens of every batch
    powers: dict[str, float] = field(default_factory=dict)  # by target: sum of squares of the weights

    @contextmanager
    def noisy(self, cell: _Cell, sigma: float, seed: int) -> Iterator[Injection]:
        count = profiles.layer_count(self.model)
        if cell.profile == "guided":
            assert self.multipliers is not None
            config = profiles.guided(self.multipliers, cell.target, sigma, relative=self.relative)
        else:
            config = profiles.everywhere(count, cell.target, sigma, relative=self.relative)
        injector = Injector(self.model, config, seed=seed, evaluation="allow", rounding="allow")
        with injector.applied(0, 1) as injection, in_mode(self.model, cell.mode, self.quantizer, self.exclude):
            yield injection

    def losses(self, cell: _Cell, sigma: float, seed: int) -> Outcome:
        """Loss, entropy and agreement over all batches."""
        outcome = Outcome()
        with self.noisy(cell, sigma, seed):
            for batch, winners in zip(self.batches, self.winners[cell.mode.name], strict=True):
                seen = evaluation.references(self.model, batch)
                evaluation.add(outcome, seen)
                outcome.top1 += (seen.logits.argmax(-1) == winners).double().mean(1).tolist()
        return outcome


def measure_probe(
    model: nn.Module,
    sequences: Tensor | Sequences,
    fmt: str | BlockFormat,
    modes: str = "w16a16,w4a16,w16a4,w4a4",
    targets: Sequence[Target] = ("rmsnorm",),
    *,
    sigmas: Sequence[float] | None = None,
    relative: bool = False,
    seeds: Sequence[int] = (0, 1, 2),
    criterion: Criterion = "loss",
    limit: float | None = None,
    multipliers: RinConfig | None = None,
    batch_size: int = 1,
    exclude: Sequence[str] = EXCLUDE,
    backend: str = "auto",
    identity: Identity | None = None,
    notes: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Probe:
    """The sigma table of a model. `limit` is a ratio to the mode without noise (loss, entropy) or an agreement.

    Raises OptionError and NoiseError for what cannot be probed, CalibrationError for token ids.
    """
    started = time.monotonic()
    parsed = parse_format(fmt)
    chosen_modes = parse_modes(modes, parsed)
    if criterion not in LIMITS:
        raise OptionError(f"criterion {criterion!r}: expected {', '.join(LIMITS)}")
    for target in targets:
        profiles.check_target(target)
    limit = LIMITS[criterion] if limit is None else limit
    _check(seeds, sigmas, criterion, limit)
    ids, calibration = token_ids_of(sequences)
    sites = find_sites(model, ("weight", "input"))
    device = device_of(model)
    work = sum(s.numel for s in sites.of("weight")) * len(seeds)
    kernel = kernels.choose(backend, elements=work, formats=[parsed], device=device)
    run = _Run(
        model,
        evaluation.batches_of(ids, batch_size, device),
        Quantizer(parsed, kernel, kept={}),
        exclude,
        relative,
        multipliers,
    )
    grids = {t: _grid(run, t, sigmas) for t in targets}
    shapes: list[Profile] = ["global", "guided"] if multipliers is not None else ["global"]
    cells = [_Cell(mode, target, profile) for mode in chosen_modes for target in targets for profile in shapes]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            trials, baselines = _grid_pass(run, chosen_modes, cells, grids, seeds, progress)
            breaks = []
            for done, cell in enumerate(cells):
                breaks.append(_break(run, cell, trials, seeds, criterion, limit))
                progress("breaks", done + 1, len(cells))
    finally:
        model.train(training)
    digest = None
    if multipliers is not None:
        digest = hashlib.sha256(multipliers.model_dump_json().encode()).hexdigest()
    return Probe(
        model=model_of(identity or identify(model, sites)),
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
            dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
            backend=used(kernel)[0],
            versions=versions(),
        ),
        baselines=baselines,
        trials=trials,
        breaks=breaks,
        warnings=[*notes, *_warnings(trials)],
        provenance=provenance(started),
    )


def _check(seeds: Sequence[int], sigmas: Sequence[float] | None, criterion: Criterion, limit: float) -> None:
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


def _grid(run: _Run, target: Target, sigmas: Sequence[float] | None) -> tuple[float, ...]:
    """Rising sigmas; by default shares of the root mean square of the weights that get noise."""
    count = profiles.layer_count(run.model)
    config = profiles.everywhere(count, target, 1.0, relative=False)
    injector = Injector(run.model, config, evaluation="allow", rounding="allow")
    weights = [getattr(t.module, t.attribute).detach().double() for t in injector.targets]
    run.powers[target] = math.fsum(float(w.square().sum()) for w in weights)
    if sigmas is not None:
        return tuple(sorted(set(sigmas)))
    unit = 1.0 if run.relative else math.sqrt(run.powers[target] / sum(w.numel() for w in weights))
    return tuple(float(f"{share * unit:.2g}") for share in SHARES)


def _grid_pass(
    run: _Run,
    modes: Sequence[Mode],
    cells: Sequence[_Cell],
    grids: dict[Target, tuple[float, ...]],
    seeds: Sequence[int],
    progress: Callable[[str, int, int], None],
) -> tuple[list[Trial], list[Baseline]]:
    places = [(cell, sigma, seed) for cell in cells for sigma in grids[cell.target] for seed in seeds]
    outcomes = [Outcome() for _ in places]
    injections: list[Injection | None] = [None] * len(places)
    clean = {mode.name: Outcome() for mode in modes}
    run.own = {mode.name: Outcome() for mode in modes}
    run.winners = {mode.name: [] for mode in modes}
    total, done = len(run.batches) * len(places), 0
    for batch in run.batches:
        unquantized = evaluation.references(run.model, batch)
        for mode in modes:
            with in_mode(run.model, mode, run.quantizer, run.exclude):
                own = evaluation.references(run.model, batch)
            evaluation.add(run.own[mode.name], own)
            evaluation.add(clean[mode.name], own, own=unquantized)
            run.winners[mode.name].append(own.logits.argmax(-1))
            for index, (cell, sigma, seed) in enumerate(places):
                if cell.mode is mode:
                    injections[index] = _one(run, batch, cell, sigma, seed, own, unquantized, outcomes[index])
                    done += 1
                    progress("grid", done, total)
    trials = [
        _trial(run, *place, outcome, injection)
        for place, outcome, injection in zip(places, outcomes, injections, strict=True)
    ]
    baselines = [
        Baseline(
            mode=mode.name,
            loss=finite_mean(run.own[mode.name].loss),
            entropy=finite_mean(run.own[mode.name].entropy),
            kl_clean=finite_mean(clean[mode.name].kl),
            top1_clean=finite_mean(clean[mode.name].top1),
        )
        for mode in modes
    ]
    return trials, baselines


def _one(
    run: _Run,
    batch: Tensor,
    cell: _Cell,
    sigma: float,
    seed: int,
    own: Reference,
    clean: Reference,
    outcome: Outcome,
) -> Injection:
    with run.noisy(cell, sigma, seed) as injection:
        evaluation.add(outcome, evaluation.references(run.model, batch), own=own, clean=clean)
    return injection


def _trial(run: _Run, cell: _Cell, sigma: float, seed: int, outcome: Outcome, injection: Injection | None) -> Trial:
    assert injection is not None, "every trial ran"
    base = run.own[cell.mode.name]
    loss, loss_without = finite_mean(outcome.loss), finite_mean(base.loss)
    change = loss - loss_without if loss is not None and loss_without is not None else None
    power = math.fsum(row.std**2 * row.values for row in injection.touched)
    return Trial(
        mode=cell.mode.name,
        target=cell.target,
        profile=cell.profile,
        sigma=sigma,
        noise_rms=math.sqrt(power / max(1, sum(row.values for row in injection.touched))),
        relative=math.sqrt(power / run.powers[cell.target]),
        changed_share=injection.changed_share,
        seed=seed,
        loss=loss,
        entropy=finite_mean(outcome.entropy),
        kl=finite_mean(outcome.kl),
        kl_clean=finite_mean(outcome.kl_clean),
        top1=finite_mean(outcome.top1),
        loss_change=change,
        sequence_error=paired_error(outcome.loss, base.loss),
    )


def _break(
    run: _Run, cell: _Cell, trials: Sequence[Trial], seeds: Sequence[int], criterion: Criterion, limit: float
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
    for seed in seeds:
        pick = {"loss": "loss", "entropy": "entropy", "agreement": "top1"}[criterion]
        rows = sorted((t for t in mine if t.seed == seed), key=lambda t: t.sigma)
        points = [(t.sigma, beyond(getattr(t, pick))) for t in rows]

        def value(sigma: float, seed: int = seed, pick: str = pick) -> float:
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
    return names  # type: ignore[return-value]
