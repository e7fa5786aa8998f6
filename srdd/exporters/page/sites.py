"""Sites as the page lists them, and the places of its heatmap: layer x role, the experts of a place merged.

Not here: their numbers (columns.py).

Worked number: 53 experts of one layer and role are one place with 53 sites; its row is the first after the sites' own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from srdd.core.metrics import BY_NAME
from srdd.core.verdicts import Z_LIMIT, robust_z
from srdd.documents.parts import Kind
from srdd.documents.schema import Measurement, Site
from srdd.documents.summary import merge_measurements

_MOST_OUTLIERS = 8  # more names than these hide each other


def site_columns(sites: Sequence[Site]) -> dict[str, list[Any]]:
    """What is known of every site besides numbers."""
    return {
        "kind": [site.kind for site in sites],
        "layer": [site.layer for site in sites],
        "role": [site.role for site in sites],
        "name": [site.name for site in sites],
        "group": [site.group for site in sites],
        "members": [site.members for site in sites],
        "shape": [site.shape for site in sites],
        "notes": [site.notes for site in sites],
    }


def heatmap_cells(sites: Sequence[Site]) -> tuple[dict[str, list[Any]], list[dict[str, Measurement]]]:
    """The places of the heatmap: kind, layer and role with the row that holds their numbers and the sites inside."""
    places: dict[tuple[Kind, int | None, str], list[int]] = {}
    for index, site in enumerate(sites):
        places.setdefault((site.kind, site.layer, site.role), []).append(index)
    cells: dict[str, list[Any]] = {"kind": [], "layer": [], "role": [], "row": [], "sites": []}
    merged: list[dict[str, Measurement]] = []
    for (kind, layer, role), inside in places.items():
        row = inside[0]
        if len(inside) > 1:
            row = len(sites) + len(merged)
            merged.append(_merge([sites[index] for index in inside]))
        for name, value in (("kind", kind), ("layer", layer), ("role", role), ("row", row), ("sites", inside)):
            cells[name].append(value)
    return cells, merged


def _merge(sites: Sequence[Site]) -> dict[str, Measurement]:
    specs = [spec for spec in sites[0].formats if all(spec in site.formats for site in sites)]
    with_sums = [spec for spec in specs if all(site.formats[spec].tally is not None for site in sites)]
    return {spec: merge_measurements([site.formats[spec] for site in sites]) for spec in with_sums}


def outliers(cells: dict[str, list[Any]], measured: Sequence[Measurement | None], kind: Kind) -> list[int]:
    """Cells that get a name: far from the others by SQNR, relative error or crest, and the ends of each."""
    rows = {i: m for i, row in enumerate(cells["row"]) if cells["kind"][i] == kind and (m := measured[row])}
    farthest: dict[int, float] = {}
    ends: list[int] = []
    for name in ("sqnr_db", "relative_error", "crest"):
        series = {i: value for i, m in rows.items() if math.isfinite(value := m.value(name))}
        if series:
            up = BY_NAME[name].better == "up"
            ends.append(min(series, key=series.__getitem__) if up else max(series, key=series.__getitem__))
        for cell, z in robust_z(BY_NAME[name], {str(i): value for i, value in series.items()}).items():
            farthest[int(cell)] = max(farthest.get(int(cell), 0.0), abs(z))
    ranked = sorted(farthest, key=lambda cell: (-farthest[cell], cell))
    beyond = [cell for cell in ranked if farthest[cell] > Z_LIMIT][:_MOST_OUTLIERS]
    return list(dict.fromkeys([*beyond, *ends]))
