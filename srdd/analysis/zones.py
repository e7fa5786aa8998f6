"""Contiguous zones of layers: found from the data, or by a named scheme; one zone is a legal answer.

Not here: the search itself (structure.py), sentences (zone_words.py) and what to do about a zone (strategies.py,
advice.py). A zone's label compares the mean error of its layers with that of the whole model: "high" from 5 % above,
"low" from 5 % below, else "medium" (5 % in amplitude is 0.4 dB of SQNR). Means are taken over layers, each counting the
same; outlier layers, which only the search from data knows, are in a zone but in no mean.

Worked number: four layers with relative errors 0.2, 0.2, 0.4, 0.4 and the scheme "0-1,2-3": the model's mean is 0.3,
the zones' are 0.2 (ratio 0.67, low) and 0.4 (ratio 1.33, high).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from statistics import fmean

from srdd.analysis.outlying import around
from srdd.analysis.resampling import draws, found_again, kept_without_one, redrawn
from srdd.analysis.series import Series
from srdd.analysis.structure import Structure, structure_of
from srdd.core.layers import parse_spans, span
from srdd.core.metrics import RANKED
from srdd.documents.zones import Cut, Label, OutlierLayer, Ramp, Spread, Zone
from srdd.errors import NoEffectError, SettingError, setting

MAX_ZONES = 6
MATERIAL = 0.05  # a mean this share above or below the model's own is called high or low
_FLOOR_DB, _FLOOR_SHARE = 0.05, 0.005  # differences between layers below these are no structure

# Where zones end, as shares of the depth: counted on 28 layers.
_SHARES: dict[str, tuple[tuple[str, float], ...]] = {
    "five": (
        ("first", 4 / 28),
        ("early-mid", 10 / 28),
        ("middle", 20 / 28),
        ("late-mid", 26 / 28),
        ("last", 1.0),
    ),
    "edge-middle": (("first edge", 6 / 28), ("middle", 23 / 28), ("last edge", 1.0)),
    "thirds": (("early", 1 / 3), ("middle", 2 / 3), ("late", 1.0)),
}
SCHEMES = ("auto", *_SHARES)


@dataclass(frozen=True)
class Survey:
    """Zones that hold every layer once; cuts, outlier layers and a ramp when they were looked for in the data."""

    zones: list[Zone]
    cuts: list[Cut] = field(default_factory=list)
    outliers: list[OutlierLayer] = field(default_factory=list)
    ramp: Ramp | None = None  # only where there is no cut


def find_zones(series: Series, scheme: str = "auto", max_zones: int | None = None) -> tuple[list[Zone], list[Cut]]:
    """The zones and cuts of `survey`, which says more and raises the same."""
    found = survey(series, scheme, max_zones)
    return found.zones, found.cuts


def survey(series: Series, scheme: str = "auto", max_zones: int | None = None) -> Survey:
    """The zones of a series, every layer in exactly one; cuts with their stability when they were found from data.

    `scheme` is one of SCHEMES or spans such as "0-3,4-9". Raises SettingError, and NoEffectError for `max_zones`
    with a scheme that is not "auto".
    """
    if scheme != "auto":
        if max_zones is not None:
            raise NoEffectError("max_zones", f"with {setting('scheme', scheme)}")
        groups = named(series, scheme) if scheme in _SHARES else spans(series, scheme)
        return Survey(_zones(series, groups))
    most = MAX_ZONES if max_zones is None else max_zones
    if most < 1 or (max_zones is not None and most > len(series.layers)):
        raise SettingError("max_zones", most, f"expected 1 to {len(series.layers)}, as many as there are layers")
    values, layers = series.values, series.layers
    found = structure_of(values, most, _floor(series), MAX_ZONES)
    edges = [0, *found.cuts, len(layers)]
    groups = {f"zone {i + 1}": layers[a:b] for i, (a, b) in enumerate(pairwise(edges))}
    outliers = [
        OutlierLayer(layer=layers[place], value=values[place], between=around(values, place))
        for place in found.outliers
    ]
    out = {outlier.layer for outlier in outliers}
    return Survey(_zones(series, groups, out), _stability(series, found.cuts, most), outliers, _ramp(series, found))


def named(series: Series, scheme: str) -> dict[str, Sequence[int]]:
    """The zones of a named scheme over the model's whole depth, without those in which nothing was measured."""
    shares = _SHARES[scheme]
    ends = [round(share * series.depth) for _, share in shares]
    if series.depth >= len(shares):  # rounding must leave every zone a layer
        for i in range(len(ends)):
            ends[i] = max(ends[i], i + 1, (ends[i - 1] if i else 0) + 1)
            ends[i] = min(ends[i], series.depth - (len(ends) - 1 - i))
    groups: dict[str, Sequence[int]] = {}
    for (name, _), (start, end) in zip(shares, pairwise([0, *ends]), strict=True):
        layers = [layer for layer in series.layers if start <= layer < end]
        if layers:
            groups[name] = layers
    return groups


