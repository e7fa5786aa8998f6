"""Policies: the limits and floors that a check holds a report to, from a TOML file or from short texts.

Not here: what a limit means (limits.py), reports and verdicts (gate.py). In a text the sign repeats which way is worse,
so that a slip is refused rather than obeyed.

Worked number: "sqnr_db=-0.5" allows 18.5 dB where the baseline has 19, "relative_error=+5%" 0.105 where it has 0.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from srdd.analysis.comparison.limits import Factor, Floor, Limit, Scope, amount_of
from srdd.core.metrics import gated_metric
from srdd.documents.opening import decoded, read_bytes
from srdd.documents.parts import KINDS
from srdd.errors import ReportError, SettingError, SrddError

IMPLAUSIBLE_GAIN = 2.0  # an error halved (6 dB) between two checkpoints is more often the wrong file than a gain


@dataclass(frozen=True)
class Policy:
    """All that a check holds a report to."""

    limits: tuple[Limit | Factor, ...] = ()
    floors: tuple[Floor, ...] = ()
    implausible_gain: float = IMPLAUSIBLE_GAIN
    # What limits are checked on; None: given ones on layers, the built-in ones on modules, which do not hide there
    by: Literal["layer", "module"] | None = None
    undecided: Literal["pass", "fail"] = "pass"  # what lies beyond its bound by no more than chance may bring
    are_defaults: bool = field(default=False, compare=False)  # the built-in limits, which the reports decide
    scope: Scope = field(default_factory=Scope)  # what the built-in limits are narrowed to


def load_policy(path: str | Path) -> Policy:
    """A policy from TOML: [[limit]] and [[floor]] tables, implausible_gain, by. Raises ReportError in one line."""
    import tomllib

    path = Path(path)
    remedy = "write [[limit]] and [[floor]] tables there, or give limits and floors without a file"
    content = read_bytes(path, "policy", remedy)
    try:
        document = tomllib.loads(decoded(content, str(path), "policy", "TOML"))
    except ValueError as problem:
        raise ReportError(f"cannot read the policy {path}: {problem}") from problem
    known = ("limit", "floor", "implausible_gain", "by", "undecided")
    unknown = [key for key in document if key not in known]
    if unknown:
        raise ReportError(f"{path}: unknown key {unknown[0]!r}; known: {', '.join(known)}")
    try:
        policy = Policy(
            limits=tuple(_limits(document)),
            floors=tuple(_tables(document, "floor", Floor)),
            implausible_gain=check_gain(document.get("implausible_gain", IMPLAUSIBLE_GAIN)),
            by=check_by(document["by"]) if "by" in document else None,
            undecided=check_undecided(document.get("undecided", "pass")),
        )
    except SrddError as problem:
        raise ReportError(f"{path}: {problem}") from None
    if not policy.limits and not policy.floors:
        raise ReportError(f"{path} holds neither a [[limit]] nor a [[floor]]")
    return policy


def check_by(by: object) -> Literal["layer", "module"]:
    """What limits are checked on. Raises SettingError for anything but layer and module."""
    if by == "layer" or by == "module":
        return by
    raise SettingError("by", repr(by), "expected layer or module")


def check_undecided(undecided: object) -> Literal["pass", "fail"]:
    """What becomes of what is undecided. Raises SettingError for anything but pass and fail."""
    if undecided == "pass" or undecided == "fail":
        return undecided
    raise SettingError("undecided", repr(undecided), "expected pass or fail")


def parse_limit(limit: str, scope: Scope) -> Limit | Factor:
    """ "sqnr_db=-0.5", "relative_error=+5%", "rms=x2". Raises SettingError, also for a sign that says better."""
    try:
        name, amount = _halves(limit, "sqnr_db=-0.5, relative_error=+5% or rms=x2")
        if amount.startswith("x"):
            return _build(Factor, {"metric": name, "factor": amount_of(amount[1:])[0], **scope.model_dump()})
        up = gated_metric(name).better == "up"
        value, percent = amount_of(amount)
        if value and (value > 0) == up:
            way, sign = ("fall", "-") if up else ("rise", "+")
            raise ValueError(f"{name} is worse when it {way}s; expected {name}={sign}{amount.lstrip('+-')}")
        worse = f"{100 * abs(value)}%" if percent else abs(value)
        return _build(Limit, {"metric": name, "max_worse": worse, **scope.model_dump()})
    except (ValueError, SrddError) as problem:
        raise SettingError("limit", limit, str(problem)) from None


def parse_floor(floor: str, scope: Scope) -> Floor:
    """ "sqnr_db=15"; for a metric that is worse when it rises it is the largest value. Raises SettingError."""
    try:
        name, value = _halves(floor, "sqnr_db=15 or relative_error=15%")
        gated_metric(name)
        amount_of(value)
        return _build(Floor, {"metric": name, "value": value, **scope.model_dump()})
    except (ValueError, SrddError) as problem:
        raise SettingError("floor", floor, str(problem)) from None


def check_gain(implausible_gain: object) -> float:
    """The factor beyond which a gain is implausible. Raises SettingError unless it is above 1."""
    gain = implausible_gain
    if not isinstance(gain, int | float) or isinstance(gain, bool) or not 1 < gain < math.inf:
        raise SettingError("implausible_gain", repr(gain), f"expected a factor above 1, e.g. {IMPLAUSIBLE_GAIN:g}")
    return float(gain)


def _halves(text: str, example: str) -> tuple[str, str]:
    """Name and value around the "=". Raises ValueError."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name or not value:
        raise ValueError(f"not understood; expected e.g. {example}")
    return name, value


