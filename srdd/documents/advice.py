"""Advice as a document: the verdict, the rule it came from, flagged layers, and formats that would do better.

Not here: the rules (srdd.analysis.advice).

Worked number: a layer of 40 % relative error under a limit of 33.2 % has severity 1.2.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from srdd.core.modes import Mode
from srdd.documents.parts import Estimate, Part

Verdict = Literal["no_action", "higher_precision", "mixed_approach", "reconsider_format"]
Against = Literal["cost", "format", "classic"]
Action = Literal["higher precision", "noise in training", "another format"]


class WhatIf(Part):
    """Another format of the same report at the same place."""

    format: str
    gain_db: float | None = None
    predicted_kl: float | None = None  # of the layer, where costs are known
    bits_per_value: float | None


class Flagged(Part):
    """A layer beyond a limit: by what, why as far as it was measured, and what would help."""

    layer: int
    beyond: dict[str, float]  # metric -> value
    severity: float  # the worst of its metrics over its limit, in amplitude; of a cost: over the mean layer's
    action: Action
    cause: str
    noise_shares: dict[str, float] = Field(default_factory=dict)  # of the noise power: clipping, underflow, rounding
    crest: float | None = None
    kurtosis: float | None = None
    what_if: list[WhatIf] = Field(default_factory=list)


class Candidate(Part):
    """A format of the report and how many of its layers are beyond its own limits."""

    format: str
    bits_per_value: float | None
    sqnr_db: float | None  # mean over layers
    kl: Estimate | None = None  # of the whole model, where costs are known
    flagged: int
    layers: int
    passes: bool


class Advice(Part):
    """The advice with all it rests on."""

    schema_version: Literal[1] = 1
    document: Literal["srdd-advice"] = "srdd-advice"
    model: str
    site: str
    quant: str
    mode: Mode | None = None  # of costs
    against: Against
    limits: dict[str, float]
    layers: int
    verdict: Verdict
    rule: str  # the line of the rule table that applied
    flagged: list[Flagged]
    formats: list[Candidate]
    next_format: str | None = None
    sigma_range: tuple[float, float] | None = None
    sigma_source: str | None = None
    notes: list[str] = Field(default_factory=list)
