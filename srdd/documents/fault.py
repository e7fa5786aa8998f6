"""The document of `srdd faults`: what every layer and module did when it was run alone, and the faults that were found.

Not here: measuring (srdd.runs.faults) and the verdict (srdd.analysis.faults).

Worked number: an output of 64 tokens and 576 channels of which 37 values are 0 where their parts give another number
has a Deviation of share 0.001 and zeroed 1.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from srdd.documents.parts import Calibration, Document, Model, Part

Where = Literal["weight", "input", "output"]


class Deviation(Part):
    """How a tensor differs from what it must be. Shares are of the values that deviate beyond rounding."""

    share: float  # of all values that deviate
    relative: float  # root mean square of the difference over that of what was expected
    zeroed: float  # that are 0
    threshold: float  # largest expected magnitude among those, over the largest of their token
    spared: float  # of the values below the threshold that were left as they are
    same: float  # that hold one and the same value
    flipped: float  # that are twice or half of what was expected
    clamped: float  # that are smaller, and the largest magnitude of their token
    limit: float  # that magnitude over the expected one
    offset: float  # mean difference, in root mean squares of the token
    spread: float  # its standard deviation over values
    channels: int  # that deviate in nearly all tokens
    in_channels: float  # of the deviating values that are of those channels
    heads: int = 0  # attention heads that are made up of those channels
    explained: float = 1.0  # of the error, where the tensor was inferred and not seen


class WeightHealth(Part):
    """What a weight holds; `sha256` tells whether it is that of another document."""

    sha256: str
    values: int
    zeros: float
    dead_rows: int  # output channels of zeros only
    dead_columns: int
    at_max: float  # share of values as large as the largest of their row, beyond one a row
    same: float  # share of the most frequent value other than 0
    mean: float  # in root mean squares
    rms: float
    kurtosis: float


class ModuleHealth(Part):
    """One layer (`module` is ""), or one module of it."""

    layer: int
    module: str
    kind: str  # layer, linear, or the name of its class
    gains: list[float] = Field(default_factory=list)  # response to perturbations of each size, over their size
    instability: float = 0.0  # rms of the difference of two runs on the same input, over that of the output
    unstable_at: Where | None = None  # where it begins, if it begins here
    noise_size: tuple[float, float] | None = None  # of that noise: in rms of the token, and in the tensor's unit
    noise_scatter: tuple[float, float] | None = None  # over tokens, of the two sizes
    kurtosis_in: float
    kurtosis_out: float
    values: int  # of the output
    zeros: float  # share of them
    zeros_made: float = 0.0  # of those, where the input is not 0
    at_max: float  # share of values as large as the largest of their token, beyond one a token
    nonfinite: int
    nonfinite_in: int
    unexplained: float | None = None  # share of values that its parts do not give; None: its parts are not known
    output: Deviation | None = None
    input: Deviation | None = None
    weight: WeightHealth | None = None
    agreement: float | None = None  # rms of the difference to the other device over that of the output
    quantized_gain: float | None = None  # of a layer, over that without quantization
    quantized_kurtosis: float | None = None


class Finding(Part):
    """A fault: what, where, how large, how sure, and what shows it."""

    kind: str
    layer: int
    module: str
    at: Where
    size: float | None  # in the unit of its kind (srdd.core.faults)
    confidence: float  # 0 to 1: the share of what deviates that has the pattern of this kind
    evidence: str


class Criterion(Part):
    """The study's own: ratio of gain and of kurtosis, quantized to clean, below `limit`."""

    format: str
    limit: float
    flagged: list[int]  # layers
    missed: list[int]  # layers with a fault that it does not flag


class FaultSettings(Part):
    """All that decides the numbers."""

    depth: Literal["layer", "linear"]
    perturbations: list[float]  # in root mean squares of the token
    against: str | None = None
    format: str | None = None
    seed: int
    calibration: Calibration
    device: str
    dtype: str
    backend: str
    versions: dict[str, str]


class Faults(Document):
    """The whole document."""

    CALLED, COMMAND = "faults document", "faults"

    schema_version: Literal[1] = 1
    document: Literal["srdd-faults"] = "srdd-faults"
    model: Model
    settings: FaultSettings
    modules: list[ModuleHealth]
    findings: list[Finding] = Field(default_factory=list)
    criterion: Criterion | None = None
    compared_with: str | None = None  # sha256 of the reference
    warnings: list[str] = Field(default_factory=list)
    provenance: dict[str, str | float | None] = Field(default_factory=dict)
