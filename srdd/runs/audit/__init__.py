"""The audit of a packed checkpoint: tensors are read in row chunks, counted, and held against each other.

Not here: what is decided of the counts (srdd.analysis.audit).
"""

from __future__ import annotations

from srdd.runs.audit.run import audit

__all__ = ["audit"]
