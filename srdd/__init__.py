"""srdd shows where low-precision formats hurt a language model.

`srdd.scan(model, token_ids, formats="mxfp4")` measures a model in memory; `srdd.Report.load(path)` reads a report.
Importing srdd imports neither torch nor transformers: names are resolved when they are first used (PEP 562). No module
here is called like one of these functions, because importing it would hide the function.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srdd.documents.merging import merge as merge
    from srdd.documents.report import Report as Report
    from srdd.errors import SrddError as SrddError
    from srdd.kernels import measure as measure
    from srdd.kernels import quant_dequant as quant_dequant
    from srdd.models.fake import fake_quantize as fake_quantize
    from srdd.models.faults import plant as plant
    from srdd.runs import find_faults as find_faults
    from srdd.runs import measure_impact as measure_impact
    from srdd.runs import measure_probe as measure_probe
    from srdd.runs import run_aqn as run_aqn
    from srdd.runs import scan as scan
    from srdd.runs import scan_checkpoint as scan_checkpoint
    from srdd.runs import scan_stored as scan_stored

    __version__: str


_HOME = {
    "fake_quantize": "srdd.models.fake",
    "find_faults": "srdd.runs",
    "Report": "srdd.documents.report",
    "SrddError": "srdd.errors",
    "measure": "srdd.kernels",
    "measure_impact": "srdd.runs",
    "measure_probe": "srdd.runs",
    "merge": "srdd.documents.merging",
    "plant": "srdd.models.faults",
    "quant_dequant": "srdd.kernels",
    "run_aqn": "srdd.runs",
    "scan": "srdd.runs",
    "scan_checkpoint": "srdd.runs",
    "scan_stored": "srdd.runs",
}
__all__ = [
    "Report",
    "SrddError",
    "__version__",
    "fake_quantize",
    "find_faults",
    "measure",
    "measure_impact",
    "measure_probe",
    "merge",
    "plant",
    "quant_dequant",
    "run_aqn",
    "scan",
    "scan_checkpoint",
    "scan_stored",
]


def __dir__() -> list[str]:
    """Names that are not resolved yet, too: a notebook completes what this lists."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name == "__version__":  # reading a package's metadata costs more than all the rest of this file
        return import_module("importlib.metadata").version("srdd")
    raise AttributeError(f"module 'srdd' has no attribute {name!r}")
