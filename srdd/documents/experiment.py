"""The document of an experiment: arms, seeds, losses, tests; everything needed to run it again.

An arm is a treatment: no quantization, quantization, or quantization with noise on some layers. Seeds are pairs:
within a seed every arm sees the same text, and a layer's noise is the same draw in every arm that has it. Losses are in
nats per token; None is a collapse (a loss that is not finite).

Not here: running it (srdd.runs.experiments.aqn).

Worked number: losses of two arms over three seeds 3.1 3.3 3.2 and 3.0 3.2 3.2: mean difference 0.067, spread 0.058,
effect size 1.15, t = 2.0, p = 0.18: no difference shown.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from srdd.documents.parts import Calibration, Document, Model, Part

Measured = Literal["inference", "train"]  # the loss under noise, or the quantized loss after a fine-tuning


class ArmResult(Part):
    """One treatment and its loss for every seed, in the order of the seeds."""

    name: str
    meaning: str
    quantized: bool
    layers: list[list[int]]  # with noise, by seed
    noise_rms: list[float]  # of the first noisy step, all touched weights together; 0 without noise
    losses: list[float | None]
    mean: float | None
    std: float | None  # over seeds

    @property
    def collapses(self) -> int:
        return sum(loss is None for loss in self.losses)


class PairedTest(Part):
    """Arm `a` minus arm `b`, paired by seed; negative: `a` has the lower loss."""

    a: str
    b: str
    difference: float | None
    interval: tuple[float, float] | None  # 95 %, Student's t
    effect_size: float | None  # mean difference over its standard deviation (Cohen's d_z)
    p: float | None  # paired t-test, two-sided
    p_holm: float | None  # corrected over all comparisons of the document
    verdict: str


class TrainSettings(Part):
    """Of the fine-tuning; None for inference."""

    steps: int
    learning_rate: float
    batch_size: int
    optimizer: str
    schedule: str
    held_out: int  # sequences
    pool: int  # sequences that training draws from


class ExperimentSettings(Part):
    """All that decides the numbers."""

    experiment: Literal["aqn"] = "aqn"
    kind: Measured
    format: str
    mode: str
    target: str
    sigma_start: float
    sigma_end: float
    relative: bool
    seeds: list[int]
    worst: int  # layers in the targeted, healthy and random arms
    ranked_by: str  # site, metric and format that chose them
    report_sha256: str
    fault: dict[str, float] | None = None
    samples: int  # sequences a seed is evaluated on
    calibration: Calibration
    train: TrainSettings | None = None
    exclude: list[str]
    device: str
    dtype: str
    backend: str
    versions: dict[str, str]


class Experiment(Document):
    """The whole document."""

    CALLED, COMMAND = "experiment document", "experiment aqn"

    schema_version: Literal[1] = 1
    document: Literal["srdd-experiment"] = "srdd-experiment"
    model: Model
    settings: ExperimentSettings
    arms: list[ArmResult]
    comparisons: list[PairedTest]
    verdict: str
    warnings: list[str] = Field(default_factory=list)
    provenance: dict[str, str | float | None] = Field(default_factory=dict)

    def arm(self, name: str) -> ArmResult:
        return next(arm for arm in self.arms if arm.name == name)
