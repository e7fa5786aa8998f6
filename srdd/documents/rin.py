"""`rin.yaml`: how much noise a trainer should inject where, with the schedule; one self-contained document.

RIN (resilient-improving noise) is QeRL's adaptive quantization noise (arXiv 2510.11696) with a factor per layer: the
weights w of a norm become w + N(0, s^2) with s = sigma(step) * layer_multipliers[layer] * phase factor. sigma decays
geometrically in stages.

Not here: how the numbers are found (srdd.analysis.multipliers) and the injection itself (srdd.noise).

Worked number: sigma_start 0.05, sigma_end 0.0005, 10 stages over 30 steps: no noise for steps 0-2, 0.05 for 3-5,
0.05 * 0.01^(1/8) = 0.0281 for 6-8, ..., 0.0005 for 27-29; a layer with multiplier 1.2 gets 0.06 in steps 3-5.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from srdd.documents.opening import open_document
from srdd.documents.parts import Document, Estimate, MadeFrom, Part
from srdd.errors import NoEffectError, SettingError

Target = Literal["rmsnorm", "linear", "both"]
ScheduleKind = Literal["staged", "constant", "linear"]
ChosenBy = Literal["given", "noise_kl", "probe", "default"]
_NORMS, _LINEARS = ["*RMSNorm*", "*LayerNorm*"], ["Linear", "Conv1D"]
CLASSES: dict[str, list[str]] = {"rmsnorm": _NORMS, "linear": _LINEARS, "both": [*_NORMS, *_LINEARS]}
EXCLUDE = ("*lm_head*", "*embed*")
MIN_STAGES = 3  # the first is silent and the decay needs two points


class Schedule(Part):
    """sigma over the training; srdd.documents.schedule computes it.

    staged: QeRL's `num_stages` equal intervals, the first silent, then a geometric decay from sigma_start to sigma_end.
    linear: from sigma_start at the first noisy step to sigma_end at the last. constant: sigma_start, always.
    `warmup_share` of the training is silent; None means 1 / num_stages for staged (QeRL's) and 0 for the others.
    """

    kind: ScheduleKind = "staged"
    sigma_start: float = Field(allow_inf_nan=False)
    sigma_end: float = Field(allow_inf_nan=False)
    num_stages: int | None = None
    warmup_share: float | None = Field(default=None, ge=0, lt=1)

    @model_validator(mode="after")
    def _possible(self) -> Schedule:
        start, end = self.sigma_start, self.sigma_end
        if not start > 0:
            raise SettingError("sigma_start", f"{start:g}", "expected above 0; at 0 no noise would be injected")
        if end > start:
            raise SettingError("sigma_end", f"{end:g}", f"is above sigma_start {start:g}; noise must not grow")
        if self.kind == "staged":
            self._possible_stages()
        elif self.num_stages is not None:
            raise NoEffectError("num_stages", f"on a {self.kind} schedule")
        if self.kind == "constant" and end != start:
            raise SettingError("sigma_end", f"{end:g}", f"a constant schedule keeps {start:g}")
        if self.kind == "linear" and end < 0:
            raise SettingError("sigma_end", f"{end:g}", "expected 0 or above")
        return self

    def _possible_stages(self) -> None:
        if not self.sigma_end > 0:
            expected = "expected above 0; a geometric decay never reaches 0 (try 0.0005)"
            raise SettingError("sigma_end", f"{self.sigma_end:g}", expected)
        if self.num_stages is None or self.num_stages < MIN_STAGES:
            expected = f"expected {MIN_STAGES} or more; the first stage is silent and a decay needs two"
            raise SettingError("num_stages", self.num_stages, expected)


class Phase(Part):
    """From `from_share` of the training on, the noise of each layer is multiplied by its factor as well."""

    from_share: float = Field(ge=0, lt=1)
    layer_factors: dict[int, float]


class RinProvenance(MadeFrom):
    """What the multipliers were made from, and how."""

    strategy: str
    normalize: str | None = None
    clamp: tuple[float, float] | None = None
    scheme: str | None = None
    notes: list[str] = Field(default_factory=list)


class Dose(Part):
    """What the noise at sigma_start costs, and how far it is from what the model bears; None: not known.

    Numbers are of this document's own multipliers. The break is the sigma at which the loss rises by a tenth, predicted
    from the noise sensitivities of the model as it is, or that of a probe, by its own criterion and in its mode.
    """

    chosen_by: ChosenBy  # how sigma_start was found
    predicted_kl: Estimate | None = None  # nats a token
    rms_share: float | None = None  # the rms of the noise over the rms of the weights that get it
    break_sigma: float | None = None
    break_interval: tuple[float, float] | None = None  # of about 95 %
    break_source: str = ""  # "predicted", or the mode of the probe: "W4A4"


class Feeds(Part):
    """Which norm feeds which Linears, by role; noise on a norm reaches no Linear of `unfed`."""

    attention: list[str]
    mlp: list[str]
    unfed: list[str]


class RinConfig(Document):
    """The document. Multipliers are relative: they say where, not how much; unknown keys are errors."""

    CALLED, COMMAND = "rin document", "multipliers"
    IS_YAML = True

    schema_version: Literal[1] = 1
    document: Literal["srdd-rin"] = "srdd-rin"
    provenance: RinProvenance
    schedule: Schedule
    target: Target
    target_classes: list[str]  # class names of the modules that get noise, * as in file names
    exclude: list[str] = Field(default_factory=lambda: list(EXCLUDE))  # names of modules that get none, as globs
    relative: bool = False  # sigma counts in units of each weight's own root mean square
    outside_layers: float = 1.0  # multiplier of modules that belong to no layer, such as the final norm
    layer_multipliers: dict[int, float]
    norm_multipliers: dict[Literal["attention", "mlp"], dict[int, float]] | None = None  # instead, for norms
    feeds: Feeds | None = None
    dose: Dose | None = None
    phases: list[Phase] = Field(default_factory=list)
    lr_multipliers: dict[int, float] | None = None

    @model_validator(mode="after")
    def _sensible(self) -> RinConfig:
        maps = {"layer_multipliers": self.layer_multipliers, "lr_multipliers": self.lr_multipliers or {}}
        maps |= {f"norm_multipliers.{name}": values for name, values in (self.norm_multipliers or {}).items()}
        maps |= {f"phases[{i}].layer_factors": phase.layer_factors for i, phase in enumerate(self.phases)}
        for name, values in maps.items():
            bad = {layer: value for layer, value in values.items() if layer < 0 or not 0 <= value < math.inf}
            if bad:
                raise ValueError(f"{name}: expected layers from 0 and finite values from 0, found {bad}")
            unknown = sorted(values.keys() - self.layer_multipliers.keys())
            if unknown:
                raise ValueError(f"{name}: layer(s) {unknown} have no layer multiplier")
            missing = sorted(self.layer_multipliers.keys() - values.keys())
            if values and missing and not name.startswith("norm_multipliers"):
                raise ValueError(f"{name}: layer(s) {missing} are missing; a factor of 1 must be written down")
        if not any(self.layer_multipliers.values()):
            raise ValueError("layer_multipliers: all are 0 or none is given; no noise would be injected")
        shares = [phase.from_share for phase in self.phases]
        if shares != sorted(set(shares)):
            raise ValueError(f"phases: from_share must rise, found {shares}")
        if not 0 <= self.outside_layers < math.inf:
            raise ValueError(f"outside_layers: expected a finite value from 0, found {self.outside_layers}")
        return self


def load_rin(config: RinConfig | str | Path) -> RinConfig:
    """The document itself, or what rin.yaml or rin.json at this path holds. Raises ReportError in one line."""
    if isinstance(config, RinConfig):
        return config
    if not isinstance(config, str | Path):
        found = type(config).__name__
        raise SettingError("config", None, f"expected a RinConfig or the path of rin.yaml, found {found}")
    return open_document(config, RinConfig).document
