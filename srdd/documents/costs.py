"""What formats cost a model: the part of a report that ranks. KL in nats a token, errors over units of text.

Every number keeps one value a sequence, so that parts of a run merge into the whole and two checkpoints are paired
sequence by sequence; value and error are computed from these anew on loading. A mode is what is quantized (the field
`mode`): "weight", "input" or "both", W4A16, W16A4 or W4A4 for a 4-bit format. Under stochastic rounding numbers are
means over draws, with the value of each draw and their spread beside (drawn.py).

Not here: measuring (srdd.runs.impact) and rankings (srdd.analysis.costs).

Worked number: a Linear predicted at 0.2 and 0.4 nats, summed over two sequences of 511 predicted tokens, has the values
0.000391 and 0.000783 a token, hence 0.000587 ± 0.000196.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any, Literal

from pydantic import Field, model_validator

from srdd.core.modes import Mode
from srdd.core.roles import Norm
from srdd.core.uncertainty import jackknife
from srdd.documents.cost import Cost as Cost
from srdd.documents.cost import Ratio as Ratio
from srdd.documents.parts import Calibration, Part

How = Literal["predicted", "layers", "groups"]  # predicted KL; measured KL of layers, of fusion groups, each alone
_LARGEST_EXPONENT = 700.0  # exp of more overflows a float64


class CostSettings(Part):
    """All that decides the numbers of costs."""

    formats: list[str]  # specs; "identity" is the control, which changes nothing
    modes: list[Mode]
    how: list[How]
    calibration: Calibration
    label_samples: int = 1  # labels drawn from the model, for predicted KL
    tokens_per_sequence: int = 0  # taken for output errors of Linears; 0: all
    exclude: list[str] = Field(default_factory=list)  # patterns of modules that stay as they are
    left_out: list[str] = Field(default_factory=list)  # the modules they match
    noise_control: bool = False
    sensitive: list[Literal["norm", "linear"]] = Field(default_factory=list)  # whose noise sensitivity was measured
    seed: int = 0
    backend: str = ""


class Clean(Part):
    """The model as it is, on the tokens of the costs."""

    loss: Cost
    entropy: Cost

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss.value, _LARGEST_EXPONENT))


class WholeCost(Part):
    """The model with every layer quantized, on the same tokens."""

    format: str
    mode: Mode
    loss: Cost
    kl: Cost
    top1: Cost  # share of tokens with the same most likely token
    kl_quantiles: dict[Literal["0.5", "0.9", "0.99", "1"], float] = Field(default_factory=dict)  # over tokens
    no_effect: bool = False  # nothing changed at all: a format that does nothing, or one that never ran

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss.value, _LARGEST_EXPONENT))


class LayerCost(Part):
    """One decoder layer under one format in one mode, nothing else quantized."""

    layer: int
    format: str
    mode: Mode
    predicted_kl: Cost | None = None  # its Linears' and experts' products g . d added before squaring
    measured_kl: Cost | None = None
    predicted_kl_own: Cost | None = None  # from the error of the layer's own output
    predicted_kl_linears: Cost | None = None  # the sum of its Linears' predictions
    measured_error: Ratio | None = None  # relative error of the last layer's output, for models without a head
    isolated: Ratio | None = None  # relative error of its output
    cumulative: Ratio | None = None  # the same with all layers below quantized too
    noise_kl: Cost | None = None  # measured with Gaussian noise of the same norm in place of its error
    scores: dict[str, float] = Field(default_factory=dict)  # of a scan on the same tokens, larger is worse


class GroupCost(Part):
    """Modules that serving stacks fuse and that must share a format; a Linear that is fused with nothing is one too."""

    name: str
    layer: int | None
    members: list[str]
    parameters: int  # 0: version 1 did not say
    format: str
    predicted_kl: dict[Mode, Cost] = Field(default_factory=dict)  # its members' products added before squaring
    measured_kl: dict[Mode, Cost] = Field(default_factory=dict)


class LinearCost(Part):
    """One Linear, nothing else quantized."""

    module: str
    role: str
    layer: int | None = None
    group: str | None = None
    parameters: int  # 0: version 1 did not say
    format: str
    predicted_kl: dict[Mode, Cost] = Field(default_factory=dict)
    output_error: dict[Mode, Ratio] = Field(default_factory=dict)
    interaction: float | None = None  # (|e_both|^2 - |e_weight|^2 - |e_input|^2) / |e_both|^2


class ExpertCost(Part):
    """One expert of a mixture, all its matrices together."""

    module: str  # of the experts, or of the expert where each is a module of its own
    expert: int
    layer: int | None
    group: str | None
    parameters: int
    tokens: int  # that it got; with 0 it has no cost, which is not a cost of 0
    format: str
    predicted_kl: dict[Mode, Cost] = Field(default_factory=dict)


class Sensitivity(Part):
    """What Gaussian noise on a weight costs: KL = sigma^2 / 2 * trace, a token."""

    name: str  # of the parameter
    kind: Literal["norm", "linear"]
    layer: int | None
    feeds: Norm | None = None  # of a norm: what it stands before
    parameters: int
    rms: float  # of the weight; of 1 + w where a norm multiplies by that
    trace: Cost  # of the Fisher information of its values, a token


class Unpriced(Part):
    """A module that quantizes and has no cost here, and why."""

    module: str
    parameters: int
    reason: str


class Costs(Part):
    """The costs of a report. Rows by format stand in the order of `settings.formats`."""

    settings: CostSettings
    clean: Clean | None = None  # None: no language-model head, hence no loss and no KL
    whole: list[WholeCost] = Field(default_factory=list)
    layers: list[LayerCost] = Field(default_factory=list)
    groups: list[GroupCost] = Field(default_factory=list)
    linears: list[LinearCost] = Field(default_factory=list)
    experts: list[ExpertCost] = Field(default_factory=list)
    sensitivities: list[Sensitivity] = Field(default_factory=list)
    unpriced: list[Unpriced] = Field(default_factory=list)

    @model_validator(mode="after")
    def _as_the_settings_say(self) -> Costs:
        known: dict[str, list[Any]] = {"format": self.settings.formats, "mode": self.settings.modes}
        for row in (*self.whole, *self.layers, *self.groups, *self.linears, *self.experts):
            for field, names in known.items():
                found = getattr(row, field, None)
                if found is not None and found not in names:
                    raise ValueError(f"a row has the {field} {found}, the settings {', '.join(names)}")
        count = len(self.settings.calibration.sequence_hashes)
        means = [*([self.clean.loss] if self.clean else []), *(row.kl for row in self.whole)]
        means += [row.predicted_kl for row in self.layers if row.predicted_kl is not None]
        for mean in means:
            if mean.sequences is not None and len(mean.sequences) != count:
                raise ValueError(f"a cost has {len(mean.sequences)} sequences, the calibration {count}")
        return self

    @model_validator(mode="after")
    def _grouped(self) -> Costs:
        """Tell every number which of its sequences are of one document."""
        unit_of = self.settings.calibration.unit_of
        rows = (self.whole, self.layers, self.groups, self.linears, self.experts, self.sensitivities)
        for row in ([self.clean] if self.clean else [], *rows):
            for one in row:
                for value in vars(one).values():
                    for number in value.values() if isinstance(value, dict) else (value,):
                        if isinstance(number, Cost | Ratio):
                            number.group(unit_of)
        return self

    def loss_change(self, row: WholeCost) -> Cost | None:
        """Loss over that of the clean model, less 1, paired by sequence."""
        if self.clean is None:
            return None
        changed, base = row.loss.by_unit, self.clean.loss.by_unit
        value = row.loss.value / self.clean.loss.value - 1
        draws = row.loss.draws and [loss / self.clean.loss.value - 1 for loss in row.loss.draws]
        if len(changed) != len(base) or len(base) < 2:
            return Cost(value=value, draws=draws)
        without = [_share(changed, base, i) for i in range(len(base))]
        return Cost(value=value, error=jackknife(without), draws=draws)

    def additivity(self, row: WholeCost, *, measured: bool = False) -> float | None:
        """The KLs of single layers, added, over the KL of all together; None where they are not known."""
        mine = [layer for layer in self.layers if (layer.format, layer.mode) == (row.format, row.mode)]
        kls = [layer.measured_kl if measured else layer.predicted_kl for layer in mine]
        known = [kl.value for kl in kls if kl is not None]
        return math.fsum(known) / row.kl.value if known and row.kl.value > 0 else None


def _share(changed: list[float], base: list[float], left_out: int) -> float:
    keep = [i for i in range(len(base)) if i != left_out]
    return fmean(changed[i] for i in keep) / fmean(base[i] for i in keep) - 1