def spans(series: Series, text: str) -> dict[str, Sequence[int]]:
    """Zones from "0-3,4-9,10": contiguous, in order, holding every layer of the series once. Raises SettingError."""
    groups: dict[str, Sequence[int]] = {}
    after = -1
    for part in parse_spans(text, "scheme", f"{', '.join(SCHEMES)}, or spans such as 0-3,4-9"):
        if part.first <= after:
            raise SettingError("scheme", repr(text), f"{part.text} does not follow layer {after}; give spans in order")
        after = part.last
        layers = [layer for layer in series.layers if layer in part.layers]
        if not layers:
            raise SettingError(
                "scheme", repr(text), f"{part.text} holds no layer; the report has {span(series.layers)}"
            )
        groups[part.text] = layers
    missing = set(series.layers) - {layer for group in groups.values() for layer in group}
    if missing:
        raise SettingError(
            "scheme", repr(text), f"leaves out layer(s) {span(sorted(missing))}; every layer needs a zone"
        )
    return groups


def edges_together(series: Series, zones: Sequence[Zone]) -> list[Zone]:
    """Both edges as one zone, for the scheme "edge-middle"; nothing for others."""
    edges = [zone for zone in zones if zone.name in ("first edge", "last edge")]
    if len(edges) < 2:
        return []
    return _zones(series, {"both edges": [layer for zone in edges for layer in zone.layers]})


def label_of(ratio: float) -> Label:
    """How a zone's mean error, over the model's, is called."""
    return "high" if ratio >= 1 + MATERIAL else "low" if ratio <= 1 - MATERIAL else "medium"


def _zones(series: Series, groups: Mapping[str, Sequence[int]], outliers: Collection[int] = ()) -> list[Zone]:
    errors = dict(zip(series.layers, series.errors, strict=True))
    measured = dict(zip(series.layers, series.measurements, strict=True))
    overall = fmean(error for layer, error in errors.items() if layer not in outliers)
    zones = []
    for name, layers in groups.items():
        kept = [layer for layer in layers if layer not in outliers]
        mean = fmean(errors[layer] for layer in kept)
        ratio = mean / overall if overall > 0 else 1.0
        zones.append(
            Zone(
                name=name,
                layers=list(layers),
                label=label_of(ratio),
                ratio=ratio,
                worst_layer=max(layers, key=errors.__getitem__),
                metrics=_spreads([measured[layer].value for layer in kept]),
            )
        )
    return zones


def _spreads(values_of: Sequence[Callable[[str], float]]) -> dict[str, Spread]:
    spreads = {}
    for metric in RANKED.values():
        values = [value for of in values_of if math.isfinite(value := of(metric.name))]
        if values:
            spreads[metric.name] = Spread(mean=fmean(values), min=min(values), max=max(values))
    return spreads


def _floor(series: Series) -> float:
    return _FLOOR_DB if series.metric.unit == "dB" else _FLOOR_SHARE * abs(fmean(series.values))


def _ramp(series: Series, found: Structure) -> Ramp | None:
    if found.ramp is None:
        return None
    turn = None if found.ramp.turn is None else series.layers[found.ramp.turn]
    return Ramp(
        shape=found.ramp.shape,
        first=found.ramp.first,
        last=found.ramp.last,
        turn_layer=turn,
        at_turn=found.ramp.at_turn,
    )


def _stability(series: Series, places: Sequence[int], most: int) -> list[Cut]:
    """How often each cut is found again: in other draws of the documents, or by what else is known."""
    if not places:
        return []
    floor, units, runs = _floor(series), None, len(places) + 1
    tried = MAX_ZONES if runs == most else runs  # where the limit did not matter, more would only take longer

    def search(values: Sequence[float]) -> tuple[int, ...]:
        return structure_of(values, runs, floor, tried).cuts

    count = min(m.sequence_count(series.metric) for m in series.measurements)
    documents = series.documents if len(series.documents) == count else tuple(range(count))
    samples = _samples(series, documents) if len(set(documents)) > 1 else []
    if samples:
        units = len(set(documents))
        of = "documents" if documents == series.documents else "sequences"
        shares, method = found_again(places, samples, search), f"{units} {of} resampled"
    elif all(map(math.isfinite, series.standard_errors)):  # costs of version 1, without values by sequence
        shares = found_again(places, redrawn(series.values, series.standard_errors), search)
        method = "each layer redrawn within its standard error"
    else:
        shares = kept_without_one(places, series.values)
        method = "one layer left out"
    return [
        Cut(before_layer=series.layers[place], stability=share, method=method, units=units)
        for place, share in zip(places, shares, strict=True)
    ]


def _samples(series: Series, documents: Sequence[int]) -> list[list[float]]:
    """The series of every draw of the documents; empty where one of them has no number for a layer."""
    drawn = draws(documents)
    samples = [[m.resampled(series.metric, draw) for m in series.measurements] for draw in drawn]
    return samples if all(map(math.isfinite, chain.from_iterable(samples))) else []
