"""Loss, entropy, agreement and KL of a model as it is at the moment, sequence by sequence.

Not here: what was done to the model. The logits of one batch are held at a time. A value that is not finite is nan here
and null in documents: a collapse is a result, not an error.

Worked number: losses of two sequences 2.0 and 3.0 without noise, 2.2 and 3.4 with it: change 0.3, error over sequences
0.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from torch import Tensor, nn

from srdd.core.uncertainty import by_unit, mean_and_error
from srdd.documents.probe import Criterion
from srdd.errors import SiteError
from srdd.kernels.precision import to_float64
from srdd.models.running import explained, run
from srdd.models.stack import logits_of
from srdd.runs.divergence import ReferenceLogits


@dataclass
class Outcome:
    """One value per sequence."""

    loss: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    top1: list[float] = field(default_factory=list)  # agreement with a reference
    kl: list[float] = field(default_factory=list)  # against the same reference
    kl_clean: list[float] = field(default_factory=list)  # against another

    def of(self, criterion: Criterion) -> list[float]:
        """What the criterion looks at."""
        return {"loss": self.loss, "entropy": self.entropy, "agreement": self.top1}[criterion]


def references(model: nn.Module, batch: Tensor) -> ReferenceLogits:
    """The logits of a batch and what comparisons need. Raises SiteError for a model without a head."""
    with explained(model, batch[:1]):
        output = run(model, batch)
    logits = logits_of(output)
    if logits is None:
        raise SiteError(f"{type(model).__name__} has no language-model head; loss and entropy need one")
    return ReferenceLogits.of(logits, batch)


def add(
    outcome: Outcome, seen: ReferenceLogits, own: ReferenceLogits | None = None, clean: ReferenceLogits | None = None
) -> None:
    """Append what a batch gave; `own` and `clean` are what it is compared with."""
    facts = seen.own()
    outcome.loss += _means(facts["loss"])
    outcome.entropy += _means(facts["entropy"])
    if own is not None:
        outcome.top1 += _means((own.logits.argmax(-1) == seen.logits.argmax(-1)).float())
        outcome.kl += _means(own.kl_to(seen))
    if clean is not None:
        outcome.kl_clean += _means(clean.kl_to(seen))


def finite_mean(values: Sequence[float]) -> float | None:
    """The mean; None of no values, or when one is not finite."""
    return fmean(values) if values and all(math.isfinite(v) for v in values) else None


def paired_error(changed: Sequence[float], base: Sequence[float], unit_of: Sequence[int] | None = None) -> float | None:
    """Standard error over units of text of the mean difference; None below two units or without finite values."""
    differences = [a - b for a, b in zip(changed, base, strict=True)]
    if not all(math.isfinite(d) for d in differences):
        return None
    units = by_unit(differences, unit_of)
    return mean_and_error(units)[1] if len(units) > 1 else None


def _means(per_token: Tensor) -> list[float]:
    result: list[float] = to_float64(per_token).mean(1).tolist()
    return result
