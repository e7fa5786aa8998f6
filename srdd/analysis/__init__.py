"""From documents to answers: series and zones, advice, multipliers for noise, comparisons, the gate, an overview.

Everything here is a function of documents. Not here: the documents themselves (srdd.documents), running a model
(srdd.runs), and how an answer is printed or drawn (srdd.exporters). Nothing loads torch, numpy or scipy.

A new strategy for noise is a row of strategies.STRATEGIES, a new zone scheme a row in zones.py, a new kind of limit a
class in comparison/limits.py; a new question to ask of a report is a module of its own here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srdd.analysis.advice import advise as advise
    from srdd.analysis.comparison.changes import compare as compare
    from srdd.analysis.comparison.changes import drift as drift
    from srdd.analysis.comparison.gate import check as check
    from srdd.analysis.comparison.policy import Policy as Policy
    from srdd.analysis.comparison.slim import slim as slim
    from srdd.analysis.multipliers import find_multipliers as find_multipliers
    from srdd.analysis.series import layer_series as layer_series
    from srdd.analysis.validation import validate as validate
    from srdd.analysis.zones import find_zones as find_zones

_HOME = {
    "Policy": "srdd.analysis.comparison.policy",
    "advise": "srdd.analysis.advice",
    "check": "srdd.analysis.comparison.gate",
    "compare": "srdd.analysis.comparison.changes",
    "drift": "srdd.analysis.comparison.changes",
    "find_multipliers": "srdd.analysis.multipliers",
    "find_zones": "srdd.analysis.zones",
    "layer_series": "srdd.analysis.series",
    "slim": "srdd.analysis.comparison.slim",
    "validate": "srdd.analysis.validation",
}
__all__ = [
    "Policy",
    "advise",
    "check",
    "compare",
    "drift",
    "find_multipliers",
    "find_zones",
    "layer_series",
    "slim",
    "validate",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'srdd.analysis' has no attribute {name!r}")