_Scoped = TypeVar("_Scoped", Limit, Floor, Factor)


def _tables(document: dict[str, Any], key: str, of: type[_Scoped]) -> list[_Scoped]:
    rows = document.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ReportError(f"{key} is no table; write [[{key}]]")
    made = []
    for place, row in enumerate(rows, 1):
        try:
            made.append(_build(of, row))
        except SrddError as problem:
            raise ReportError(f"[[{key}]] {place}: {problem}") from None
    return made


def _limits(document: dict[str, Any]) -> list[Limit | Factor]:
    """Those with a factor are factors, the others limits; in their order."""
    rows = document.get("limit", [])
    factors = [isinstance(row, dict) and "factor" in row for row in rows] if isinstance(rows, list) else []
    if not any(factors):
        return [*_tables(document, "limit", Limit)]
    made: list[Limit | Factor] = []
    for row, is_factor in zip(rows, factors, strict=True):
        alone = {"limit": [row]}
        made += _tables(alone, "limit", Factor) if is_factor else _tables(alone, "limit", Limit)
    return made


def _build(of: type[_Scoped], values: dict[str, Any]) -> _Scoped:
    """A limit or floor. Raises ReportError for keys and values that make none, and what the values are wrong in."""
    try:
        return of.model_validate(values)
    except ValidationError as problem:
        first = problem.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        known = ", ".join(of.model_fields)
        text = {
            "extra_forbidden": f"unknown key {key!r}; known: {known}",
            "missing": f"key {key!r} is missing; known: {known}",
        }.get(first["type"], f"{first['msg'].removeprefix('Value error, ')}")
        raise ReportError(text) from None


def scope_of(kind: str | None, spec: str | None, layers: str | None) -> Scope:
    """Where a limit holds, from texts. Raises SettingError."""
    try:
        return Scope(site=kind, quant=spec, layers=layers)  # type: ignore[arg-type]  # the validator knows plurals
    except ValidationError:
        raise SettingError("kind", kind, f"expected {', '.join(KINDS)}") from None


# What holds when nothing is said: half a decibel, a twentieth of the error, a percentage point, a weight's rms twice or
# half of what it was.
DEFAULTS = (
    Limit(metric="block_sqnr_db", max_worse=0.5),
    Limit(metric="relative_error", max_worse="5%"),
    Limit(metric="deadzone_ratio", max_worse=0.01),
    Limit(metric="saturation_ratio", max_worse=0.01),
    Limit(metric="zero_ratio", max_worse=0.01),
    Limit(metric="zero_ratio_after", max_worse=0.01),
    Factor(metric="rms", factor=2.0, site="weight"),
    # the largest value over the rms: of a weight as good as fixed, of an activation up to 2.5 times on other text
    Factor(metric="crest", factor=2.0, site="weight"),
    Factor(metric="crest", factor=4.0, site="input"),
    Factor(metric="crest", factor=4.0, site="output"),
)
# The same where both reports know what quantizing the whole model costs.
COST_DEFAULTS = (Limit(metric="kl", max_worse="10%"), Limit(metric="loss", max_worse=0.02))
# And where both know what that is predicted to be layer by layer.
LAYER_COST_DEFAULTS = (Limit(metric="predicted_kl", max_worse="25%"),)


def built_in(
    scope: Scope, *, with_costs: bool, with_layer_costs: bool = False, with_blocks: bool = True
) -> tuple[Limit | Factor, ...]:
    """The limits that hold when nothing is said, for one kind of site, one format or some layers where so asked.

    Where a report counted no blocks, as older ones, the SQNR of sums stands for their median.
    """
    defaults = DEFAULTS if with_blocks else (Limit(metric="sqnr_db", max_worse=0.5), *DEFAULTS[1:])
    given = {name: value for name, value in scope.model_dump().items() if value is not None}
    limits: list[Limit | Factor] = [
        limit.model_copy(update=given) for limit in defaults if limit.site in (None, scope.site) or scope.site is None
    ]
    if with_costs and scope.site is None and scope.layers is None:
        limits += [limit.model_copy(update=given) for limit in COST_DEFAULTS]
    if with_layer_costs and scope.site is None:
        limits += [limit.model_copy(update=given) for limit in LAYER_COST_DEFAULTS]
    return tuple(limits)
