"""Reads impact documents, which held costs beside the reports of version 1, as reports with costs and without sites.

They kept no values by sequence, so that their costs cannot be merged or paired, and no parameters of Linears, which
are 0 here. Names are changed, nothing is repaired: what is missing or unknown is refused by the report's own models.

Worked number: the point "both" with swap_kl 0.02 ± 0.001 becomes the mode "both" with measured_kl 0.02 ± 0.001.
"""

from __future__ import annotations

import re
from typing import Any

from srdd.errors import ReportError

_HOW = {"gradient": "predicted", "swap": "layers", "swap-groups": "groups"}
_LAYER = {
    "point": "mode",
    "predicted_kl": "predicted_kl_own",
    "predicted_kl_joint": "predicted_kl",
    "predicted_kl_modules": "predicted_kl_linears",
    "swap_kl": "measured_kl",
    "swap_error": "measured_error",
}
_QUANTILES = {"kl_median": "0.5", "kl_p90": "0.9", "kl_p99": "0.99", "kl_max": "1"}
_DERIVED = {"growth", "loss_change", "perplexity", "additivity", "additivity_predicted"}  # computed when asked for
_ADDED = "predicted KL of fusion groups: the sum of their Linears' (version 1), not their errors taken together"

Row = dict[str, Any]


def upgrade(document: Row, name: str) -> Row:
    """The fields of a Report from an impact document of version 1. Raises ReportError; the report checks values."""
    version = document.get("schema_version")
    if version != 1 or isinstance(version, bool):
        raise ReportError(f"{name}: schema_version {version!r} of an impact document is not known; expected 1")
    given = _object(document, "settings", name)
    taken = {key: value for key, value in given.items() if key in ("device", "dtype", "versions")}
    linears = _rows(document, "linears", name)
    groups = _groups(document, linears, name)
    known = ("schema_version", "document", "model", "settings", "reference", "whole", "layers", "linears", "groups")
    more = {key: value for key, value in document.items() if key not in (*known, "group_swaps", "warnings")}
    return {
        **more,  # provenance, and what nobody knows
        "model": document.get("model"),
        "settings": {
            **taken,
            "formats": given.get("formats"),
            "kinds": [],
            "calibration": given.get("calibration"),
            "seed": given.get("seed", 0),
            "backend": given.get("backend"),
            "backend_reason": "of an impact document",
            "thresholds": {},
        },
        "coverage": {"parameters": 0, "measured": 0},
        "sites": [],
        "costs": {
            "settings": _settings({key: value for key, value in given.items() if key not in taken}),
            "clean": _without(document.get("reference"), {"perplexity"}),
            "whole": [_whole(row) for row in _rows(document, "whole", name)],
            "layers": [_renamed(_without(row, _DERIVED), _LAYER) for row in _rows(document, "layers", name)],
            "groups": groups,
            "linears": [{"parameters": 0, **row} for row in linears],
        },
        "warnings": [
            *(document.get("warnings") or ()),
            *([_ADDED] if any(row["predicted_kl"] and len(row["members"]) > 1 for row in groups) else ()),
        ],
    }


def _settings(given: Row) -> Row:
    attributes = given.pop("attribute", [])
    names = {"points": "modes", "rows": "tokens_per_sequence", "noise": "noise_control"}
    how = [_HOW.get(word, word) if isinstance(word, str) else word for word in attributes]
    return {**_renamed(given, names), "how": how}


def _whole(row: Row) -> Row:
    quantiles = {name: row[key] for key, name in _QUANTILES.items() if key in row}
    return {**_renamed(_without(row, {*_DERIVED, *_QUANTILES}), {"point": "mode"}), "kl_quantiles": quantiles}


def _groups(document: Row, linears: list[Row], name: str) -> list[Row]:
    """A row for every group with a predicted or a measured KL, in the order of their Linears; then the other groups."""
    members: dict[tuple[str, str], list[Row]] = {}
    for row in linears:
        members.setdefault((str(row.get("format")), str(row.get("group") or row.get("module"))), []).append(row)
    predicted, swaps = _object(document, "groups", name), _object(document, "group_swaps", name)
    listed = dict.fromkeys([*members, *((spec, group) for spec in swaps for group in _object(swaps, spec, name))])
    rows = []
    for spec, group in listed:
        mine = members.get((spec, group), [])
        if mine and mine[0].get("group") is None:  # it stands alone
            kls = mine[0].get("predicted_kl") or {}
        else:
            sums = _object(_object(predicted, spec, name), group, name)
            kls = {mode: {"value": value} for mode, value in sums.items()}
        measured = _object(_object(swaps, spec, name), group, name)
        if kls or measured:
            rows.append(
                {
                    "name": group,
                    "layer": mine[0].get("layer") if mine else _layer_in(group),
                    "members": [row.get("module") for row in mine] or [group],
                    "parameters": 0,
                    "format": spec,
                    "predicted_kl": kls,
                    "measured_kl": measured,
                }
            )
    return rows


def _layer_in(name: str) -> int | None:
    """Of experts, which had no rows of their own: the first number in a name is the layer's."""
    found = re.search(r"\.(\d{1,9})\.", name)
    return int(found[1]) if found else None


def _object(tree: Row, key: str, name: str) -> Row:
    found = tree.get(key) or {}
    if not isinstance(found, dict):
        raise ReportError(f"{name}: {key} is no object, as it is in an impact document")
    return dict(found)


def _rows(tree: Row, key: str, name: str) -> list[Row]:
    found = tree.get(key) or []
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ReportError(f"{name}: {key} is no list of rows, as it is in an impact document")
    return found


def _renamed(row: Row, names: dict[str, str]) -> Row:
    return {names.get(key, key): value for key, value in row.items()}


def _without(row: Any, keys: set[str]) -> Any:
    return {key: value for key, value in row.items() if key not in keys} if isinstance(row, dict) else row
