"""Which documents the tokens of a sequence are of, so that standard errors know which sequences are alike.

Not here: making sequences (calibration.py), and what follows for errors (srdd.core.units). A document is known by the
hash of its own token ids: parts of a run, each opened by itself, agree on it.

Worked number: documents of 6, 4 and 4 tokens in one row, cut at 8: the first sequence holds 6 tokens of the first and 2
of the second and is of the first; the other 2 of the second and 4 of the third, and is of the third.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Piece:
    """A part of a document in a sequence: `tokens` of them from its token `offset` on."""

    document: str
    offset: int
    tokens: int


@dataclass
class Row:
    """A run of token ids, one document after the other."""

    ids: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)  # of the documents
    _names: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, document: list[int]) -> Row:
        return cls(document, [0])

    def add(self, document: Sequence[int]) -> None:
        """One more document at the end; one without tokens is none."""
        if document:
            self.starts.append(len(self.ids))
            self.ids += document

    def pieces(self, begin: int, end: int) -> tuple[Piece, ...]:
        """What the tokens from `begin` to `end` are of, in order."""
        found = []
        for at in range(bisect_right(self.starts, begin) - 1, bisect_left(self.starts, end)):
            start = self.starts[at]
            first, last = max(begin, start), min(end, self._end(at))
            found.append(Piece(self._name(at), first - start, last - first))
        return tuple(found)

    def _end(self, at: int) -> int:
        return self.starts[at + 1] if at + 1 < len(self.starts) else len(self.ids)

    def _name(self, at: int) -> str:
        if at not in self._names:
            ids = np.asarray(self.ids[self.starts[at] : self._end(at)], dtype=np.int64)
            self._names[at] = hashlib.sha256(ids.tobytes()).hexdigest()[:16]
        return self._names[at]


def owner(pieces: Sequence[Piece], length: int) -> Piece:
    """The document that most of the first `length` tokens are of, the earlier of two with as many."""
    best: Piece | None = None
    left = length
    for piece in pieces:
        taken = Piece(piece.document, piece.offset, min(piece.tokens, max(left, 0)))
        left -= piece.tokens
        if best is None or taken.tokens > best.tokens:
            best = taken
    if best is None:
        raise ValueError("a sequence without pieces")
    return best
