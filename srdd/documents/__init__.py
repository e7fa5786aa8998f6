"""Every file that srdd writes or reads, as Pydantic models: reports, probes, experiments, rin.yaml, zone maps.

`open_document(path, kind)` reads any of them and says in one line what is wrong with a file; `Report.save` and `save`
write them; `merge` joins the reports of parts of one scan. A new kind of document is a file here with a `Document` in
it, and a row in opening.py.

Not here: measuring (srdd.runs), answers (srdd.analysis), and any other form of output (srdd.exporters).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srdd.documents.audit import Audit as Audit
    from srdd.documents.baseline import Baseline as Baseline
    from srdd.documents.costs import Costs as Costs
    from srdd.documents.experiment import Experiment as Experiment
    from srdd.documents.fault import Faults as Faults
    from srdd.documents.merging import merge as merge
    from srdd.documents.opening import open_document as open_document
    from srdd.documents.probe import Probe as Probe
    from srdd.documents.report import Report as Report
    from srdd.documents.rin import RinConfig as RinConfig
    from srdd.documents.saving import save as save
    from srdd.documents.zones import ZoneMap as ZoneMap

# Resolved when first used (PEP 562): a command that needs zone maps does not build the models of experiments.
_HOME = {
    "Audit": "srdd.documents.audit",
    "Baseline": "srdd.documents.baseline",
    "Costs": "srdd.documents.costs",
    "Experiment": "srdd.documents.experiment",
    "Faults": "srdd.documents.fault",
    "Probe": "srdd.documents.probe",
    "Report": "srdd.documents.report",
    "RinConfig": "srdd.documents.rin",
    "ZoneMap": "srdd.documents.zones",
    "merge": "srdd.documents.merging",
    "open_document": "srdd.documents.opening",
    "save": "srdd.documents.saving",
}
__all__ = [
    "Audit",
    "Baseline",
    "Costs",
    "Experiment",
    "Faults",
    "Probe",
    "Report",
    "RinConfig",
    "ZoneMap",
    "merge",
    "open_document",
    "save",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'srdd.documents' has no attribute {name!r}")
