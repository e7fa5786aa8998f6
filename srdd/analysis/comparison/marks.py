"""What tells a tensor from any other, in a few numbers: how a slim baseline knows which weights changed.

A digest of all counts, the maxima and the scales of blocks says whether the same values are there, in any order; the
sum of x with its sign, the order sum, and the block with most noise, whether they are where they were.

Not here: the same of two full reports (beginning.py, dead.py), and how marks are stored (srdd.documents.baseline).

Worked number: a weight whose rows were permuted has the digest and the sums that it had, and another noisiest block.
"""

from __future__ import annotations

import math
from base64 import b64encode
from dataclasses import dataclass
from hashlib import blake2b

from srdd.core.tally import FIELDS, Tally
from srdd.documents.schema import Site

_COUNTED = [name for name in FIELDS if not name.startswith("sum_")]  # counts and maxima, which no order changes
_SAME_VALUES = 1e-6
_SAME_ORDER = 1e-5
# Two columns among n in each other's place are about 0.4 / sqrt(n) apart. A step of training that is as far moves the
# sums by more than kernels do that add in float32 inside a block.
MOVED, SAME_SUMS = 2e-3, 2e-7
_KEPT_OF_RMS = 1e-4
_KEPT = 1e-9  # of the sum of magnitudes, to which a slim baseline keeps the sum of values


@dataclass(frozen=True)
class Mark:
    """One tensor. Sums of an activation; of a weight also a digest under one format."""

    sum_x: float
    sum_abs_x: float
    sum_x4: float | None = None
    rms: float | None = None  # of a weight
    spec: str = ""  # of the digest and the block
    digest: str = ""
    worst: int | None = None
    order: float | None = None  # of a weight: its order sum


def mark_of(site: Site, spec: str) -> Mark | None:
    """The mark under a format, or the sums alone where the site has not that one; None without sums."""
    chosen = spec if spec in site.formats else next(iter(site.formats), None)
    if chosen is None or site.formats[chosen].tally is None:
        return None
    tally = site.formats[chosen].merged()
    sums = (tally.sum_x, tally.sum_abs_x, tally.sum_x4)
    if site.kind != "weight" or chosen != spec:
        return Mark(*sums)
    worst = int(tally.blocks.worst[1]) if tally.blocks.worst else None
    rms = math.sqrt(tally.sum_x2 / tally.n) if tally.n else None
    return Mark(*sums, rms=rms, spec=spec, digest=digest_of(site, tally), worst=worst, order=site.order_sum)


def digest_of(site: Site, tally: Tally) -> str:
    """Eight characters of everything that is counted."""
    counted = [*map(float, site.shape), *(float(getattr(tally, name)) for name in _COUNTED), *tally.blocks.scales]
    return b64encode(blake2b(repr(counted).encode(), digest_size=6).digest()).decode()


def differ(a: Mark, b: Mark, share: float) -> bool:
    """Whether sums of x are further apart than this share of them, or another value, scale or place is known."""
    counted = bool(a.digest and b.digest) and a.spec == b.spec
    return (counted and (a.digest != b.digest or _moved(a, b))) or sums_differ(a, b, share)


def sums_differ(a: Mark, b: Mark, share: float) -> bool:
    """Whether sums of x are further apart than this share of them."""
    return any(_apart(x, y, size, least) for x, y, size, least in _sums(a, b, share))


def same_values(a: Mark, b: Mark) -> bool:
    """Whether the same values are there, in any order and with any sign."""
    rms_stays = not _apart(a.rms or 0.0, b.rms or 0.0, a.rms or 0.0, _KEPT_OF_RMS)
    if a.order is not None and b.order is not None and _distance(a, b) >= MOVED and rms_stays:
        return not _apart(a.sum_abs_x, b.sum_abs_x, a.sum_abs_x, SAME_SUMS)
    known = bool(a.digest) and a.digest == b.digest and a.spec == b.spec
    sizes = [(a.sum_abs_x, b.sum_abs_x, _SAME_VALUES), (a.rms or 0.0, b.rms or 0.0, _KEPT_OF_RMS)]
    return known and not any(_apart(x, y, x, share) for x, y, share in sizes)


def _moved(a: Mark, b: Mark) -> bool:
    if _distance(a, b) > _SAME_ORDER:
        return True
    return a.worst is not None and b.worst is not None and a.worst != b.worst


def _distance(a: Mark, b: Mark) -> float:
    """How far apart the order sums are, in about sqrt(sum x^2)."""
    if a.order is None or b.order is None:
        return 0.0
    size = math.sqrt((a.rms or 0.0) * a.sum_abs_x) + max(abs(a.order), abs(b.order)) / 10
    return abs(a.order - b.order) / size if size else 0.0


def _sums(a: Mark, b: Mark, share: float) -> list[tuple[float, float, float, float]]:
    """Pairs of sums, their size, and the share of it by which they may differ."""
    size = a.sum_abs_x
    pairs = [(a.sum_x, b.sum_x, size, max(share, _KEPT)), (a.sum_abs_x, b.sum_abs_x, size, share)]
    if a.sum_x4 is not None and b.sum_x4 is not None:
        pairs.append((a.sum_x4, b.sum_x4, a.sum_x4, share))
    if a.rms is not None and b.rms is not None:
        pairs.append((a.rms, b.rms, a.rms, max(share, _KEPT_OF_RMS)))
    return pairs


def _apart(x: float, y: float, size: float, share: float) -> bool:
    return abs(x - y) > share * max(abs(size), abs(y))
