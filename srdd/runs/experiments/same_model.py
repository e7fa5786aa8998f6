"""Whether a report or a rin.yaml was made from the model that is looked at now.

Not here: reports against reports (srdd.analysis.comparison). A scan of an earlier checkpoint may rank the layers of a
later one, which is said; that of another architecture or size may not. A rin.yaml knows its model by id and by the hash
of its weights.

Worked number: GPT-2 and BERT of 12 layers each fit each other's documents by the number of layers, and nothing else.
"""

from __future__ import annotations

from srdd.documents.parts import Model, other_model
from srdd.documents.rin import RinConfig
from srdd.errors import ReportError, setting


def check_report(made_from: Model, model: Model, report: object) -> list[str]:
    """Notes for a reader. Raises ReportError for a report of another model; `report` is its path."""
    for field, theirs, mine in other_model(made_from, model):
        given = setting("report", report)
        raise ReportError(f"{given} is of another model: {field} is {theirs}, here it is {mine}; scan this model")
    if _differ(made_from.weights_hash, model.weights_hash):
        return [f"the layers were ranked by a scan of other weights ({made_from.id})"]
    return []


def check_multipliers(config: RinConfig, model: Model) -> list[str]:
    """Notes for a reader. Raises ReportError for multipliers of a model with another id and other weights."""
    made_from = config.provenance
    if not _differ(made_from.weights_hash, model.weights_hash):
        return []
    if made_from.model != model.id:
        raise ReportError(
            f"the multipliers were made for {made_from.model}, whose weights are not those of {model.id}; "
            "make them from a scan of this model"
        )
    return [f"the multipliers were made from other weights of {model.id}"]


def _differ(a: str | None, b: str | None) -> bool:
    """A model in memory knows no hash, and what is unknown cannot differ."""
    return bool(a and b and a != b)
