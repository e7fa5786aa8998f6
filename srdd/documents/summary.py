"""Rows derived from sites: one per decoder layer, and one per metric over the layers.

std is the sample standard deviation over layers; "gaussian" is what the same format and rule give on normal data.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from srdd.core.blocks import Blocks
from srdd.core.formats import parse
from srdd.core.gaussian import gaussian_metrics
from srdd.core.metrics import METRICS, Metric
from srdd.core.tally import Tally
from srdd.core.uncertainty import total_blocks, total_vector
from srdd.core.verdicts import is_unusual, robust_z, violates
from srdd.documents.parts import KINDS, Kind
from srdd.documents.schema import Layer, Measurement, Site, SummaryRow, as_lists, measurement
from srdd.errors import FormatError


def layer_rows(sites: Sequence[Site]) -> list[Layer]:
    """Merge the sites of each decoder layer, kind by kind. Sites outside the layers (lm_head) are in no row."""
    members: dict[tuple[Kind, int], list[Site]] = defaultdict(list)
    for site in sites:
        if site.layer is not None:
            members[site.kind, site.layer].append(site)
    order = sorted(members, key=lambda key: (KINDS.index(key[0]), key[1]))
    return [Layer(kind=kind, layer=layer, formats=_merge(members[kind, layer])) for kind, layer in order]


def _merge(sites: Sequence[Site]) -> dict[str, Measurement]:
    """By format, of the sites that have it: a mixed checkpoint has weights of several forms in a layer."""
    specs = dict.fromkeys(spec for site in sites for spec in site.formats)
    return {spec: merge_measurements([site.formats[spec] for site in sites if spec in site.formats]) for spec in specs}


def merge_measurements(parts: Sequence[Measurement]) -> Measurement:
    """The measurement of several tensors taken together; sequence by sequence where they saw the same sequences."""
    if len(parts) == 1:
        return parts[0]
    counts = {len(part.sequences or ()) for part in parts}
    if len(counts) == 1 and counts != {0}:
        columns = zip(*(part.sequences or () for part in parts), strict=True)
        sums = [total_vector(column) for column in columns]
        return Measurement(sequences=sums, sequence_blocks=_blocks_of(parts), unit_of=parts[0].unit_of)
    return measurement(sum((part.merged() for part in parts), Tally()))


def _blocks_of(parts: Sequence[Measurement]) -> list[list[list[float]]] | None:
    """Counts of blocks, sequence by sequence; None unless all parts have them."""
    counted = [part.sequence_blocks for part in parts if part.sequence_blocks is not None]
    if len(counted) < len(parts):
        return None
    columns = zip(*counted, strict=True)
    return [as_lists(total_blocks([Blocks(*map(tuple, counts)) for counts in column])) for column in columns]


def summary_rows(layers: Sequence[Layer], thresholds: Mapping[str, float]) -> list[SummaryRow]:
    """Every metric with a direction over the layers of each kind and format."""
    rows = []
    for kind in KINDS:
        of_kind = [layer for layer in layers if layer.kind == kind]
        for spec in dict.fromkeys(spec for layer in of_kind for spec in layer.formats):
            rows += [_row(kind, spec, m, of_kind, thresholds.get(m.name)) for m in METRICS if m.better is not None]
    return rows


def _row(kind: Kind, spec: str, metric: Metric, layers: Sequence[Layer], threshold: float | None) -> SummaryRow:
    series = {layer.layer: layer.formats[spec].value(metric.name) for layer in layers if spec in layer.formats}
    finite = [value for value in series.values() if math.isfinite(value)]
    z = robust_z(metric, {str(layer): value for layer, value in series.items()})
    baseline = gaussian_metrics(spec)
    return SummaryRow(
        kind=kind,
        format=spec,
        metric=metric.name,
        min=min(finite, default=None),
        max=max(finite, default=None),
        mean=fmean(finite) if finite else None,
        std=(stdev(finite) if len(finite) > 1 else 0.0) if finite else None,
        gaussian=baseline.get(metric.name) if baseline else None,
        threshold=threshold,
        over_threshold=[
            layer for layer, value in series.items() if threshold is not None and violates(metric, value, threshold)
        ],
        unusual=[int(layer) for layer, value in z.items() if is_unusual(metric, value)],
        zero_by_construction=metric.name == "saturation_ratio" and _never_clips(spec),
    )


def _never_clips(spec: str) -> bool:
    try:
        return parse(spec).never_clips
    except FormatError:  # a format of a later version or of the first scripts
        return False
