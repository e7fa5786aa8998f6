"""Policies: the limits and floors a check holds a report to, from a TOML file or from options.

Not here: what a limit means (limits.py), reports and verdicts (gate.py). On the command line the sign says again which
way is worse, so that a slip is refused rather than obeyed.

Worked number: "sqnr_db=-0.5" allows 18.5 dB where the baseline has 19, "relative_error=+5%" 0.105 where it has 0.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from srdd.analysis.comparison.limits import Floor, Limit, Scope, amount_of
from srdd.core.metrics import choose_metric
from srdd.documents.opening import decoded, read_bytes
from srdd.errors import OptionError, ReportError

IMPLAUSIBLE_GAIN = 2.0  # an error halved (6 dB) between two checkpoints is more often the wrong file than a gain


@dataclass(frozen=True)
class Policy:
    """All that a check holds a report to."""

    limits: tuple[Limit, ...] = ()
    floors: tuple[Floor, ...] = ()
    implausible_gain: float = IMPLAUSIBLE_GAIN
    by: Literal["layer", "module"] = "layer"  # what a limit is checked on; modules do not hide in their layer
    are_defaults: bool = field(default=False, compare=False)


def load(path: str | Path) -> Policy:
    """A policy from TOML: [[limit]] and [[floor]] tables, implausible_gain, by. Raises OptionError in one line."""
    import tomllib

    path = Path(path)
    remedy = "write [[limit]] and [[floor]] tables there, or give limits and floors without a file"
    content = read_bytes(path, "policy", remedy)
    try:
        document = tomllib.loads(decoded(content, str(path), "policy", "TOML"))
    except ValueError as problem:
        raise ReportError(f"cannot read the policy {path}: {problem}") from problem
    known = ("limit", "floor", "implausible_gain", "by")
    unknown = [key for key in document if key not in known]
    if unknown:
        raise OptionError(f"{path}: unknown key {unknown[0]!r}; known: {', '.join(known)}")
    policy = Policy(
        limits=tuple(_tables(document, "limit", Limit, path)),
        floors=tuple(_tables(document, "floor", Floor, path)),
        implausible_gain=check_gain(document.get("implausible_gain", IMPLAUSIBLE_GAIN), f"{path}: implausible_gain"),
        by=check_by(document.get("by", "layer"), f"{path}: by"),
    )
    if not policy.limits and not policy.floors:
        raise OptionError(f"{path} holds neither a [[limit]] nor a [[floor]]")
    return policy


def check_by(value: object, place: str) -> Literal["layer", "module"]:
    """Raises OptionError for anything but layer and module."""
    if value == "layer" or value == "module":
        return value
    raise OptionError(f"{place} {value!r}: expected layer or module")


def parse_limit(text: str, scope: Scope) -> Limit:
    """ "sqnr_db=-0.5" or "relative_error=+5%". Raises OptionError, also for a sign that says better, not worse."""
    option = f"--limit {text}"
    name, amount = _halves(text, option, "sqnr_db=-0.5 or relative_error=+5%")
    up = choose_metric(name).better == "up"
    value, percent = _number(amount, option)
    if value and (value > 0) == up:
        way, sign = ("fall", "-") if up else ("rise", "+")
        raise OptionError(f"{option}: {name} is worse when it {way}s; expected {name}={sign}{amount.lstrip('+-')}")
    worse = f"{100 * abs(value)}%" if percent else abs(value)
    return _build(Limit, {"metric": name, "max_worse": worse, **scope.model_dump()}, option)


def parse_floor(text: str, scope: Scope) -> Floor:
    """ "sqnr_db=15"; for a metric that is worse when it rises it is the largest value. Raises OptionError."""
    option = f"--floor {text}"
    name, value = _halves(text, option, "sqnr_db=15 or relative_error=15%")
    _number(value, option)
    return _build(Floor, {"metric": name, "value": value, **scope.model_dump()}, option)


def check_gain(value: Any, place: str) -> float:
    """The factor beyond which a gain is implausible. Raises OptionError unless it is above 1."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 < value < math.inf:
        raise OptionError(f"{place} {value!r}: expected a factor above 1, e.g. {IMPLAUSIBLE_GAIN:g}")
    return float(value)


def _halves(text: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name or not value:
        raise OptionError(f"{option} not understood; expected e.g. {example}")
    choose_metric(name)
    return name, value


def _number(text: str, option: str) -> tuple[float, bool]:
    try:
        return amount_of(text)
    except ValueError as problem:
        raise OptionError(f"{option}: {problem}") from None


_Scoped = TypeVar("_Scoped", Limit, Floor)


def _tables(document: dict[str, Any], key: str, of: type[_Scoped], path: Path) -> list[_Scoped]:
    rows = document.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise OptionError(f"{path}: {key} is no table; write [[{key}]]")
    return [_build(of, row, f"{path}: [[{key}]] {place}") for place, row in enumerate(rows, 1)]


def _build(of: type[_Scoped], values: dict[str, Any], place: str) -> _Scoped:
    try:
        return of.model_validate(values)
    except OptionError as problem:
        raise OptionError(f"{place}: {problem}") from None
    except ValidationError as problem:
        first = problem.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        known = ", ".join(of.model_fields)
        text = {
            "extra_forbidden": f"unknown key {key!r}; known: {known}",
            "missing": f"key {key!r} is missing; known: {known}",
        }.get(first["type"], f"{first['msg'].removeprefix('Value error, ')}")
        raise OptionError(f"{place}: {text}") from None


def scope_of(site: str | None, quant: str | None, layers: str | None) -> Scope:
    """Where the options of a command line hold. Raises OptionError."""
    try:
        return Scope(site=site, quant=quant, layers=layers)  # type: ignore[arg-type]  # the validator knows plurals
    except ValidationError as problem:
        raise OptionError(problem.errors()[0]["msg"].removeprefix("Value error, ")) from None


# What holds when nothing is said: half a decibel, a twentieth of the error, a percentage point.
DEFAULTS = (
    Limit(metric="sqnr_db", max_worse=0.5),
    Limit(metric="relative_error", max_worse="5%"),
    Limit(metric="deadzone_ratio", max_worse=0.01),
    Limit(metric="saturation_ratio", max_worse=0.01),
)
