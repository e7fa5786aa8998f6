"""Reports of the same sequences, of which one is older and does not know their documents: it is told by the other.

Without that the two would have other units of uncertainty, and could not be paired: larger errors, fewer decisions.

Not here: what a unit is (srdd.core.units) and pairs (pairing.py).

Worked number: a baseline of 16 sequences from before, a new report in which they are of 9 documents: both have 9 units.
"""

from __future__ import annotations

from typing import Any

from srdd.documents.parts import Calibration, same_sequences
from srdd.documents.report import Report


def sharing_documents(base: Report, new: Report) -> tuple[Report, Report]:
    """The two, each with the documents of the other where it knows none itself."""
    return _told(base, new), _told(new, base)


def _told(report: Report, other: Report) -> Report:
    of_sites = _documents(report.settings.calibration, other.settings.calibration)
    costs, known = report.costs, other.costs
    of_costs = (
        {} if costs is None or known is None else _documents(costs.settings.calibration, known.settings.calibration)
    )
    if not of_sites and not of_costs:
        return report
    tree = report.model_dump(mode="json")
    if of_sites:
        tree["settings"]["calibration"] |= of_sites
    if of_costs:
        tree["costs"]["settings"]["calibration"] |= of_costs
    return Report.from_tree(tree, report.model.id)


def _documents(mine: Calibration | None, known: Calibration | None) -> dict[str, list[Any]]:
    """What `known` says of the sequences of `mine`, in its order; nothing where that is known, or they are others."""
    if mine is None or known is None or mine.documents or not known.documents or not same_sequences(mine, known):
        return {}
    places = {name: place for place, name in enumerate(known.sequence_hashes)}
    order = [places[name] for name in mine.sequence_hashes]
    return {"documents": [known.documents[i] for i in order], "offsets": [known.offsets[i] for i in order]}
