"""The trials of a probe: every mode, target, profile, sigma and seed over all batches.

Not here: the document and where a mode breaks (probe.py). Batches run outermost, so that the reference logits of one
batch are held and no more. Noise on Linear weights is added before they are quantized, as in training. Stochastic
rounding is drawn by the seed too: noise is compared with the same draw without noise, and each draw keeps a copy of the
quantized weights.

Worked number: 4 modes, 6 sigmas, 3 seeds and 4 batches are 288 forwards, and 20 without noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from srdd.core.formats import BlockFormat
from srdd.core.modes import Mode
from srdd.documents.probe import Baseline, Profile, Trial
from srdd.documents.rin import RinConfig, Target
from srdd.kernels.precision import to_float64
from srdd.models.quantizer import Quantizer
from srdd.noise import Injection, Injector
from srdd.runs.divergence import ReferenceLogits
from srdd.runs.experiments import evaluation, profiles
from srdd.runs.experiments.evaluation import Outcome, finite_mean, paired_error
from srdd.runs.experiments.modes import in_mode, name_of
from srdd.runs.setup import Progress

SHARES = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)  # the default grid, in units of the weights' root mean square


@dataclass(frozen=True)
class Cell:
    """One curve over sigma."""

    mode: Mode | None
    target: Target
    profile: Profile


@dataclass
class Probing:
    """What stays the same during a probe, and what `run_grid` keeps of every mode without noise."""

    model: nn.Module
    fmt: BlockFormat
    batches: list[Tensor]
    sequences: list[list[str]]  # names, by batch
    quantizer: Quantizer
    exclude: Sequence[str]
    relative: bool
    multipliers: RinConfig | None
    seeds: Sequence[int] = (0,)
    unit_of: tuple[int, ...] | None = None  # the unit of uncertainty of every sequence; None: each is its own
    # By mode and draw of stochastic rounding.
    noiseless: dict[tuple[Mode | None, int], Outcome] = field(default_factory=dict)
    top_tokens: dict[tuple[Mode | None, int], list[Tensor]] = field(default_factory=dict)  # most likely, by batch
    quantizers: dict[int, Quantizer] = field(default_factory=dict)  # by draw
    # By target, of all its weights, with noise or without: their sum of squares, and how many values they are.
    sums_of_squares: dict[str, float] = field(default_factory=dict)
    value_counts: dict[str, int] = field(default_factory=dict)

    def draw_of(self, mode: Mode | None, seed: int) -> int:
        """The draw of stochastic rounding that goes with a noise seed; 0 where nothing is drawn."""
        return seed if mode is not None and self.fmt.stochastic else 0

    def draws_of(self, mode: Mode | None) -> list[int]:
        """The draws of all seeds, each once."""
        return list(dict.fromkeys(self.draw_of(mode, seed) for seed in self.seeds))

    def in_mode(self, mode: Mode | None, draw: int) -> AbstractContextManager[Any]:
        """The model quantized with one draw inside the block."""
        if draw not in self.quantizers:
            self.quantizers[draw] = replace(self.quantizer, draw=draw, kept={})
        return in_mode(self.model, mode, self.quantizers[draw], self.exclude)

    @contextmanager
    def noisy(self, cell: Cell, sigma: float, seed: int) -> Iterator[Injection]:
        """The model quantized and with noise inside the block."""
        count = profiles.layer_count(self.model)
        if cell.profile == "guided":
            assert self.multipliers is not None
            config = profiles.guided(self.multipliers, cell.target, sigma, relative=self.relative)
        else:
            config = profiles.everywhere(count, cell.target, sigma, relative=self.relative)
        injector = Injector(self.model, config, seed=seed, evaluation="allow", rounding="allow")
        with injector.applied(0, 1) as injection, self.in_mode(cell.mode, self.draw_of(cell.mode, seed)):
            yield injection

    def outcome(self, cell: Cell, sigma: float, seed: int) -> Outcome:
        """Loss, entropy and agreement over all batches; agreement with the mode without noise."""
        outcome = Outcome()
        top = self.top_tokens[cell.mode, self.draw_of(cell.mode, seed)]
        with self.noisy(cell, sigma, seed):
            for batch, names, top_tokens in zip(self.batches, self.sequences, top, strict=True):
                self.quantizer.sequences[:] = names
                seen = evaluation.references(self.model, batch)
                evaluation.add(outcome, seen)
                outcome.top1 += to_float64(seen.logits.argmax(-1) == top_tokens).mean(1).tolist()
        return outcome


def grid_of(probing: Probing, target: Target, sigmas: Sequence[float] | None) -> tuple[float, ...]:
    """Rising sigmas; by default shares of the root mean square of the weights that get noise."""
    count = profiles.layer_count(probing.model)
    config = profiles.everywhere(count, target, 1.0, relative=False)
    injector = Injector(probing.model, config, evaluation="allow", rounding="allow")
    weights = [to_float64(getattr(t.module, t.attribute).detach()) for t in injector.targets]
    probing.sums_of_squares[target] = math.fsum(float(w.square().sum()) for w in weights)
    probing.value_counts[target] = sum(w.numel() for w in weights)
    if sigmas is not None:
        return tuple(sorted(set(sigmas)))
    unit = 1.0 if probing.relative else math.sqrt(probing.sums_of_squares[target] / probing.value_counts[target])
    return tuple(float(f"{share * unit:.2g}") for share in SHARES)


def run_grid(
    probing: Probing,
    modes: Sequence[Mode | None],
    cells: Sequence[Cell],
    grids: dict[Target, tuple[float, ...]],
    seeds: Sequence[int],
    progress: Progress,
) -> tuple[list[Trial], list[Baseline]]:
    """Every cell at every sigma of its target with every seed, and every mode without noise."""
    places = [(cell, sigma, seed) for cell in cells for sigma in grids[cell.target] for seed in seeds]
    outcomes = [Outcome() for _ in places]
    injections: list[Injection | None] = [None] * len(places)
    draws = [(mode, draw) for mode in modes for draw in probing.draws_of(mode)]
    clean = {key: Outcome() for key in draws}
    probing.noiseless = {key: Outcome() for key in draws}
    probing.top_tokens = {key: [] for key in draws}
    total, done = len(probing.batches) * len(places), 0
    for batch, names in zip(probing.batches, probing.sequences, strict=True):
        probing.quantizer.sequences[:] = names
        unquantized = evaluation.references(probing.model, batch)
        for mode, draw in draws:
            with probing.in_mode(mode, draw):
                own = evaluation.references(probing.model, batch)
            evaluation.add(probing.noiseless[mode, draw], own)
            evaluation.add(clean[mode, draw], own, own=unquantized)
            probing.top_tokens[mode, draw].append(own.logits.argmax(-1))
            for index, (cell, sigma, seed) in enumerate(places):
                if (cell.mode, probing.draw_of(cell.mode, seed)) == (mode, draw):
                    injections[index] = _one(probing, batch, cell, sigma, seed, own, unquantized, outcomes[index])
                    done += 1
                    progress("grid", done, total)
    trials = [
        _trial(probing, *place, outcome, injection)
        for place, outcome, injection in zip(places, outcomes, injections, strict=True)
    ]
    return trials, [_baseline(probing, mode, clean) for mode in modes]


def _baseline(probing: Probing, mode: Mode | None, clean: Mapping[tuple[Mode | None, int], Outcome]) -> Baseline:
    """A mode without noise, over its draws."""
    draws = probing.draws_of(mode)
    own, against = [probing.noiseless[mode, d] for d in draws], [clean[mode, d] for d in draws]
    losses = [finite_mean(outcome.loss) for outcome in own]
    drawn = mode is not None and probing.fmt.stochastic and None not in losses
    return Baseline(
        mode=name_of(mode, probing.fmt),
        loss=finite_mean([value for outcome in own for value in outcome.loss]),
        entropy=finite_mean([value for outcome in own for value in outcome.entropy]),
        kl_clean=finite_mean([value for outcome in against for value in outcome.kl]),
        top1_clean=finite_mean([value for outcome in against for value in outcome.top1]),
        draws=[loss for loss in losses if loss is not None] if drawn else None,
    )


def _one(
    probing: Probing,
    batch: Tensor,
    cell: Cell,
    sigma: float,
    seed: int,
    own: ReferenceLogits,
    clean: ReferenceLogits,
    outcome: Outcome,
) -> Injection:
    with probing.noisy(cell, sigma, seed) as injection:
        evaluation.add(outcome, evaluation.references(probing.model, batch), own=own, clean=clean)
    return injection


def _trial(
    probing: Probing, cell: Cell, sigma: float, seed: int, outcome: Outcome, injection: Injection | None
) -> Trial:
    assert injection is not None, "every trial ran"
    base = probing.noiseless[cell.mode, probing.draw_of(cell.mode, seed)]
    loss, loss_without = finite_mean(outcome.loss), finite_mean(base.loss)
    change = loss - loss_without if loss is not None and loss_without is not None else None
    power = math.fsum(row.std**2 * row.values for row in injection.touched)
    return Trial(
        mode=name_of(cell.mode, probing.fmt),
        target=cell.target,
        profile=cell.profile,
        sigma=sigma,
        noise_rms=math.sqrt(power / probing.value_counts[cell.target]),
        relative=math.sqrt(power / probing.sums_of_squares[cell.target]),
        changed_share=injection.changed_share,
        seed=seed,
        loss=loss,
        entropy=finite_mean(outcome.entropy),
        kl=finite_mean(outcome.kl),
        kl_clean=finite_mean(outcome.kl_clean),
        top1=finite_mean(outcome.top1),
        loss_change=change,
        sequence_error=paired_error(outcome.loss, base.loss, probing.unit_of),
    )
