"""Loss, entropy, agreement and KL of a model as it is at the moment, sequence by sequence.

Not here: what was done to the model. Logits of one batch are held at a time. A value that is not finite becomes nan
here and null in documents: a collapse is a result, not an error.

Worked number: losses of two sequences 2.0 and 3.0 without noise, 2.2 and 3.4 with it: change 0.3, error over sequences
0.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

import torch
from torch import Tensor, nn

from srdd.errors import OptionError
from srdd.kernels.precision import to_float64
from srdd.models.running import explained, run
from srdd.models.stack import logits_of
from srdd.runs.divergence import Reference


@dataclass
class Outcome:
    """One value per sequence."""

    loss: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    top1: list[float] = field(default_factory=list)  # agreement with a reference
    kl: list[float] = field(default_factory=list)  # against the same reference
    kl_clean: list[float] = field(default_factory=list)  # against another


def references(model: nn.Module, batch: Tensor) -> Reference:
    """The logits of a batch and what comparisons need. Raises OptionError for a model without a head."""
    with explained(model, batch[:1]):
        output = run(model, batch)
    logits = logits_of(output)
    if logits is None:
        raise OptionError(f"{type(model).__name__} has no language-model head; loss and entropy need one")
    return Reference.of(logits, batch)


def add(outcome: Outcome, seen: Reference, own: Reference | None = None, clean: Reference | None = None) -> None:
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


def paired_error(changed: Sequence[float], base: Sequence[float]) -> float | None:
    """Standard error over sequences of the mean difference; None below two sequences or without finite values."""
    differences = [a - b for a, b in zip(changed, base, strict=True)]
    if len(differences) < 2 or not all(math.isfinite(d) for d in differences):
        return None
    return stdev(differences) / math.sqrt(len(differences))


def _means(per_token: Tensor) -> list[float]:
    result: list[float] = to_float64(per_token).mean(1).tolist()
    return result


def batches_of(ids: Tensor, size: int, device: torch.device) -> list[Tensor]:
    """Token ids in batches on the model's device. Raises OptionError for sequences that predict nothing."""
    if ids.shape[1] < 2:
        raise OptionError(f"sequences of {ids.shape[1]} token(s) predict nothing; expected at least 2 tokens")
    return [ids[i : i + size].to(device) for i in range(0, len(ids), size)]
