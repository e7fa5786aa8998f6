"""One random generator per tensor, so that stochastic rounding does not depend on the order of a scan.

A tensor's seed is the first 8 bytes of SHA-256 over the scan's seed and the tensor's names, so the two halves of a scan
draw what the whole scan draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from srdd.core.formats import BlockFormat


def generator_for(
    formats: Sequence[BlockFormat], device: torch.device, seed: int, *names: str
) -> torch.Generator | None:
    """A generator on `device` for the tensor called `names`; None when no format rounds stochastically."""
    if not any(fmt.stochastic for fmt in formats):
        return None
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
