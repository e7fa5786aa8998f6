"""The document of a probe: how a model bears noise in each quantization mode, and where it breaks.

A mode is W16A16, W4A16, W16A4 or W4A4, with the format's own bits. Every trial is one noise draw at one sigma; the same
seed draws the same numbers at every sigma and in every mode, so that differences are paired. That holds for stochastic
rounding too, which each seed draws once, with and without noise. KL and entropy are in nats per token; None where a
value is not finite (a collapse).

Not here: measuring it (srdd.runs.experiments.probe).

Worked number: losses 3.00 without noise, 3.28 and 3.32 with two seeds at sigma 0.05: ratio 1.10 +- 0.007 over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from srdd.core.uncertainty import mean_and_error
from srdd.documents.drawn import Drawn
from srdd.documents.parts import Calibration, Document, Model, Part

Criterion = Literal["loss", "entropy", "agreement"]
Profile = Literal["global", "guided"]


class Baseline(Drawn):
    """A mode without noise: under stochastic rounding the mean over a draw a seed, with the loss of each in `draws`."""

    mode: str
    loss: float | None
    entropy: float | None
    kl_clean: float | None  # of the mode against the model without quantization
    top1_clean: float | None


class Trial(Part):
    """One sigma, one seed."""

    mode: str
    target: str
    profile: Profile
    sigma: float  # before multipliers; in the weights' units, or in units of their rms when the probe is relative
    noise_rms: float  # root mean square of what was added over all target weights, those without noise included
    relative: float  # the same over the root mean square of those weights
    changed_share: float  # of the weights; below 1 where their type rounds noise away
    seed: int
    loss: float | None
    entropy: float | None
    kl: float | None  # against the same mode without noise
    kl_clean: float | None  # against the model without quantization and noise
    top1: float | None  # agreement with the same mode without noise
    loss_change: float | None  # against the same mode without noise
    sequence_error: float | None  # standard error of loss_change over units of text

    def of(self, criterion: Criterion) -> float | None:
        """What the criterion looks at."""
        return {"loss": self.loss, "entropy": self.entropy, "agreement": self.top1}[criterion]


class Break(Part):
    """The sigma at which a criterion crosses its limit: geometric mean over seeds with a 95 % interval."""

    mode: str
    target: str
    profile: Profile
    sigma: float | None
    interval: tuple[float, float] | None
    noise_rms: float | None
    relative: float | None
    by_seed: list[float | None]
    note: str = ""  # why sigma is None: not reached, or below the smallest sigma


class ProbeSettings(Part):
    """All that decides the numbers."""

    format: str
    modes: list[str]
    targets: list[str]
    sigmas: dict[str, list[float]]  # by target
    relative: bool
    seeds: list[int]
    criterion: Criterion
    limit: float
    multipliers_sha256: str | None = None
    calibration: Calibration
    exclude: list[str]
    device: str
    dtype: str
    backend: str
    versions: dict[str, str]


class Probe(Document):
    """The whole document."""

    CALLED, COMMAND = "probe document", "probe"

    schema_version: Literal[1] = 1
    document: Literal["srdd-probe"] = "srdd-probe"
    model: Model
    settings: ProbeSettings
    baselines: list[Baseline]
    trials: list[Trial]
    breaks: list[Break]
    warnings: list[str] = Field(default_factory=list)
    provenance: dict[str, str | float | None] = Field(default_factory=dict)

    def of(self, mode: str, target: str, profile: Profile, sigma: float) -> list[Trial]:
        """The seeds of one cell."""
        return [t for t in self.trials if (t.mode, t.target, t.profile, t.sigma) == (mode, target, profile, sigma)]


def over_seeds(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Mean and standard error over seeds; None when one of them is not finite. The error of one seed is nan."""
    known = [v for v in values if v is not None]
    if len(known) < len(values) or not known:
        return None
    return mean_and_error(known)
