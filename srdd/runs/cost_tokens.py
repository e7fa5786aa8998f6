"""The tokens of a scan that its costs are measured on: the first of several sequences.

Not here: measuring. Several short sequences, of several documents, give better errors than one long one.

Worked number: of 16 sequences of 512 tokens, 1,280 tokens are the first 160 of 8; 8,192 are all.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from torch import Tensor

from srdd.errors import SettingError
from srdd.runs.calibration import Sequences

DEFAULT = 1280
_LENGTH = 160  # of a sequence, unless the text has too few of them: eight short texts give better errors than five
_FEWEST = 4  # two sequences of two tokens


def cost_sequences(sequences: Tensor | Sequences, tokens: int | None = None) -> Sequences:
    """At most `tokens` of them, by default 1,280 or all; two sequences at least, where there are two.

    Raises SettingError for fewer than 4, or more than there are.
    """
    ids = sequences if isinstance(sequences, Tensor) else sequences.token_ids
    count, length = ids.shape
    if tokens is not None and tokens < _FEWEST:
        raise SettingError("cost_tokens", tokens, f"expected at least {_FEWEST}")
    if tokens is not None and tokens > ids.numel():
        raise SettingError("cost_tokens", tokens, f"the text that is run has {ids.numel()} tokens")
    wanted = min(DEFAULT, ids.numel()) if tokens is None else tokens
    taken = min(count, max(wanted // min(length, _LENGTH), min(2, count)))
    short = min(length, wanted // taken)
    places = _different(ids, short, taken)
    some = ids[places, :short]
    if short == length and len(some) == count:
        dropped = "" if isinstance(sequences, Tensor) else sequences.dropped
    else:
        dropped = f"costs: the first {short} tokens of {len(some)} of {count} sequences"
    if isinstance(sequences, Tensor):
        digest = hashlib.sha256(ids.cpu().numpy().tobytes()).hexdigest()
        return Sequences(some, "token ids given", digest, dropped, 0)
    pieces = tuple(sequences.pieces[place] for place in places) if sequences.pieces else ()
    return replace(sequences, token_ids=some, dropped=dropped, pieces=pieces)


def _different(ids: Tensor, length: int, count: int) -> list[int]:
    """Places of the first sequences whose beginnings differ: a sequence counts once."""
    first: dict[tuple[int, ...], int] = {}
    for at, row in enumerate(ids[:, :length].tolist()):
        first.setdefault(tuple(row), at)
    return list(first.values())[:count]
