"""What can be done about a format that costs too much: keep-lists, and other formats as they were measured.

A choice is dropped when another one costs no more and holds no more bits. Keep-lists start from the format that is
looked at and from every measured format that costs less; the higher format is the one that costs least altogether.

Not here: how a list is made (keep.py) and its words (srdd.exporters.terminal.screen).

Worked number: mxfp4 with 33 of 120 groups in mxfp8 at 5.2 bits and 0.59 nats is dropped where nvfp4 with 20 of them
holds 5.1 bits and is predicted at 0.40.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from srdd.analysis.keep import KeepList, Mix, higher_formats, keep_list
from srdd.analysis.verdicts import IDENTITY, LIMITS, Verdict, Word, word_of
from srdd.core.modes import Mode
from srdd.documents.costs import Cost, Costs

FIRST = 2  # groups: the list with which to begin


@dataclass(frozen=True)
class Choice:
    """One format throughout, measured (no `found`), or a step of a keep-list, predicted."""

    why: Literal["first", "knee", "target", "throughout"]
    base: str
    bits: float
    kl: float
    error: float | None
    word: Word
    found: KeepList | None = None
    kept: int = 0


def choices_of(costs: Costs, spec: str, mode: Mode, verdicts: Sequence[Verdict]) -> tuple[Choice, ...]:
    """In the order of bits; nothing where the format is free, or where no other was measured."""
    rows = {v.row.format: v for v in verdicts if v.row.mode == mode and v.row.format != IDENTITY}
    mine = rows.get(spec)
    if mine is None or mine.word == "free":
        return ()
    better = [v for v in rows.values() if v.row.kl.value < mine.row.kl.value]
    higher = higher_formats(costs, spec, mode)[:1]
    lists = [one for top in higher for base in (mine, *better) if (one := _list(costs, base, top, mode))]
    found = [_throughout(v) for v in better if v.bits is not None]
    for one in lists:
        if one.base == spec:
            found.append(_step("first", one, one.steps[min(FIRST, len(one.steps) - 1)]))
        if one.knee is not None:
            found.append(_step("knee", one, one.knee))
    target = _target(lists, mine.row.kl)
    if target is not None:
        found.append(target)
    return tuple(sorted(_worth_it(found), key=lambda choice: (choice.bits, choice.kl)))


def _list(costs: Costs, base: Verdict, higher: str, mode: Mode) -> KeepList | None:
    found = keep_list(costs, base.row.format, higher, mode)
    return found if found is not None and len(found.steps) > 1 else None


def _target(lists: Iterable[KeepList], now: Cost) -> Choice | None:
    """The fewest bits that reach a better word than the format has, the nearest word first."""
    for limit in sorted((limit for limit in LIMITS.values() if limit < now.value), reverse=True):
        reached = [(one, mix) for one in lists if (mix := one.reaching(limit)) and 0 < mix.kept < one.groups]
        if reached:
            return _step("target", *min(reached, key=lambda pair: pair[1].bits))
    return None


def _step(why: Literal["first", "knee", "target"], found: KeepList, mix: Mix) -> Choice:
    return Choice(why, found.base, mix.bits, mix.kl, mix.error, word_of(mix.kl), found, mix.kept)


def _throughout(verdict: Verdict) -> Choice:
    kl = verdict.row.kl
    return Choice("throughout", verdict.row.format, verdict.bits or 0.0, kl.value, kl.error, verdict.word)


def _worth_it(found: Sequence[Choice]) -> list[Choice]:
    """Without those that another one beats, and without the same list twice."""
    kept: list[Choice] = []
    for at, one in enumerate(found):
        others = [other for place, other in enumerate(found) if place != at]
        beaten = any(o.bits <= one.bits and o.kl <= one.kl and (o.bits, o.kl) != (one.bits, one.kl) for o in others)
        twice = any((o.base, o.bits, o.kl) == (one.base, one.bits, one.kl) for o in kept)
        if not beaten and not twice:
            kept.append(one)
    return kept
