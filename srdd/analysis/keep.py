"""Keep-lists: which fusion groups to keep in a higher format than the rest, by cost saved per bit.

One base format and one higher format at a time. Group after group goes to the higher format, each time the one that
saves most predicted KL for each further bit of storage. What a mix costs is the sum of its groups' predictions, those
of each format scaled so that all its groups together give the KL that was measured for the whole model: both ends of
the list are measured, between them it is a prediction. Its error is the jackknife's over units of text; that quantizing
one group changes what another costs is not in it.

Not here: the best mix of many formats at once, and words (screen.py).

Worked number: groups of 1000 values at 0.3 and 0.1 nats in mxfp4 (4.25 bits) and 0 in mxfp8 (8.25), 0.8 measured in
mxfp4 altogether: scaled by 2, and with the first kept the mix holds 6.25 bits a value and costs 0.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from srdd.core.formats import bits_per_value
from srdd.core.modes import Mode
from srdd.core.uncertainty import jackknife
from srdd.documents.costs import Cost, Costs, GroupCost, WholeCost


@dataclass(frozen=True)
class Mix:
    """The base format with some groups in the higher one. `last` is the group that came last; None: base throughout."""

    kept: int
    last: GroupCost | None
    bits: float  # mean over the values of all groups that have a cost
    kl: float
    error: float | None  # None with fewer than two units of text


@dataclass(frozen=True)
class KeepList:
    """`steps[k]` keeps the first k groups; the groups that gain nothing are never reached."""

    base: str
    higher: str
    mode: Mode
    groups: int  # all that have a cost in the base format
    steps: tuple[Mix, ...]

    @property
    def knee(self) -> Mix | None:
        """Where a further group starts to save less per bit than the list does on average; None for two groups.

        The point of the curve that lies furthest below its chord: the curve falls ever more slowly, so it has one.
        """
        first, last = self.steps[0], self.steps[-1]
        if len(self.steps) < 4 or last.bits <= first.bits:
            return None

        def below(mix: Mix) -> float:
            return first.kl - mix.kl - (first.kl - last.kl) * (mix.bits - first.bits) / (last.bits - first.bits)

        best = max(self.steps[1:-1], key=below)
        return best if below(best) > 1e-9 * first.kl else None

    def reaching(self, kl: float) -> Mix | None:
        """The shortest list that is predicted to cost no more than `kl`; None where none does."""
        return next((mix for mix in self.steps if mix.kl <= kl), None)

    def kept(self, count: int) -> list[GroupCost]:
        """The first groups, the one that saves most per bit first."""
        return [step.last for step in self.steps[1 : count + 1] if step.last is not None]


@dataclass(frozen=True)
class _Side:
    """All groups of one format: each one's prediction by name, and what scales their sum to the measured whole."""

    groups: dict[str, GroupCost]
    costs: dict[str, Cost]
    whole: Cost | None

    @property
    def scale(self) -> float:
        total = math.fsum(cost.value for cost in self.costs.values())
        return self.whole.value / total if self.whole is not None and total > 0 else 1.0


def higher_formats(costs: Costs, base: str, mode: Mode) -> list[str]:
    """The formats with more bits a value than the base and with costs of groups, the cheapest whole model first."""
    floor = bits_per_value(base)
    sides = {spec: _side(costs, spec, mode) for spec in costs.settings.formats}
    known = [s for s, side in sides.items() if side.costs and floor is not None and (bits_per_value(s) or 0) > floor]

    def cost(spec: str) -> float:
        side = sides[spec]
        return side.whole.value if side.whole is not None else math.fsum(c.value for c in side.costs.values())

    return sorted(known, key=cost)


