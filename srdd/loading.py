"""What loading a checkpoint into a model leaves open: which class, weights that one has and the other lacks.

Not here: opening (source.py). Worked number: BertForMaskedLM's checkpoint is opened as the encoder alone, so the 5
tensors of its head are not measured, and a note says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from srdd.errors import SourceError


def headless(names: Iterable[str]) -> Any:
    """The class for a checkpoint that is no causal language model: its own when that has no head, else AutoModel's.

    AutoModel goes by the model's type alone: it would put a random decoder beside the weights of a T5EncoderModel.
    """
    import transformers

    own = sorted(name for name in names if name.endswith("Model") and "Head" not in name)
    return getattr(transformers, own[0], transformers.AutoModel) if own else transformers.AutoModel


def unread_part(model: nn.Module, unexpected: Sequence[str]) -> tuple[str, ...]:
    """A note on weights of the checkpoint that the model has no place for, as the head of a masked language model."""
    if not unexpected:
        return ()
    return (
        f"{len(unexpected)} tensor(s) of the checkpoint are no part of {type(model).__name__} and not measured, "
        f"{unexpected[0]} among them; `srdd scan --sites weight` reads them too",
    )


def random_part(model: nn.Module, missing: list[str], label: str, causal: bool) -> tuple[str, ...]:
    """transformers fills weights that the checkpoint lacks with random numbers, and only logs it.

    An encoder saved without its pooler is usual, and a note will do. Anything more would be a scan of noise.
    """
    if not missing:
        return ()
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    share = sum(sizes.get(name, 0) for name in missing) / max(sum(sizes.values()), 1)
    found = f"{len(missing)} weights of its architecture ({share:.1%} of the parameters), {missing[0]} among them"
    if causal or share > 0.1:
        raise SourceError(f"{label} lacks {found}; get the checkpoint again, or correct architectures in config.json")
    return (f"the checkpoint lacks {found}; they hold random values and their rows mean nothing",)
