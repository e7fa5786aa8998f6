"""Advice as a document: the verdict, the rule it came from, flagged layers, and formats that would do better.

Not here: the rules (srdd.analysis.advice).

Worked number: a layer of 40 % relative error under a limit of 33.2 % has severity 1.2.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from srdd.core.modes import Mode
from srdd.documents.parts import Estimate, Part
from srdd.documents.rin import Dose

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


class DearGroup(Part):
    """A fusion group that is quantized alone, dearest first; `cause` is of the site that is to blame."""

    name: str
    layer: int | None
    members: list[str]
    predicted_kl: Estimate
    share: float  # of the cost of all groups
    blame: str  # weights, inputs, both; "" where it is not known
    cause: str  # "" where the report holds no sums of it
    what_if: list[WhatIf] = Field(default_factory=list)


class KeptGroup(Part):
    """A fusion group in the higher format."""

    name: str
    layer: int | None


class Remedy(Part):
    """Groups kept in a higher format (predicted), or another format throughout (measured, `higher` is None)."""

    why: str  # first, knee, target, throughout
    base: str
    higher: str | None
    keep: list[KeptGroup] = Field(default_factory=list)
    bits_per_value: float
    kl: Estimate  # nats a token, of the whole model
    word: str


class NoiseAdvice(Part):
    """What `srdd multipliers` would write with this strategy."""

    strategy: str
    target: str
    sigma_start: float
    dose: Dose


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
    groups: list[DearGroup] = Field(default_factory=list)  # that carry half of the cost
    remedies: list[Remedy] = Field(default_factory=list)
    next_format: str | None = None
    noise: NoiseAdvice | None = None  # only from measured sensitivities or a probe
    notes: list[str] = Field(default_factory=list)