def keep_list(costs: Costs, base: str, higher: str, mode: Mode) -> KeepList | None:
    """The list of one pair of formats; None where the groups of one of them have no cost in this mode."""
    low, high = _side(costs, base, mode), _side(costs, higher, mode)
    bits, more_bits = bits_per_value(base), bits_per_value(higher)
    if not low.costs or not high.costs or bits is None or more_bits is None or more_bits <= bits:
        return None
    gains = {
        name: low.scale * cost.value - high.scale * high.costs[name].value
        for name, cost in low.costs.items()
        if name in high.costs
    }
    order = sorted(
        (name for name, gain in gains.items() if gain > 0 and low.groups[name].parameters > 0),
        key=lambda name: -gains[name] / low.groups[name].parameters,
    )
    values = sum(group.parameters for group in low.groups.values())
    pool = _Pool(low, high)
    steps = [Mix(0, None, bits, *pool.now())]
    held = 0
    for count, name in enumerate(order, 1):
        pool.raise_to_higher(name)
        held += low.groups[name].parameters
        mean_bits = bits + (more_bits - bits) * held / values
        steps.append(Mix(count, low.groups[name], mean_bits, *pool.now()))
    return KeepList(base, higher, mode, len(low.costs), tuple(steps))


def carrying(costs: Sequence[float], share: float = 0.5) -> int:
    """How many of the costliest carry a share of the sum."""
    needed, found = share * math.fsum(costs), 0.0
    for count, cost in enumerate(sorted(costs, reverse=True), 1):
        found += cost
        if found >= needed * (1 - 1e-12):
            return count
    return 0


def whole_cost(costs: Costs, spec: str, mode: Mode) -> WholeCost | None:
    """The row of the whole model; None where it was not measured."""
    return next((row for row in costs.whole if (row.format, row.mode) == (spec, mode)), None)


def _side(costs: Costs, spec: str, mode: Mode) -> _Side:
    groups = {g.name: g for g in costs.groups if g.format == spec and mode in g.predicted_kl}
    row = whole_cost(costs, spec, mode)
    return _Side(groups, {name: g.predicted_kl[mode] for name, g in groups.items()}, None if row is None else row.kl)


class _Pool:
    """The sums of a mix while groups move from one side to the other, over all sequences and by unit of text."""

    def __init__(self, low: _Side, high: _Side) -> None:
        self._low, self._high = low, high
        self._sums = (math.fsum(c.value for c in low.costs.values()), 0.0)
        lengths = {len(c.by_unit) for side in (low, high) for c in (*side.costs.values(), side.whole) if c}
        self._units = next(iter(lengths)) if len(lengths) == 1 else 0
        totals = [self._by_unit(side) for side in (low, high)]
        self._scales = [self._scales_without(side, t) for side, t in zip((low, high), totals, strict=True)]
        self._parts = [totals[0], [0.0] * self._units]

    def raise_to_higher(self, name: str) -> None:
        low, high = self._low.costs[name], self._high.costs[name]
        self._sums = (self._sums[0] - low.value, self._sums[1] + high.value)
        if self._units:
            for i, (saved, paid) in enumerate(zip(low.by_unit, high.by_unit, strict=True)):
                self._parts[0][i] -= saved
                self._parts[1][i] += paid

    def now(self) -> tuple[float, float | None]:
        """KL and its error."""
        low, high = self._sums
        value = max(self._low.scale * low, 0.0) + self._high.scale * high
        if self._units < 2:
            return value, None
        sums = [math.fsum(part) for part in self._parts]
        return value, jackknife([self._without(i, sums) for i in range(self._units)])

    def _by_unit(self, side: _Side) -> list[float]:
        if not self._units or not side.costs:
            return [0.0] * self._units
        return [math.fsum(column) for column in zip(*(c.by_unit for c in side.costs.values()), strict=True)]

    def _scales_without(self, side: _Side, totals: Sequence[float]) -> list[float]:
        """What scales a format's predictions, with each unit left out."""
        if side.whole is None or not self._units:
            return [1.0] * self._units
        pairs = zip(_without_each(side.whole.by_unit), _without_each(totals), strict=True)
        return [whole / total if total > 0 else 1.0 for whole, total in pairs]

    def _without(self, left_out: int, sums: Sequence[float]) -> float:
        """The KL of the mix from all units but one."""
        sides = zip(self._scales, sums, self._parts, strict=True)
        found = (scales[left_out] * (total - part[left_out]) for scales, total, part in sides)
        return math.fsum(found) / (self._units - 1)


def _without_each(values: Sequence[float]) -> list[float]:
    total = math.fsum(values)
    return [total - value for value in values]
