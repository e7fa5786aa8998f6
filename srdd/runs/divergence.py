"""What a change of logits costs, token by token: loss, KL(reference || changed), top-1 agreement.

Not here: models. Only one batch of logits is ever held; a few numbers per token remain. Position t predicts token
t + 1, so the last position of a sequence is never counted. With z the reference's logits, y the changed ones and p the
softmax of z, KL = sum p (z - y) + logsumexp(y) - logsumexp(z); for equal logits it is 0 exactly.

Worked number: p = (1/2, 1/2) and q = (3/4, 1/4): KL = 1/2 ln(2/3) + 1/2 ln 2 = 0.1438.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

_ROWS = 128  # tokens at once: 128 x 50k floats stay near the cache


@dataclass
class ReferenceLogits:
    """The clean logits of one batch [sequences, length, vocabulary], with what every comparison needs of them."""

    logits: Tensor
    targets: Tensor  # [sequences, length - 1]
    logsumexp: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if self.targets.shape[1] < 1:
            raise ValueError("sequences need at least 2 tokens")
        self.logits = self.logits[:, :-1]
        self.logsumexp = _logsumexp(self.logits)

    @classmethod
    def of(cls, logits: Tensor, token_ids: Tensor) -> ReferenceLogits:
        return cls(logits, token_ids[:, 1:].to(logits.device))

    def own(self) -> dict[str, Tensor]:
        """Loss and entropy of the reference itself, [sequences, length - 1]."""
        entropy = torch.empty_like(self.logsumexp)
        for row in range(len(self.logits)):
            for rows in _pieces(self.logits.shape[1]):
                z = self.logits[row, rows].float()
                entropy[row, rows] = self.logsumexp[row, rows] - (self.p[row, rows] * z).sum(-1)
        return {"loss": _loss(self.logits, self.logsumexp, self.targets), "entropy": entropy}

    def against(self, logits: Tensor) -> dict[str, Tensor]:
        """Loss, KL and agreement of changed logits, each [sequences, length - 1]."""
        changed = logits[:, :-1]
        same = torch.empty_like(self.logsumexp)
        for row in range(len(changed)):
            for rows in _pieces(changed.shape[1]):
                same[row, rows] = (self.logits[row, rows].argmax(-1) == changed[row, rows].argmax(-1)).float()
        return {"loss": _loss(changed, _logsumexp(changed), self.targets), "kl": self.kl(logits), "top1": same}

    def kl(self, logits: Tensor) -> Tensor:
        """The KL alone, [sequences, length - 1]: what a swap of every layer asks for, again and again."""
        return self._kl(logits[:, :-1])

    def kl_to(self, other: ReferenceLogits) -> Tensor:
        """KL(this || another) of the same tokens, [sequences, length - 1]."""
        return self._kl(other.logits)

    def _kl(self, changed: Tensor) -> Tensor:
        kl = torch.empty_like(self.logsumexp)
        for row in range(len(changed)):
            for rows in _pieces(changed.shape[1]):
                z, y, lse = self.logits[row, rows].float(), changed[row, rows].float(), self.logsumexp[row, rows]
                moved = (torch.logsumexp(y, -1) - lse) + (self.p[row, rows] * (z - y)).sum(-1)
                kl[row, rows] = moved
        return kl

    @cached_property
    def p(self) -> Tensor:
        """The reference's probabilities, as large as its logits; kept, because every comparison needs them."""
        p = torch.empty(self.logits.shape, dtype=torch.float32, device=self.logits.device)
        for row in range(len(p)):
            for rows in _pieces(p.shape[1]):
                p[row, rows] = (self.logits[row, rows].float() - self.logsumexp[row, rows, None]).exp()
        return p


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie, interpolated; nan of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _logsumexp(logits: Tensor) -> Tensor:
    out = torch.empty(logits.shape[:2], dtype=torch.float32, device=logits.device)
    for row in range(len(logits)):
        for rows in _pieces(logits.shape[1]):
            out[row, rows] = torch.logsumexp(logits[row, rows].float(), -1)
    return out


def _loss(logits: Tensor, lse: Tensor, targets: Tensor) -> Tensor:
    return lse - logits.gather(2, targets[:, :, None])[:, :, 0].float()


def _pieces(length: int) -> list[slice]:
    return [slice(start, min(start + _ROWS, length)) for start in range(0, length, _ROWS)]
