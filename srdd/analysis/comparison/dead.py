"""Weights, and rows of them, that died between two reports, and weights that became copies of others.

Not here: what is dead (srdd.core.dead; a scan notes rows of zeros at their site), shares of zeros, which are metrics
(zero_ratio), and limits (limits.py).

A copy has the sums of its original to the last bit; two weights that differ never have.

Worked number: 32 rows of zeros in a weight that had none, or had 16, are one sentence; 16 that were there are none.
"""

from __future__ import annotations

import math
import re

from srdd.analysis.comparison.beginning import alike
from srdd.core.dead import dead_text
from srdd.core.tally import FIELDS
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
    before = {site.name: _sums(site) for site in base.sites if site.kind == "weight"}
    first: dict[tuple[float, ...], Site] = {}
    found = []
    for site in new.sites:
        sums = _sums(site) if site.kind == "weight" else None
        if sums is None or dead_rows(site)[0] == _ALL:
            continue
        other = first.setdefault(sums, site)
        known = before.get(site.name), before.get(other.name)
        if other is not site and None not in known and known[0] != known[1]:
            # the one that changed is the copy
            copy, original = (site, other) if known[0] != sums else (other, site)
            found.append(f"weight {copy.name} is now equal to {original.name}, and was not in the baseline")
    return found


def newly_rearranged(base: Report, new: Report) -> list[str]:
    """One sentence for every weight that holds the values of the base in another order, or with the other sign.

    Training moves values, so counts of single blocks change; the same counts and sums that are equal but for rounding,
    or for the sign of what is signed, are the same values. Only where equal weights have equal sums to the last bit,
    and where few weights changed at all.
    """
    before = {site.name: site for site in base.sites if site.kind == "weight"}
    pairs = [(before[site.name], site) for site in new.sites if site.kind == "weight" and site.name in before]
    changed = [(a, b) for a, b in pairs if _sums(a) is not None and _sums(b) is not None and _sums(a) != _sums(b)]
    if not alike(base, new) or 2 * len(changed) > len(pairs):
        return []
    return [
        f"weight {b.name} holds the values of the baseline in another order or with the other sign"
        for a, b in changed
        if _same_values(a, b)
    ]


def _same_values(a: Site, b: Site) -> bool:
    specs = [spec for spec in a.formats if spec in b.formats and a.formats[spec].blocks is not None]
    if not specs or b.formats[specs[0]].blocks is None:
        return False
    one, other = a.formats[specs[0]].merged(), b.formats[specs[0]].merged()
    if one.blocks.scales != other.blocks.scales:
        return False
    unsigned = [name for name in FIELDS if name not in ("sum_x", "sum_e")]
    return all(math.isclose(getattr(one, name), getattr(other, name), rel_tol=1e-6) for name in unsigned)


def _sums(site: Site) -> tuple[float, ...] | None:
    tally = next((m.tally for m in site.formats.values() if m.tally is not None), None)
    return None if tally is None else (*site.shape, *tally)


def dead_rows(site: Site) -> tuple[int, str]:
    """How many rows of a weight are dead, and that in words."""
    text = next((str(note).removeprefix(Note.of("dead", "")) for note in site.notes if note.level == "dead"), "")
    tally = next((m.merged() for m in site.formats.values() if m.tally is not None), None)
    if tally is not None and (whole := dead_text(tally)):
        return _ALL, whole
    count = re.match(r"(\d+) of \d+ (?:output|input) channels", text)
    return (int(count[1]), text) if count else (0, "")
