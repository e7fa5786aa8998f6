"""WHAT TO DO on the first screen: keep-lists and other formats, with bits a value and KL, in the order of bits.

Not here: which choices there are (srdd.analysis.choices).
"""

from __future__ import annotations

from collections.abc import Sequence

from srdd.analysis.choices import FIRST, Choice
from srdd.analysis.short_names import name_of, short_name
from srdd.analysis.verdicts import Word
from srdd.core.metrics import significant
from srdd.exporters.screen.layout import Paper

_WHYS = ("first", "target", "throughout", "knee")
_ROOM = 46  # columns for what is to be done


def add_choices(paper: Paper, spec: str, word: Word | None, choices: Sequence[Choice], most: int) -> None:
    """The section; `spec` is the format that is looked at, `word` what it costs as a whole, where that is known."""
    shown = [(f"  {_said(one, spec)}", f"{one.bits:.2f}", _kl(one)) for one in _fewer(choices, most)]
    if shown:
        paper.columns([("WHAT TO DO", "bits", "KL"), *shown], indent=0)
        return
    name = name_of(spec)
    nothing = f"nothing: {name} is free" if word == "free" else f"no format that costs less than {name} was measured"
    paper.section("WHAT TO DO", f" {nothing}")


def _fewer(choices: Sequence[Choice], count: int) -> Sequence[Choice]:
    """Where to begin, what reaches a better word, the cheapest other format, knees, other formats; in order of bits."""
    by: dict[str, list[Choice]] = {why: [one for one in choices if one.why == why] for why in _WHYS}
    whole = by["throughout"]
    best = [*by["first"], *by["target"], *whole[:1], *reversed(by["knee"]), *whole[1:]][:count]
    return [one for one in choices if one in best]


def _said(one: Choice, spec: str) -> str:
    """In words: at most _ROOM columns, where names are no longer than usual."""
    if one.found is None:
        return f"{name_of(one.base)} throughout"
    start = "keep " if one.base == spec else f"{name_of(one.base)}, keep "
    higher = name_of(one.found.higher)
    text = f"{start}{', '.join(map(short_name, one.found.kept(one.kept)))} in {higher}" if one.kept <= FIRST else ""
    if not text or len(text) > _ROOM:
        text = f"{start}{one.kept} groups in {higher}"
    return text + {"knee": ": knee", "target": f": {one.word}"}.get(one.why, "")


def _kl(one: Choice) -> str:
    return f"{significant(one.kl, one.error)} {'predicted' if one.found else 'measured'}"
