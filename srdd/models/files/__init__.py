"""Files of weights: safetensors (safetensors.py, checkpoint.py over them, packed/ for codes) and GGUF (gguf.py).

Not here: which tensors are measured (srdd.models.checkpoint_sites). A new kind of file is a module that gives headers,
a hash by `weights_hash` and chunks of rows, as checkpoint.py does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

__all__ = ["weights_hash"]


def weights_hash(parts: Iterable[tuple[bytes, int]]) -> str:
    """SHA-256 over (header, file size) of every weight file, in the order of their names.

    No byte of a weight is read: it tells checkpoints apart, and does not prove that their values are equal.
    """
    digest = hashlib.sha256()
    for header, size in parts:
        digest.update(len(header).to_bytes(8, "little") + header + size.to_bytes(8, "little"))
    return digest.hexdigest()
