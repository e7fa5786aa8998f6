"""Reports of the same sequences, of which one is older and does not know their documents: it is told by the other.

Without that the two would have other units of uncertainty, and could not be paired: larger errors, fewer decisions.

Not here: what a unit is (srdd.core.units) and pairs (pairing.py).

Worked number: a baseline of 16 sequences from before, a new report in which they are of 9 documents: both have 9 units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from srdd.analysis.comparison.recalled import RecalledReport
from srdd.documents.parts import Calibration, same_sequences
from srdd.documents.report import Report


def sharing_documents(base: Report, new: Report) -> tuple[Report, Report]:
    """The two, each with the documents of the other where it knows none itself.

    A slim baseline cannot learn any; where it took units together the new report must too.
    """
    if isinstance(base, RecalledReport):
        return base, _told(new, base, _groups if base.regrouped else _documents)
    return _told(base, new, _documents), _told(new, base, _documents)


_Learn = Callable[[Calibration | None, Calibration | None], dict[str, list[Any]]]


def _told(report: Report, other: Report, learn: _Learn) -> Report:
    of_sites = learn(report.settings.calibration, other.settings.calibration)
    costs, known = report.costs, other.costs
    of_costs = {} if costs is None or known is None else learn(costs.settings.calibration, known.settings.calibration)
    return told(report, of_sites, of_costs)


def told(report: Report, of_sites: dict[str, list[Any]], of_costs: dict[str, list[Any]]) -> Report:
    """The report with other documents behind its sequences; the report itself where there are none to tell."""
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
    return {} if mine is None or mine.documents else _groups(mine, known)


def _groups(mine: Calibration | None, known: Calibration | None) -> dict[str, list[Any]]:
    """The same, whatever `mine` knows itself."""
    if mine is None or known is None or not known.documents or not same_sequences(mine, known):
        return {}
    places = {name: place for place, name in enumerate(known.sequence_hashes)}
    order = [places[name] for name in mine.sequence_hashes]
    return {"documents": [known.documents[i] for i in order], "offsets": [known.offsets[i] for i in order]}
