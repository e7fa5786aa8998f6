"""Rows of impact documents of version 1, as a run gathers them; srdd.documents.impact_v1 makes them a report.

KL is in nats per token. Errors are standard errors over calibration sequences. A `point` is the mode: what is
quantized, "weight" (W4A16 in users' words), "input" (W16A4) or "both" (W4A4).

Not here: measuring it (srdd.runs.impact).

Worked number: losses 2.60 clean and 3.12 quantized: change +20 %, perplexities 13.5 and 22.6.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from srdd.core.modes import Mode
from srdd.documents.parts import Calibration, Estimate, Model, Part


class LinearImpact(Part):
    """One Linear: relative error of its own output on clean inputs, and the KL predicted for it."""

    module: str
    role: str
    layer: int | None = None
    group: str | None = None
    format: str
    output_error: dict[Mode, Estimate]  # sqrt(sum |e|^2 / sum |y|^2)
    interaction: float  # (|e_both|^2 - |e_weight|^2 - |e_input|^2) / |e_both|^2
    predicted_kl: dict[Mode, Estimate] = Field(default_factory=dict)


class LayerImpact(Part):
    """One decoder layer under one format in one mode."""

    layer: int
    format: str
    point: Mode
    isolated: Estimate  # relative error of its output, clean input, only this layer quantized
    cumulative: Estimate  # the same with all layers up to it quantized
    growth: float | None = None  # cumulative over that of the layer below
    predicted_kl: Estimate | None = None  # from the layer's own output error
    predicted_kl_joint: Estimate | None = None  # its Linears' errors added before squaring
    predicted_kl_modules: Estimate | None = None  # the sum of its Linears' predictions
    swap_kl: Estimate | None = None  # measured: this layer alone quantized
    swap_error: Estimate | None = None  # measured, the same: relative error of the last layer's output
    noise_kl: Estimate | None = None  # measured: Gaussian noise of the same norm instead of its error
    scores: dict[str, float] = Field(default_factory=dict)  # of a scan on the same tokens, larger is worse


class WholeImpact(Part):
    """The model with every layer quantized, on the same tokens as the reference."""

    format: str
    point: Mode
    loss: Estimate
    loss_change: Estimate  # over the reference's loss, as a ratio
    perplexity: float
    kl: Estimate
    kl_median: float
    kl_p90: float
    kl_p99: float
    kl_max: float
    top1: Estimate  # share of tokens with the same most likely token
    additivity: float | None = None  # sum of single-layer KLs, measured, over the KL of all together
    additivity_predicted: float | None = None
    no_effect: bool = False  # nothing changed at all: a format that does nothing, or one that never ran


class Reference(Part):
    """The model as it is."""

    loss: Estimate
    perplexity: float
    entropy: Estimate


class ImpactSettings(Part):
    """All that decides the numbers."""

    formats: list[str]
    points: list[Mode]
    calibration: Calibration
    attribute: list[Literal["gradient", "swap", "swap-groups"]]
    label_samples: int
    rows: int  # tokens per sequence for the errors of Linears; 0: all
    exclude: list[str]
    left_out: list[str]
    noise: bool
    seed: int
    device: str
    dtype: str
    backend: str
    versions: dict[str, str]


class Impact(Part):
    """The whole document."""

    schema_version: Literal[1] = 1
    document: Literal["srdd-impact"] = "srdd-impact"
    model: Model
    settings: ImpactSettings
    reference: Reference | None = None  # None: no language-model head, hence no loss and no KL
    whole: list[WholeImpact] = Field(default_factory=list)
    layers: list[LayerImpact]
    linears: list[LinearImpact]
    groups: dict[str, dict[str, dict[Mode, float]]] = Field(default_factory=dict)  # format -> group -> predicted KL
    group_swaps: dict[str, dict[str, dict[Mode, Estimate]]] = Field(default_factory=dict)  # the same, measured
    warnings: list[str] = Field(default_factory=list)
    provenance: dict[str, str | float | None] = Field(default_factory=dict)
