"""`rin.yaml`: how much noise a trainer should inject where, with the schedule; one self-contained document.

Not here: how the numbers are found (multipliers.py) and the injection itself. RIN (resilient-improving noise) is QeRL's
adaptive quantization noise (arXiv 2510.11696) with a factor per layer: the weights w of a norm become w + N(0, s^2)
with s = sigma(step) * layer_multipliers[layer] * phase factor. sigma decays geometrically in stages.

Worked number: sigma_start 0.05, sigma_end 0.0005, 10 stages over 30 steps: no noise for steps 0-2, 0.05 for 3-5,
0.05 * 0.01^(1/8) = 0.0281 for 6-8, ..., 0.0005 for 27-29; a layer with multiplier 1.2 gets 0.06 in steps 3-5.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from srdd.documents.schema import Part
from srdd.errors import OptionError

Target = Literal["rmsnorm", "linear", "both"]
ScheduleKind = Literal["staged", "constant", "linear"]
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
        if not self.sigma_start > 0:
            raise OptionError(f"sigma_start {self.sigma_start:g}: expected above 0; at 0 no noise would be injected")
        if self.sigma_end > self.sigma_start:
            raise OptionError(
                f"sigma_end {self.sigma_end:g} is above sigma_start {self.sigma_start:g}; noise must not grow"
            )
        if self.kind == "staged":
            self._possible_stages()
        elif self.num_stages is not None:
            raise OptionError(f"num_stages {self.num_stages} has no effect on a {self.kind} schedule; leave it out")
        if self.kind == "constant" and self.sigma_end != self.sigma_start:
            raise OptionError(f"sigma_end {self.sigma_end:g}: a constant schedule keeps {self.sigma_start:g}")
        if self.kind == "linear" and self.sigma_end < 0:
            raise OptionError(f"sigma_end {self.sigma_end:g}: expected 0 or above")
        return self

    def _possible_stages(self) -> None:
        if not self.sigma_end > 0:
            raise OptionError(
                f"sigma_end {self.sigma_end:g}: expected above 0; a geometric decay never reaches 0 (try 0.0005)"
            )
        if self.num_stages is None or self.num_stages < MIN_STAGES:
            raise OptionError(
                f"num_stages {self.num_stages}: expected {MIN_STAGES} or more; the first stage is silent and a decay "
                "needs two"
            )


class Phase(Part):
    """From `from_share` of the training on, the noise of each layer is multiplied by its factor as well."""

    from_share: float = Field(ge=0, lt=1)
    layer_factors: dict[int, float]


class RinProvenance(Part):
    """What the multipliers were made from, and how."""

    srdd: str
    report_sha256: str
    model: str
    weights_hash: str | None = None
    quant: str
    site: str
    metric: str
    strategy: str
    normalize: str | None = None
    clamp: tuple[float, float] | None = None
    scheme: str | None = None
    notes: list[str] = Field(default_factory=list)


class Feeds(Part):
    """Which norm feeds which Linears, by role; noise on a norm reaches no Linear of `unfed`."""

    attention: list[str]
    mlp: list[str]
    unfed: list[str]


class RinConfig(Part):
    """The document. Multipliers are relative: they say where, not how much; unknown keys are errors."""

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


def load(path: str | Path) -> RinConfig:
    """Read rin.yaml or rin.json. Raises OptionError in one line."""
    import yaml

    if not isinstance(path, str | Path):
        raise OptionError(f"expected a RinConfig or the path of rin.yaml, found {type(path).__name__}")
    path = Path(path)
    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except FileNotFoundError:
        raise OptionError(f"no file {path}; write one with `srdd multipliers --out {path}`") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise OptionError(f"cannot read {path}: {problem}") from problem
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(problem, "problem", None) or getattr(problem, "reason", None) or type(problem).__name__
        raise OptionError(f"{path} is no YAML{place}: {what}; correct it, or write it anew") from problem
    if not isinstance(tree, dict) or tree.get("document") != "srdd-rin":
        raise OptionError(f"{path} is no srdd-rin document; write one with `srdd multipliers --out {path}`")
    try:
        return RinConfig.model_validate(tree)
    except ValidationError as problem:
        raise OptionError(f"{path}: {_said(problem)}") from problem
    except OptionError as problem:
        raise OptionError(f"{path}: {problem}") from problem


def _said(problem: ValidationError) -> str:
    """The first error; an unknown key comes before the missing one that it was probably meant to be."""
    errors = problem.errors()
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    place = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg']}" if place else first["msg"]
    beside = [e["loc"] for e in errors if e["type"] == "missing" and e["loc"][:-1] == first["loc"][:-1]]
    missing = ", ".join(".".join(map(str, loc)) for loc in beside)
    return f"unknown key {place!r}" + (f"; missing: {missing}" if missing else "; leave it out")
