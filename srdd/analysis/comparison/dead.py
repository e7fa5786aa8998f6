"""Weights, and rows and columns of them, that died between two reports; weights that became copies, or rearranged.

Not here: what is dead (srdd.core.dead; a scan notes rows of zeros at their site), shares of zeros, which are metrics
(zero_ratio), and limits (limits.py).

A copy has the sums of its original to the last bit; two weights that differ never have.

Worked number: 32 rows of zeros in a weight that had none, or had 16, are one sentence; 16 that were there are none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from srdd.analysis.comparison.beginning import alike, changed_weights, order_distance, tallies_of, told_apart
from srdd.analysis.comparison.marks import MOVED, SAME_SUMS, mark_of, same_values
from srdd.analysis.comparison.recalled import RecalledSite
from srdd.core.dead import dead_text
from srdd.core.tally import FIELDS, Tally
from srdd.documents.parts import Note
from srdd.documents.report import Report
from srdd.documents.schema import Site

_ALL = 10**18  # rows of a weight that is dead throughout


def newly_dead(base: Report, new: Report) -> list[str]:
    """One sentence for every weight with more that is dead than in the base."""
    before = {site.name: dead_rows(site)[0] for site in base.sites if site.kind == "weight"}
    found = []
    for site in new.sites:
        rows, text = dead_rows(site) if site.kind == "weight" else (0, "")
        if rows > before.get(site.name, 0):
            was = "was not in the baseline" if not before.get(site.name) else "fewer in the baseline"
            found.append(f"weight {site.name}: {text} ({was})")
    return found


def newly_equal(base: Report, new: Report) -> list[str]:
    """One sentence for every weight whose sums are those of another one, where both differed in the base."""
    before = {site.name: site for site in base.sites if site.kind == "weight"}
    first: dict[tuple[float, ...], Site] = {}
    found = []
    for site in new.sites:
        sums = _sums(site) if site.kind == "weight" else None
        if sums is None or dead_rows(site)[0] == _ALL:
            continue
        other = first.setdefault(sums, site)
        was, other_was = before.get(site.name), before.get(other.name)
        if other is not site and was is not None and other_was is not None and _other_values(was, other_was):
            # the one that changed is the copy
            copy, original = (site, other) if _other_values(was, site) else (other, site)
            found.append(f"weight {copy.name} is now equal to {original.name}, and was not in the baseline")
    return found


def newly_rearranged(base: Report, new: Report) -> list[str]:
    """One sentence for every weight that holds the values of the base in another order, or with the other sign.

    Training moves values, and the largest ones; where counts and sums that no order changes are the same, so are the
    values. Only where few weights changed at all: updates that round away to almost nothing are of all weights.
    """
    changed, weights = changed_weights(base, new)
    if not alike(base, new) or 2 * len(changed) > weights:
        return []
    before = {site.name: site for site in base.sites if site.kind == "weight"}
    return [
        f"weight {site.name} holds the values of the baseline in another order or with the other sign"
        for site in changed
        if _same_values(before[site.name], site)
    ]


def _other_values(a: Site, b: Site) -> bool:
    """Whether two weights are known not to be equal."""
    if isinstance(a, RecalledSite):
        return told_apart(a, b)
    sums = _sums(a), _sums(b)
    return None not in sums and sums[0] != sums[1]


def _same_values(a: Site, b: Site) -> bool:
    """Whether all that quantization leaves is the same, or the sums of x alone are and the places are far apart."""
    if isinstance(a, RecalledSite):
        mark = None if a.mark is None else mark_of(b, a.mark.spec)
        return a.mark is not None and mark is not None and same_values(a.mark, mark)
    found = tallies_of(a, b)
    if found is None:
        return False
    one, other = found
    counts = [name for name in FIELDS if not name.startswith("sum_")]  # and maxima
    sums = [name for name in FIELDS if name.startswith("sum_") and name not in ("sum_x", "sum_e")]
    if one.blocks.scales == other.blocks.scales and _same(one, other, counts, sums, 1e-6):
        return True  # blocks moved as a whole: what a step of training leaves has other counts
    moved = order_distance(a, b, one, other) >= MOVED
    return moved and _same(one, other, ("n", "nonzero", "max_abs_x"), ("sum_x2", "sum_x4", "sum_abs_x"), SAME_SUMS)


def _same(one: Tally, other: Tally, counts: Sequence[str], sums: Sequence[str], share: float) -> bool:
    exact = all(getattr(one, name) == getattr(other, name) for name in counts)
    return exact and all(math.isclose(getattr(one, name), getattr(other, name), rel_tol=share) for name in sums)


def _sums(site: Site) -> tuple[float, ...] | None:
    tally = next((m.tally for m in site.formats.values() if m.tally is not None), None)
    return None if tally is None else (*site.shape, *tally)


def dead_rows(site: Site) -> tuple[int, str]:
    """How many rows and columns of a weight are dead, and that in words."""
    if isinstance(site, RecalledSite):
        return site.dead
    text = next((str(note).removeprefix(Note.of("dead", "")) for note in site.notes if note.level == "dead"), "")
    tally = next((m.merged() for m in site.formats.values() if m.tally is not None), None)
    if tally is not None and (whole := dead_text(tally)):
        return _ALL, whole
    counts = re.findall(r"(\d+) of \d+ (?:output|input) channels", text)
    return (sum(map(int, counts)), text) if counts else (0, "")
