"""The trials of a probe: every mode, target, profile, sigma and seed over all batches.

Not here: the document and where a mode breaks (probe.py). Batches run outermost, so that the reference logits of one
batch are held and no more. Noise on Linear weights is added before they are quantized, as in training.

Worked number: 4 modes, 6 sigmas, 3 seeds and 4 batches are 288 forwards, and 20 without noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn

from srdd.documents.probe import Baseline, Profile, Trial
from srdd.documents.rin import RinConfig, Target
from srdd.kernels.precision import to_float64
from srdd.models.fake import Quantizer
from srdd.noise import Injection, Injector
from srdd.runs.divergence import Reference
from srdd.runs.experiments import evaluation, profiles
from srdd.runs.experiments.evaluation import Outcome, finite_mean, paired_error
from srdd.runs.experiments.modes import Mode, in_mode

SHARES = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)  # the default grid, in units of the weights' root mean square


@dataclass(frozen=True)
class Cell:
    """One curve over sigma."""

    mode: Mode
    target: Target
    profile: Profile


@dataclass
class Run:
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
    counts: dict[str, int] = field(default_factory=dict)  # by target: how many values they are, with noise or without

    @contextmanager
    def noisy(self, cell: Cell, sigma: float, seed: int) -> Iterator[Injection]:
        count = profiles.layer_count(self.model)
        if cell.profile == "guided":
            assert self.multipliers is not None
            config = profiles.guided(self.multipliers, cell.target, sigma, relative=self.relative)
        else:
            config = profiles.everywhere(count, cell.target, sigma, relative=self.relative)
        injector = Injector(self.model, config, seed=seed, evaluation="allow", rounding="allow")
        with injector.applied(0, 1) as injection, in_mode(self.model, cell.mode, self.quantizer, self.exclude):
            yield injection

    def losses(self, cell: Cell, sigma: float, seed: int) -> Outcome:
        """Loss, entropy and agreement over all batches."""
        outcome = Outcome()
        with self.noisy(cell, sigma, seed):
            for batch, winners in zip(self.batches, self.winners[cell.mode.name], strict=True):
                seen = evaluation.references(self.model, batch)
                evaluation.add(outcome, seen)
                outcome.top1 += to_float64(seen.logits.argmax(-1) == winners).mean(1).tolist()
        return outcome


def grid_of(run: Run, target: Target, sigmas: Sequence[float] | None) -> tuple[float, ...]:
    """Rising sigmas; by default shares of the root mean square of the weights that get noise."""
    count = profiles.layer_count(run.model)
    config = profiles.everywhere(count, target, 1.0, relative=False)
    injector = Injector(run.model, config, evaluation="allow", rounding="allow")
    weights = [to_float64(getattr(t.module, t.attribute).detach()) for t in injector.targets]
    run.powers[target] = math.fsum(float(w.square().sum()) for w in weights)
    run.counts[target] = sum(w.numel() for w in weights)
    if sigmas is not None:
        return tuple(sorted(set(sigmas)))
    unit = 1.0 if run.relative else math.sqrt(run.powers[target] / run.counts[target])
    return tuple(float(f"{share * unit:.2g}") for share in SHARES)


def run_grid(
    run: Run,
    modes: Sequence[Mode],
    cells: Sequence[Cell],
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
    run: Run,
    batch: Tensor,
    cell: Cell,
    sigma: float,
    seed: int,
    own: Reference,
    clean: Reference,
    outcome: Outcome,
) -> Injection:
    with run.noisy(cell, sigma, seed) as injection:
        evaluation.add(outcome, evaluation.references(run.model, batch), own=own, clean=clean)
    return injection


def _trial(run: Run, cell: Cell, sigma: float, seed: int, outcome: Outcome, injection: Injection | None) -> Trial:
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
        noise_rms=math.sqrt(power / run.counts[cell.target]),
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
