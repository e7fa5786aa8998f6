"""Where two reports begin to differ: the first layer that is not equal, and the tensor to blame.

A fault changes everything behind it, so the largest change is rarely the guilty one. A weight that changed is to blame,
if not nearly all did as in training; otherwise the first site, in the order in which a forward pass reaches them.

Not here: by how much things changed (changes.py) and whether that is allowed (gate.py).

Worked number: of 30 layers, 0 to 9 have the same sums in both reports and layer 10's do not: equal up to layer 9,
begins at layer 10; one of 211 weights changed, model.layers.10.mlp.down_proj, so that one is to blame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from srdd.core.blocks import Blocks
from srdd.core.tally import Tally
from srdd.documents.comparison import Beginning
from srdd.documents.parts import Place, same_sequences
from srdd.documents.report import Report
from srdd.documents.schema import Site

_OF_X = ("sum_x", "sum_x2", "sum_abs_x", "sum_x4", "nonzero")
_SAME = 1e-5  # of sums: what other threads, batches and kernels may change
_FEW = 0.5  # beyond this share of changed weights, training changed them


def beginning(base: Report, new: Report) -> Beginning | None:
    """Where the two begin to differ; None when nothing that both measured does, or when they have nothing in common."""
    exactly = alike(base, new)
    before = {(site.kind, site.name): site for site in base.sites}
    both = [(before[key], site) for site in in_order(new.sites) if (key := (site.kind, site.name)) in before]
    weights = [(a, b) for a, b in both if b.kind == "weight"]
    changed = [b for a, b in weights if _differ(a, b, exactly)]
    reached = [b for a, b in both if b.kind != "weight" and _differ(a, b, False)] if _same_text(base, new) else []
    found = [*changed, *reached]
    if not found:
        return None
    layers = sorted({site.layer for site in found if site.layer is not None})
    known = sorted({site.layer for _, site in both if site.layer is not None})
    trained = len(changed) > _FEW * len(weights)
    blamed = changed[0] if changed and not trained else (reached or changed)[0]
    return Beginning(
        layer=layers[0] if layers else None,
        equal_up_to=max((layer for layer in known if layers and layer < layers[0]), default=None),
        kind=blamed.kind,
        name=blamed.name,
        changed_weights=len(changed),
        weights=len(weights),
    )


def in_order(sites: Sequence[Site]) -> list[Site]:
    """As a forward pass reaches them: layer by layer, a Linear's input before its weight, a layer's output last."""
    return sorted(sites, key=lambda site: (place_of(site.kind, site.layer, site.index), site.name))


def place_of(kind: Place, layer: int | None, index: float) -> tuple[float, float, int]:
    """What `in_order` sorts by."""
    number = math.inf if layer is None else layer
    return number, math.inf if kind == "output" else index, int(kind == "weight")


def alike(base: Report, new: Report) -> bool:
    """Whether equal weights have equal sums to the last bit: the same kernel on the same kind of device."""
    return all(getattr(base.settings, name) == getattr(new.settings, name) for name in ("backend", "device", "dtype"))


def _same_text(base: Report, new: Report) -> bool:
    a, b = base.settings.calibration, new.settings.calibration
    return a is not None and b is not None and same_sequences(a, b)


def _differ(a: Site, b: Site, exactly: bool) -> bool:
    shared = [spec for spec in a.formats if spec in b.formats]
    if not shared or a.formats[shared[0]].tally is None or b.formats[shared[0]].tally is None:
        return False
    one, other = a.formats[shared[0]].merged(), b.formats[shared[0]].merged()
    if exactly:
        counted = Blocks() not in (one.blocks, other.blocks)
        return one.vector() != other.vector() or (counted and one.blocks != other.blocks)
    return any(_apart(one, other, name) for name in _OF_X)


def _apart(a: Tally, b: Tally, name: str) -> bool:
    size = max(a.sum_abs_x, b.sum_abs_x) if name == "sum_x" else max(abs(getattr(a, name)), abs(getattr(b, name)))
    return bool(abs(getattr(a, name) - getattr(b, name)) > _SAME * size)
