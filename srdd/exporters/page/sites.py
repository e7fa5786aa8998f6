"""Sites as the page lists them, and the places of its heatmap: layer x role, the sites of a place merged.

Many sites in one place (experts) are one row, with quantiles and the worst few by name: a page of tens of thousands of
experts stays small, and a reader finds the ones that matter.

Not here: columns of numbers (columns.py).

Worked number: 53 experts of one layer and role are one row, "experts.*.up_proj (53 sites)"; 3 are three rows and, for
the heatmap, a fourth one after all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from srdd.core.metrics import BY_NAME, MAIN
from srdd.core.verdicts import Z_LIMIT, robust_z
from srdd.documents.parts import Kind
from srdd.documents.schema import Measurement, Site
from srdd.documents.summary import merge_measurements
from srdd.exporters.page.columns import Number, number

CROWD = 8  # sites in one place; more are shown as one
_NAMED = 5  # the worst of them
_SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
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


@dataclass(frozen=True)
class Rows:
    """The rows of the page: sites and crowds in the report's order, then places that hold a few sites, merged."""

    columns: dict[str, list[Any]]  # of the first rows
    measured: list[dict[str, Measurement]]  # of all rows
    sources: list[int | None]  # the site of the report behind a row; None: several
    cells: dict[str, list[Any]]  # the places of the heatmap
    crowds: dict[int, dict[str, Any]]  # by row


def page_rows(sites: Sequence[Site]) -> Rows:
    """Sites of one kind, layer and role are one place; more than CROWD of them, as experts are, are one row."""
    places: dict[tuple[Kind, int | None, str], list[int]] = {}
    for index, site in enumerate(sites):
        places.setdefault((site.kind, site.layer, site.role), []).append(index)
    shown: list[tuple[Site, dict[str, Measurement], int | None]] = []
    row_of: dict[int, int] = {}  # the first site of a crowd stands for it
    crowds: dict[int, dict[str, Any]] = {}
    for index, site in enumerate(sites):
        inside = places[site.kind, site.layer, site.role]
        if len(inside) <= CROWD:
            row_of[index] = len(shown)
            shown.append((site, site.formats, index))
        elif index == inside[0]:
            row_of[index] = len(shown)
            together = [sites[place] for place in inside]
            crowds[len(shown)] = crowd(together)
            named = site.model_copy(update={"name": _named(together), "members": [], "notes": []})
            shown.append((named, _merge(together), None))
    cells: dict[str, list[Any]] = {"kind": [], "layer": [], "role": [], "row": [], "sites": []}
    merged: list[dict[str, Measurement]] = []
    for (kind, layer, role), inside in places.items():
        rows = [row_of[index] for index in inside if index in row_of]
        row = rows[0]
        if len(rows) > 1:
            row = len(shown) + len(merged)
            merged.append(_merge([sites[index] for index in inside]))
        for name, value in (("kind", kind), ("layer", layer), ("role", role), ("row", row), ("sites", rows)):
            cells[name].append(value)
    return Rows(
        columns=site_columns([site for site, _, _ in shown]),
        measured=[*(formats for _, formats, _ in shown), *merged],
        sources=[*(source for _, _, source in shown), *[None] * len(merged)],
        cells=cells,
        crowds=crowds,
    )


def crowd(sites: Sequence[Site]) -> dict[str, Any]:
    """Quantiles of the main metrics over many sites, and the worst few by relative error, by format."""
    quantiles: dict[str, dict[str, list[Number]]] = {}
    worst: dict[str, list[tuple[str, Number]]] = {}
    for spec in dict.fromkeys(spec for site in sites for spec in site.formats):
        known = [(site.name, site.formats[spec]) for site in sites if spec in site.formats]
        quantiles[spec] = {
            name: [number(value) for value in _quantiles([measured.value(name) for _, measured in known])]
            for name in MAIN
        }
        errors = {name: measured.value("relative_error") for name, measured in known}
        ranked = sorted((name for name in errors if math.isfinite(errors[name])), key=lambda name: -errors[name])
        worst[spec] = [(name, number(errors[name])) for name in ranked[:_NAMED]]
    return {"count": len(sites), "shares": list(_SHARES), "quantiles": quantiles, "worst": worst}


def _quantiles(values: Sequence[float]) -> list[float]:
    """Of what is finite, by the nearest rank; nothing for nothing."""
    finite = sorted(value for value in values if math.isfinite(value))
    return [finite[min(round(share * (len(finite) - 1)), len(finite) - 1)] for share in _SHARES] if finite else []


def _named(sites: Sequence[Site]) -> str:
    """ "model.layers.0.mlp.experts.*.up_proj (128 sites)": what their names share at both ends."""
    first, last = min(site.name for site in sites), max(site.name for site in sites)
    start = _shared(first, last)
    end = _shared(first[len(start) :][::-1], last[len(start) :][::-1])[::-1]
    return f"{start}*{end} ({len(sites)} sites)"


def _shared(a: str, b: str) -> str:
    """What two texts begin with alike."""
    return "".join(x for x, _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


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
