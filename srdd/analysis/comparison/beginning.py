"""Where two reports begin to differ: the first layer that is not equal, and the tensor to blame.

A fault changes everything behind it, so the largest change is rarely the guilty one. To blame is what a forward pass
reaches first: a weight that changed, or a site; where most weights changed, as in training, the first site.

Not here: by how much things changed (changes.py) and whether that is allowed (gate.py).

Worked number: of 30 layers, 0 to 9 have the same sums in both reports and layer 10's do not: equal up to layer 9,
begins at layer 10; one of 211 weights changed, model.layers.10.mlp.down_proj, so that one is to blame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from srdd.analysis.comparison.marks import differ, mark_of, sums_differ
from srdd.analysis.comparison.recalled import RecalledSite
from srdd.core.tally import FIELDS, Tally
from srdd.documents.comparison import Beginning
from srdd.documents.parts import Place, same_sequences
from srdd.documents.report import Report
from srdd.documents.schema import Site

_OF_X = ("sum_x", "sum_x2", "sum_abs_x", "sum_x4", "nonzero")
_SAME = 1e-5  # of sums of x: what another batch, kernel or device may change
_SAME_KERNEL = 1e-12  # of all sums of a weight: float64 added in another order, by more threads
# of sqrt(sum x^2): float32 along rows leaves 1e-6; two rows of n in each other's place make about 0.4 / sqrt(n)
_SAME_ORDER = 1e-5
_SIZES = {"sum_x": "sum_abs_x", "sum_e": "sum_abs_e"}  # of sums that may cancel
_FEW = 0.5  # beyond this share of changed weights, training changed them


def beginning(base: Report, new: Report) -> Beginning | None:
    """Where the two begin to differ; None when nothing that both measured does, or when they have nothing in common."""
    changed, weights = changed_weights(base, new)
    both = _both(base, new)
    reached = [b for a, b in both if b.kind != "weight" and _other_x(a, b)] if _same_text(base, new) else []
    if not changed and not reached:
        return None
    blamed = reached[0] if reached and len(changed) > _FEW * weights else in_order([*changed, *reached])[0]
    layer = math.inf if blamed.layer is None else blamed.layer
    known = {site.layer for _, site in both if site.layer is not None}
    return Beginning(
        layer=blamed.layer,
        equal_up_to=max((other for other in known if other < layer), default=None),
        kind=blamed.kind,
        name=blamed.name,
        changed_weights=len(changed),
        weights=weights,
    )


def changed_weights(base: Report, new: Report) -> tuple[list[Site], int]:
    """The weights that changed, as a forward pass reaches them, and how many both reports hold."""
    differ = _other_sums if alike(base, new) else _other_x
    weights = [(a, b) for a, b in _both(base, new) if b.kind == "weight"]
    return [b for a, b in weights if differ(a, b)], len(weights)


def _both(base: Report, new: Report) -> list[tuple[Site, Site]]:
    before = {(site.kind, site.name): site for site in base.sites}
    return [(before[key], site) for site in in_order(new.sites) if (key := (site.kind, site.name)) in before]


def in_order(sites: Sequence[Site]) -> list[Site]:
    """As a forward pass reaches them: layer by layer, a Linear's input before its weight, a layer's output last."""
    return sorted(sites, key=lambda site: (place_of(site.kind, site.layer, site.index), site.name))


def place_of(kind: Place, layer: int | None, index: float) -> tuple[float, float, int]:
    """What `in_order` sorts by."""
    number = math.inf if layer is None else layer
    return number, math.inf if kind == "output" else index, int(kind == "weight")


def alike(base: Report, new: Report) -> bool:
    """Whether equal weights have equal counts and sums: the same kernel on the same kind of device."""
    return all(getattr(base.settings, name) == getattr(new.settings, name) for name in ("backend", "device", "dtype"))


def _same_text(base: Report, new: Report) -> bool:
    a, b = base.settings.calibration, new.settings.calibration
    return a is not None and b is not None and same_sequences(a, b)


def tallies_of(a: Site, b: Site) -> tuple[Tally, Tally] | None:
    """Their sums under the first format that both have; None where one has none."""
    spec = next((spec for spec in a.formats if spec in b.formats), None)
    if spec is None or a.formats[spec].tally is None or b.formats[spec].tally is None:
        return None
    return a.formats[spec].merged(), b.formats[spec].merged()


def _other_sums(a: Site, b: Site) -> bool:
    if isinstance(a, RecalledSite):
        return told_apart(a, b)
    found = tallies_of(a, b)
    if found is None:
        return False
    one, other = found
    places = zip(one.blocks.worst[1:], other.blocks.worst[1:], strict=False)  # older reports have none
    summed = any(_apart(one, other, name, _SAME_KERNEL) for name in FIELDS)
    return summed or any(x != y for x, y in places) or order_distance(a, b, one, other) > _SAME_ORDER


def order_distance(a: Site, b: Site, one: Tally, other: Tally) -> float:
    """How far apart the order sums of two weights are, in sqrt(sum x^2); 0 where a report does not tell."""
    if a.order_sum is None or b.order_sum is None:
        return 0.0
    size = math.sqrt(max(one.sum_x2, other.sum_x2)) + max(abs(a.order_sum), abs(b.order_sum)) / 10
    return abs(a.order_sum - b.order_sum) / size if size else 0.0


def told_apart(a: RecalledSite, b: Site) -> bool:
    """Whether a weight is not the one that a slim baseline knows; False where nothing is known."""
    mark = None if a.mark is None else b.mark if isinstance(b, RecalledSite) else mark_of(b, a.mark.spec)
    return a.mark is not None and mark is not None and differ(a.mark, mark, _SAME_KERNEL)


def _other_x(a: Site, b: Site) -> bool:
    if isinstance(a, RecalledSite):
        mark = None if a.mark is None else mark_of(b, a.mark.spec)
        return a.mark is not None and mark is not None and sums_differ(a.mark, mark, _SAME)
    found = tallies_of(a, b)
    return found is not None and any(_apart(*found, name, _SAME) for name in _OF_X)


def _apart(a: Tally, b: Tally, name: str, share: float) -> bool:
    of = _SIZES.get(name, name)
    size = max(abs(getattr(a, of)), abs(getattr(b, of)))
    return bool(abs(getattr(a, name) - getattr(b, name)) > share * size)
