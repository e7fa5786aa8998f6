"""Who a model is: what a report says of it, without a path of anybody's machine.

Not here: opening it. The hash covers headers and sizes of the weight files, so it is cheap. It tells checkpoints apart
whose tensors are called, shaped or stored otherwise; equal hashes do not prove equal values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """The fields of `srdd.schema.Model`."""

    id: str
    parameter_count: int
    revision: str | None = None
    architecture: str | None = None
    layer_count: int | None = None
    weights_hash: str | None = None
    dtype: str | None = None


def weights_hash(parts: Iterable[tuple[bytes, int]]) -> str:
    """SHA-256 over (header, file size) of every weight file, in the order of their names."""
    digest = hashlib.sha256()
    for header, size in parts:
        digest.update(len(header).to_bytes(8, "little") + header + size.to_bytes(8, "little"))
    return digest.hexdigest()
