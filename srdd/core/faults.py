"""Faults that are planted on purpose: where, what kind, how large, as text and as a checked value.

    layer=10,deadzone=0.01
    layer=3,module=mlp.down_proj,noise=0.05,at=input,steps=prefill,seed=1

Not here: what a kind does to a tensor (srdd.models.fault_kinds has a function for every row of `KINDS`), and finding
faults (srdd.analysis.faults).

Worked number: a token (1.0, 0.02, -0.005) with deadzone=0.01 becomes (1.0, 0.02, 0); with saturation=0.5 it becomes
(0.5, 0.02, -0.005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from srdd.core.near import did_you_mean
from srdd.errors import SettingError

At = Literal["weight", "input", "output"]
Steps = Literal["all", "prefill"]


@dataclass(frozen=True)
class FaultKind:
    """One kind: what its size counts, and which sizes there are."""

    name: str
    size_means: str
    lowest: float
    highest: float
    whole: bool = False  # the size is a count, from `lowest` to `highest`, both included; else both are excluded
    trial_sizes: tuple[float, ...] = ()  # what the self-test plants, ascending


KINDS: dict[str, FaultKind] = {
    kind.name: kind
    for kind in (
        FaultKind(
            "deadzone", "share of the token's largest magnitude below which values become 0", 0, 1,
            trial_sizes=(1e-5, 1e-4, 1e-3, 0.01),
        ),
        FaultKind(
            "saturation", "share of the token's largest magnitude that values are clamped to", 0, 1,
            trial_sizes=(0.1, 0.3, 0.6, 0.9),
        ),
        FaultKind(
            "noise", "standard deviation of Gaussian noise, in root mean squares of the token", 0, math.inf,
            trial_sizes=(1e-4, 1e-3, 0.01, 0.1),
        ),
        FaultKind(
            "absolute_noise", "standard deviation of Gaussian noise, in the tensor's own unit", 0, math.inf,
            trial_sizes=(1e-3, 0.01, 0.1, 1.0),
        ),
        FaultKind(
            "bias", "added to every value, in root mean squares of the token", -math.inf, math.inf,
            trial_sizes=(1e-3, 0.01, 0.1, 1.0),
        ),
        FaultKind(
            "stuck", "share of the channels that read 1.0 always, at least one", 0, 1,
            trial_sizes=(1e-3, 0.01, 0.1),
        ),
        FaultKind(
            "bit_flip", "share of the values whose lowest exponent bit flips (twice or half)", 0, 1,
            trial_sizes=(1e-4, 1e-3, 0.01),
        ),
        FaultKind("dead_channel", "number of channels that are 0", 1, math.inf, whole=True, trial_sizes=(1, 4, 16)),
        FaultKind("dead_head", "number of attention heads that give 0", 1, math.inf, whole=True, trial_sizes=(1, 2)),
    )
}  # fmt: skip
_EXAMPLE = "e.g. layer=10,deadzone=0.01"
_KEYS = ("layer", "module", "at", "steps", "seed")


@dataclass(frozen=True)
class Fault:
    """A fault of one kind in one place. Without a module it is that of the whole decoder layer.

    Raises SettingError for a kind that is unknown, a size out of its range, and places that no fault can have.
    """

    layer: int
    kind: str
    size: float
    module: str | None = None
    at: At = "output"
    steps: Steps = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self, "plant")

    def __str__(self) -> str:
        module = f",module={self.module}" if self.module else ""
        steps = "" if self.steps == "all" else f",steps={self.steps}"
        seed = f",seed={self.seed}" if self.seed else ""
        return f"layer={self.layer},{self.kind}={self.size:g}{module},at={self.at}{steps}{seed}"

    @property
    def place(self) -> str:
        """In words: "output of layer 10", "weight of layer 3 mlp.down_proj"."""
        return f"{self.at} of layer {self.layer}{f' {self.module}' if self.module else ''}"


def parse_fault(text: str, name: str = "plant") -> Fault:
    """The fault that a text names. Raises SettingError, which calls the setting `name`."""
    given: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        key = key.replace("-", "_")
        if not equals or not value or key in given:
            raise SettingError(name, repr(text), f"{part.strip()!r} not understood; expected KEY=VALUE, {_EXAMPLE}")
        if key not in KINDS and key not in _KEYS:
            meant = did_you_mean(key, [*KINDS, *_KEYS])
            raise SettingError(name, repr(text), f"no fault is called {key!r}{meant}; known: {', '.join(KINDS)}")
        given[key] = value
    kinds = [key for key in given if key in KINDS]
    if len(kinds) != 1 or "layer" not in given:
        raise SettingError(name, repr(text), f"expected a layer and one kind ({', '.join(KINDS)}), {_EXAMPLE}")
    kind = kinds[0]
    try:
        layer, size, seed = int(given["layer"]), float(given[kind]), int(given.get("seed", "0"))
    except ValueError:
        raise SettingError(name, repr(text), f"layer, seed and {kind} are numbers, {_EXAMPLE}") from None
    at = given.get("at", _at_of(kind))
    steps = given.get("steps", "all")
    if at not in get_args(At):
        raise SettingError(name, repr(text), f"at is one of {', '.join(get_args(At))}, found {at!r}")
    if steps not in get_args(Steps):
        raise SettingError(name, repr(text), f"steps is one of {', '.join(get_args(Steps))}, found {steps!r}")
    try:
        return Fault(layer, kind, size, given.get("module"), at, steps, seed)  # type: ignore[arg-type]  # checked
    except SettingError as problem:
        raise SettingError(name, repr(text), problem.expected) from None


def _at_of(kind: str) -> At:
    """Heads are told at the input of the projection that joins them."""
    return "input" if kind == "dead_head" else "output"


def _check(fault: Fault, name: str) -> None:
    kind = KINDS.get(fault.kind)
    if kind is None:
        raise SettingError(name, repr(fault.kind), f"expected one of {', '.join(KINDS)}")
    if fault.layer < 0 or fault.seed < 0:
        raise SettingError(name, str(fault), "layer and seed count from 0")
    low, high, size = kind.lowest, kind.highest, fault.size
    inside = low <= size <= high and size == int(size) if kind.whole and math.isfinite(size) else low < size < high
    if not math.isfinite(size) or not inside or size == 0:
        expected = f"a whole number from {low:g}" if kind.whole else _between(low, high)
        raise SettingError(name, str(fault), f"{kind.name} is the {kind.size_means}: expected {expected}")
    if fault.at == "weight" and fault.module is None:
        raise SettingError(name, str(fault), "a layer has many weights; name the module, e.g. module=mlp.down_proj")
    if fault.at == "weight" and fault.steps != "all":
        raise SettingError(name, str(fault), "a weight is the same in all steps; leave steps out")
    if fault.kind == "dead_head" and fault.at != "input":
        raise SettingError(name, str(fault), "heads are told at the input of what joins them; leave at out")


def _between(low: float, high: float) -> str:
    if math.isinf(low):
        return "a finite number other than 0"
    return f"a number above {low:g}" if math.isinf(high) else f"a number between {low:g} and {high:g}"
