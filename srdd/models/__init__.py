"""A live model or its files: open it, name its tensors, run it, fake-quantize it, and leave it as it was found.

Not here: measurements (srdd.runs), noise on weights (srdd.noise) and formats (srdd.core, srdd.kernels). `source.py`
opens a model, `files/` reads checkpoints without one; `sites.py` and `checkpoint_sites.py` name the tensors of the two
alike. A new architecture needs no code as long as its layers are an nn.ModuleList and its matrices nn.Linear, Conv1D or
fused experts. Otherwise tell its modules in `modules.py` and its tensors' names in `checkpoint_sites.py`, with a test
in tests/models/test_architectures.py.

Importing this face loads no torch: names are resolved when they are first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srdd.models.fake import fake_quantize as fake_quantize
    from srdd.models.faults import plant as plant
    from srdd.models.files.checkpoint import open_checkpoint as open_checkpoint
    from srdd.models.selection import Selection as Selection
    from srdd.models.sites import find_sites as find_sites
    from srdd.models.source import open_model as open_model

_HOME = {
    "Selection": "srdd.models.selection",
    "fake_quantize": "srdd.models.fake",
    "find_sites": "srdd.models.sites",
    "open_checkpoint": "srdd.models.files.checkpoint",
    "open_model": "srdd.models.source",
    "plant": "srdd.models.faults",
}
__all__ = ["Selection", "fake_quantize", "find_sites", "open_checkpoint", "open_model", "plant"]


def __dir__() -> list[str]:
    """Names that are not resolved yet, too."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'srdd.models' has no attribute {name!r}")
