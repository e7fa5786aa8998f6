"""One random generator per tensor, so that stochastic rounding does not depend on the order of the scan.

Not here: rounding. The seed of a tensor is the first 8 bytes of SHA-256 over the scan's seed and the tensor's names, so
two halves of a scan draw what the whole one draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from srdd.core.formats import BlockFormat


def generator_for(
    formats: Sequence[BlockFormat], device: torch.device, seed: int, *names: str
) -> torch.Generator | None:
    """A generator on `device` for the tensor called `names`; None when no format draws."""
    if not any(f.stochastic for f in formats):
        return None
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
