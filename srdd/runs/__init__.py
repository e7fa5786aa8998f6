"""Runs: what needs a running model, or its weights, and ends in a document.

`scan`, `scan_checkpoint` and `scan_stored` measure tensors, `measure_impact` what quantization costs, `measure_probe`
how much noise a model bears, `run_aqn` whether guided noise helps, `find_faults` what computes wrongly. `setup` opens a
run, `calibration` and `text_files` make its tokens.
Not here: opening models (srdd.models), what follows from a document (srdd.analysis). A new run is a folder, or a module
in the folder of its kin, that starts with `open_run` or `open_loss_run` and returns a document of srdd.documents.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srdd.runs.experiments.aqn import run_aqn as run_aqn
    from srdd.runs.experiments.probe import measure_probe as measure_probe
    from srdd.runs.faults.run import find_faults as find_faults
    from srdd.runs.impact.run import measure_impact as measure_impact
    from srdd.runs.scanning import scan as scan
    from srdd.runs.scans.checkpoint import scan_checkpoint as scan_checkpoint
    from srdd.runs.scans.stored import scan_stored as scan_stored

_HOME = {
    "find_faults": "srdd.runs.faults.run",
    "measure_impact": "srdd.runs.impact.run",
    "measure_probe": "srdd.runs.experiments.probe",
    "run_aqn": "srdd.runs.experiments.aqn",
    "scan": "srdd.runs.scanning",
    "scan_checkpoint": "srdd.runs.scans.checkpoint",
    "scan_stored": "srdd.runs.scans.stored",
}
__all__ = [
    "find_faults",
    "measure_impact",
    "measure_probe",
    "run_aqn",
    "scan",
    "scan_checkpoint",
    "scan_stored",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'srdd.runs' has no attribute {name!r}")
