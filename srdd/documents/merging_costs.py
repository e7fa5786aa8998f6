"""Merging the costs of two reports: of halves of the text, or of other formats, modes and ways to measure on the same.

Halves give exactly the costs of the whole: values by sequence stand one after the other, means and errors follow.
What does not follow from sequences is dropped: quantiles over tokens, all but the largest, and the classic scores of
activations. On the same sequences rows complete each other, and what both measured must agree.

Not here: merging sites (merging.py).

Worked number: a KL of 0.1 and 0.3 on two sequences and of 0.2 on a third becomes 0.2 ± 0.0577.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from srdd.documents.costs import Cost, Costs, CostSettings, ExpertCost, LinearCost, Ratio, Unpriced, WholeCost
from srdd.documents.parts import Calibration, Part, joined
from srdd.errors import ReportError

_CLOSE = 0.01  # relative: in another batch kernels add in another order
P = TypeVar("P", bound=Part)


def merge_costs(a: Costs, b: Costs) -> Costs:
    """One set of costs. Raises ReportError for halves that overlap or were measured otherwise, and contradictions."""
    mine, theirs = a.settings.calibration, b.settings.calibration
    halves = disjoint(mine, theirs)
    if not halves and mine.sequence_hashes != theirs.sequence_hashes:
        b = _in_the_order_of(mine, b)
    settings = _halves_settings(a, b) if halves else _joined_settings(a, b)
    merging = _Merging(halves, len(mine.sequence_hashes), len(theirs.sequence_hashes))
    if halves and (a.clean is None) != (b.clean is None):
        raise ReportError("costs are no parts of one run: one has the loss of the model, the other has none")
    clean = merging.part("the model", a.clean, b.clean) if a.clean and b.clean else a.clean or b.clean
    order = settings.formats.index
    merged = Costs(
        settings=settings,
        clean=clean,
        whole=merging.rows("whole model", a.whole, b.whole, lambda row: (row.format, row.mode)),
        layers=merging.rows("layers", a.layers, b.layers, lambda row: (row.layer, row.format, row.mode)),
        groups=merging.rows("groups", a.groups, b.groups, lambda row: (row.name, row.format)),
        linears=merging.rows("Linears", a.linears, b.linears, lambda row: (row.module, row.format)),
        experts=merging.rows("experts", a.experts, b.experts, lambda row: (row.module, row.expert, row.format)),
        sensitivities=merging.rows("sensitivities", a.sensitivities, b.sensitivities, lambda row: row.name),
        unpriced=_unpriced(a, b),
    )
    if not halves:
        mode = settings.modes.index
        merged.whole.sort(key=lambda row: (order(row.format), mode(row.mode)))
        merged.layers.sort(key=lambda row: (order(row.format), mode(row.mode), row.layer))
        for rows in (merged.groups, merged.linears, merged.experts):
            rows.sort(key=lambda row: order(row.format))
    return merged


def disjoint(a: Calibration, b: Calibration) -> bool:
    """True when the two saw other sequences of the same text, False when they saw the same. Raises on a mix."""
    if set(a.sequence_hashes) == set(b.sequence_hashes):
        return False
    twice = set(a.sequence_hashes) & set(b.sequence_hashes)
    if twice:
        raise ReportError(
            f"costs of {len(twice)} sequence(s) are in both reports, and others in one; merging would count them twice"
        )
    if a.seq_len != b.seq_len or a.source != b.source:
        raise ReportError(f"costs of other texts: {a.source} at {a.seq_len} tokens, {b.source} at {b.seq_len}")
    return True


@dataclass(frozen=True)
class _Merging:
    """Rows, numbers and what stands beside them, from two parts."""

    halves: bool  # else both saw the same sequences
    first: int  # sequences of the first part
    second: int

    def rows(self, what: str, a: Sequence[P], b: Sequence[P], key: Callable[[P], Hashable]) -> list[P]:
        theirs = {key(row): row for row in b}
        mine = {key(row) for row in a}
        if self.halves and mine != theirs.keys():
            raise ReportError(f"costs are no parts of one run: they have other rows of {what}")
        merged = [self.part(_name(row), row, theirs[key(row)]) if key(row) in theirs else row for row in a]
        return merged + [row for row in b if key(row) not in mine]

    def part(self, name: str, a: P, b: P) -> P:
        """One row of both."""
        if self.halves:
            a, b = _idle(a, b, self.first), _idle(b, a, self.second)
        merged = {
            field: self._value(f"{field} of {name}", field, getattr(a, field), getattr(b, field))
            for field in type(a).model_fields
        }
        row = a.model_copy(update=merged)
        if isinstance(row, LinearCost) and self.halves:
            row.interaction = interaction_of(row)
        return row

    def _value(self, name: str, field: str, a: Any, b: Any) -> Any:
        if isinstance(a, Cost | Ratio) and isinstance(b, Cost | Ratio):
            return self._numbers(name, a, b)
        if field in ("interaction", "no_effect"):
            return b if a is None else a if b is None else (a and b)
        if field == "tokens" and self.halves:
            return a + b
        if field == "parameters" and 0 in (a, b):  # version 1 did not say
            return a or b
        if field == "kl_quantiles":
            return ({"1": max(a["1"], b["1"])} if "1" in a and "1" in b else {}) if self.halves else {**b, **a}
        if field == "scores":
            return {key: a[key] for key in a if a[key] == b.get(key)} if self.halves else {**b, **a}
        if isinstance(a, dict):
            if self.halves and a.keys() != b.keys():
                raise ReportError(f"costs are no parts of one run: {name} has other modes in each")
            both = {mode: self._numbers(f"{name} ({mode})", a[mode], b[mode]) for mode in a if mode in b}
            return {**b, **a, **both}
        if not self.halves and (a is None or b is None):
            return b if a is None else a
        if a != b:
            raise ReportError(f"costs contradict each other: {name} is {_told(a)} and {_told(b)}")
        return a

    def _numbers(self, name: str, a: Any, b: Any) -> Any:
        lists = ("sequences",) if isinstance(a, Cost) else ("above", "below")
        parts = [(getattr(a, key), getattr(b, key)) for key in lists]
        if self.halves:
            if any(x is None or y is None for x, y in parts):
                raise ReportError(f"{name} has no values by sequence (version 1 kept none), so parts do not merge")
            joined = {key: [*x, *y] for key, (x, y) in zip(lists, parts, strict=True)}
            return type(a).model_validate({**joined, "draws": _draws(name, a, b)})
        if not math.isclose(a.value, b.value, rel_tol=_CLOSE, abs_tol=1e-9):
            raise ReportError(f"costs contradict each other: {name} is {a.value:g} and {b.value:g}")
        return b if parts[0][0] is None else a


def _draws(name: str, a: Any, b: Any) -> list[float] | None:
    """The value of each draw of stochastic rounding on both halves. Raises ReportError for other draws."""
    mine, theirs = a.draws, b.draws
    if mine is None and theirs is None:
        return None
    if len(mine or ()) != len(theirs or ()):
        raise ReportError(f"costs are no parts of one run: {name} has {len(mine or ())} and {len(theirs or ())} draws")
    by_sequence, power = ("sequences", 1) if isinstance(a, Cost) else ("below", 2)
    weights = [len(v) if power == 1 else math.fsum(v) for v in (getattr(a, by_sequence), getattr(b, by_sequence))]
    x, y = (weight / (sum(weights) or 1) for weight in weights)
    return [(x * m**power + y * t**power) ** (1 / power) for m, t in zip(mine, theirs, strict=True)]


def _idle(row: P, other: P, count: int) -> P:
    """An expert without tokens has no cost of its own; beside a half in which it got some, it is 0 on each sequence."""
    if not isinstance(row, ExpertCost) or not isinstance(other, ExpertCost) or row.tokens or row.predicted_kl:
        return row
    nothing = {
        mode: Cost(value=0, sequences=[0.0] * count, draws=kl.draws and [0.0] * len(kl.draws))
        for mode, kl in other.predicted_kl.items()
    }
    return row.model_copy(update={"predicted_kl": nothing})


def interaction_of(row: LinearCost) -> float | None:
    """(|e_both|^2 - |e_weight|^2 - |e_input|^2) / |e_both|^2; None where an error is not known by sequence."""
    sums = {mode: math.fsum(error.above) for mode, error in row.output_error.items() if error.above}
    if len(sums) < 3:
        return None
    return (sums["both"] - sums["weight"] - sums["input"]) / sums["both"] if sums["both"] > 0 else 0.0


def _halves_settings(a: Costs, b: Costs) -> CostSettings:
    for field in CostSettings.model_fields:
        x, y = getattr(a.settings, field), getattr(b.settings, field)
        if field not in ("calibration", "exclude", "backend") and _sorted(x) != _sorted(y):
            raise ReportError(f"costs are no parts of one run: {field} differs ({_told(x)} and {_told(y)})")
    return a.settings.model_copy(update={"calibration": joined(a.settings.calibration, b.settings.calibration)})


def _joined_settings(a: Costs, b: Costs) -> CostSettings:
    """What decides numbers of both must be the same; what decides numbers of one is taken from that one."""
    mine, theirs = a.settings, b.settings
    uses: dict[str, Callable[[Costs], bool]] = {
        "left_out": lambda _: True,
        "label_samples": _draws_labels,
        "seed": lambda costs: _draws_labels(costs) or costs.settings.noise_control,
        "tokens_per_sequence": lambda costs: any(row.output_error for row in costs.linears),
    }
    update: dict[str, Any] = {
        name: _first_seen(getattr(mine, name), getattr(theirs, name))
        for name in ("formats", "modes", "how", "sensitive")
    }
    for field, is_used in uses.items():
        x, y = getattr(mine, field), getattr(theirs, field)
        if is_used(a) and is_used(b) and _sorted(x) != _sorted(y):
            raise ReportError(f"costs contradict each other: {field} is {_told(x)} and {_told(y)}")
        update[field] = y if is_used(b) and not is_used(a) else x
    update["noise_control"] = mine.noise_control or theirs.noise_control
    update["calibration"] = mine.calibration if mine.calibration.documents else theirs.calibration
    return mine.model_copy(update=update)


def _draws_labels(costs: Costs) -> bool:
    return "predicted" in costs.settings.how or bool(costs.settings.sensitive)


def _unpriced(a: Costs, b: Costs) -> list[Unpriced]:
    """What has no cost in either: an expert without tokens in one half may have got some in the other."""
    named = {row.module for row in a.unpriced} & {row.module for row in b.unpriced}
    rows = {row.module: row for row in (*b.unpriced, *a.unpriced)}
    priced = _priced(a) | _priced(b)
    return [row for module, row in rows.items() if module in named or module not in priced]


def _priced(costs: Costs) -> set[str]:
    linears = {row.module for row in costs.linears if row.predicted_kl}
    experts = [row for row in costs.experts if row.predicted_kl]
    return linears | {row.module for row in experts} | {f"{row.module}.{row.expert}" for row in experts}


def _in_the_order_of(calibration: Calibration, costs: Costs) -> Costs:
    """The same costs with their sequences as another run had them."""
    places = {name: place for place, name in enumerate(costs.settings.calibration.sequence_hashes)}
    order = [places[name] for name in calibration.sequence_hashes]

    def ordered(value: Any, key: str = "") -> Any:
        if key in ("sequences", "above", "below", "sequence_hashes", "documents", "offsets"):
            return value and [value[place] for place in order]
        if isinstance(value, dict):
            return {name: ordered(part, name) for name, part in value.items()}
        return [ordered(part) for part in value] if isinstance(value, list) else value

    return Costs.model_validate(ordered(costs.model_dump()))


def _name(row: Part) -> str:
    """What a message calls a row."""
    own = [getattr(row, field) for field in ("name", "module") if hasattr(row, field)]
    at = f"layer {getattr(row, 'layer', None)}"
    first = own[0] if own else "the model" if isinstance(row, WholeCost) else at
    return " ".join([first, *(getattr(row, field) for field in ("format", "mode") if hasattr(row, field))])


def _first_seen(a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys([*a, *b]))


def _sorted(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value


def _told(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
