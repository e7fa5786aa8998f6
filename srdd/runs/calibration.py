"""Calibration data: text or token ids, packed into sequences of equal length without padding.

Not here: the forms of files (text_files.py, records.py), checking token ids against a model (token_ids.py), and which
sequences are one unit of uncertainty (srdd.core.units). Documents are shuffled by the seed and tokenized, a separator
(the end-of-text token, if there is one) follows each, and the stream is cut. What does not fill a sequence, or is more
than was asked for, is dropped, and `dropped` says so, with what the file held and nobody read. Every sequence keeps
which documents its tokens are of (pieces.py).

Worked number: three documents of 5, 3 and 4 tokens with separators are 15 tokens; at 4 a sequence that is three
sequences and 3 tokens dropped, of the first, the second and the third document.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srdd.core.files import readable
from srdd.errors import CalibrationError, NoEffectError, SettingError, setting
from srdd.runs.chats import as_texts
from srdd.runs.pieces import Piece, Row
from srdd.runs.records import Counts, Document
from srdd.runs.text_files import SUFFIXES, from_file, from_text

DEFAULT_SOURCE = "srdd's own text"


@dataclass(frozen=True)
class Sequences:
    """Token ids int64 [count, length] and where they come from. `dropped` is "" when nothing was left out.

    `read` names what the file held: "12 conversations of ShareGPT form"; "" for srdd's own text.

    `pieces` are the documents that the tokens of each sequence are of; empty: not known, and then every sequence is a
    unit of uncertainty of its own.
    """

    token_ids: Tensor
    source: str
    data_sha256: str
    dropped: str
    seed: int
    pieces: tuple[tuple[Piece, ...], ...] = ()
    read: str = ""


def load_sequences(
    data: Path | None,
    tokenizer: Any,
    *,
    text_column: str | None = None,
    samples: int = 16,
    seq_len: int = 512,
    seed: int = 0,
    vocab_size: int | None = None,
    max_seq_len: int | None = None,
) -> Sequences:
    """At most `samples` sequences of `seq_len` tokens from `data`, or from srdd's own text.

    Raises SettingError for numbers out of range and CalibrationError for data that is missing, unreadable or too short.
    """
    check(data, text_column=text_column, samples=samples, seq_len=seq_len, seed=seed)
    raw, source = _read(data)
    stored_ids = data is not None and data.suffix.lower() == ".npz"
    if tokenizer is None and not stored_ids:
        raise CalibrationError(f"this model has no tokenizer; give token ids in an .npz file with {setting('data')}")
    if max_seq_len is not None and seq_len > max_seq_len:
        most = f"this model takes at most {max_seq_len} tokens; give {setting('seq_len', max_seq_len)}"
        raise SettingError("seq_len", seq_len, most)
    digest = hashlib.sha256(raw).hexdigest()
    counts, skipped = Counts(), 0
    if data is not None and stored_ids:
        rows = _from_npz(data, seq_len)
        counts.read["rows of token ids"] += len(rows)
    else:
        documents = from_text(raw.decode("utf-8")) if data is None else from_file(data, text_column, counts)
        filled = [d for d in documents if not isinstance(d, str) or d.strip()]
        skipped = len(documents) - len(filled)
        random.Random(seed).shuffle(filled)
        rows = [_stream(filled, tokenizer, source, counts)]
    ids, pieces, dropped = _cut(rows, samples, seq_len, source)
    empty = _counted(skipped, "empty document") if skipped else ""
    dropped = "; ".join(filter(None, (dropped, empty, counts.missing())))
    largest = (vocab_size or 2**31) - 1
    if int(ids.max()) > largest or int(ids.min()) < 0:
        raise CalibrationError(
            f"{source} holds token ids {int(ids.min())} to {int(ids.max())}; this model has 0 to {largest}"
        )
    return Sequences(ids, source, digest, dropped, seed, pieces, counts.told())


def check(
    data: Path | None, *, text_column: str | None, samples: int, seq_len: int, seed: int, batch_size: int = 1
) -> None:
    """All that can be refused before a model is opened. Raises what `load_sequences` raises."""
    if samples < 1:
        raise SettingError("samples", samples, "expected at least 1")
    if seq_len < 2:
        raise SettingError("seq_len", seq_len, "expected at least 2")
    if seed < 0:
        raise SettingError("seed", seed, "expected 0 or more")
    check_batch_size(batch_size)
    if data is None and text_column is not None:
        raise NoEffectError("text_column", f"without {setting('data')}")
    if data is None:
        return
    if data.suffix.lower() not in SUFFIXES:
        raise CalibrationError(f"{setting('data', data.name)}: unknown kind of file; expected {', '.join(SUFFIXES)}")
    if data.suffix.lower() == ".npz" and text_column is not None:
        raise NoEffectError("text_column", f"on {data.name}, which holds token ids")
    with _readable(data):
        data.open("rb").close()


def check_batch_size(batch_size: int) -> None:
    """Raises SettingError."""
    if batch_size < 1:
        raise SettingError("batch_size", batch_size, "expected at least 1")


def _read(data: Path | None) -> tuple[bytes, str]:
    if data is None:
        return files("srdd.runs").joinpath("calibration.txt").read_bytes(), DEFAULT_SOURCE
    with _readable(data):
        raw = data.read_bytes()
    if not raw.strip():
        raise CalibrationError(f"{setting('data', data.name)} is empty")
    return raw, readable(data.name)


@contextmanager
def _readable(data: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise CalibrationError(f"{setting('data', data)}: no such file") from None
    except OSError as problem:
        raise CalibrationError(f"{setting('data', data)}: {problem.strerror}") from problem


def _stream(documents: list[Document], tokenizer: Any, source: str, counts: Counts) -> Row:
    """All documents as one run of token ids, each followed by the end-of-text token unless it ends with it."""
    end = tokenizer.eos_token_id
    stream = Row()
    for text, chat in as_texts(documents, tokenizer, source, counts):
        # A template writes the special tokens itself.
        # verbose=False: a document longer than the model's context is no problem here, it will be cut
        encoded = tokenizer(text, verbose=False, return_attention_mask=False, add_special_tokens=not chat)
        ids = list(encoded["input_ids"])
        if end is not None and (not ids or ids[-1] != end):
            ids.append(end)
        stream.add(ids)
    return stream


def _from_npz(path: Path, seq_len: int) -> list[Row]:
    """One integer array: 1-D is a stream to cut, each row of a 2-D one is cut by itself; rows stay in order.

    Each row is a document, a stream is one.
    """
    try:
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ValueError("it holds a bare array; write it with numpy.savez")
        with stored:
            arrays = {name: stored[name] for name in stored.files}
    except Exception as problem:  # numpy raises ValueError, OSError, BadZipFile, EOFError
        raise CalibrationError(f"{path.name} is no readable .npz file: {problem}") from problem
    if len(arrays) != 1:
        raise CalibrationError(f"{path.name}: expected one array of token ids, found {sorted(arrays)}")
    array = next(iter(arrays.values()))
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        raise CalibrationError(
            f"{path.name}: expected integers in 1 or 2 dimensions, found {array.dtype} {array.shape}"
        )
    if array.size and int(array.max()) >= 2**31:
        raise CalibrationError(f"{path.name} holds token id {int(array.max())}, which no model has")
    if array.ndim == 2 and array.shape[1] < seq_len:
        lower = f"lower {setting('seq_len', seq_len)} to that"
        raise CalibrationError(f"{path.name}: rows hold {array.shape[1]} tokens; {lower}")
    return [Row.of(row.tolist()) for row in np.atleast_2d(array)]


def _cut(rows: list[Row], samples: int, seq_len: int, source: str) -> tuple[Tensor, tuple[tuple[Piece, ...], ...], str]:
    starts = [(row, i) for row in rows for i in range(0, len(row.ids) - seq_len + 1, seq_len)]
    first: dict[tuple[int, ...], tuple[Row, int]] = {}
    for row, i in starts:  # a sequence counts once: a repeat would understate the standard errors
        first.setdefault(tuple(row.ids[i : i + seq_len]), (row, i))
    have = sum(len(row.ids) for row in rows)
    if not first:
        raise CalibrationError(
            f"{source} gives {have} tokens, less than one sequence of {seq_len}; lower {setting('seq_len')} or give "
            "more text"
        )
    kept = list(first)[:samples]
    notes = []
    if len(kept) < samples:
        notes.append(f"only {len(kept)} of {samples} sequences: {source} has {have} tokens")
    if len(first) < len(starts):
        notes.append(_counted(len(starts) - len(first), "repeated sequence"))
    unused = have - len(kept) * seq_len
    if unused:
        notes.append(f"{unused} of {have} tokens not used")
    pieces = tuple(row.pieces(i, i + seq_len) for row, i in (first[ids] for ids in kept))
    return torch.tensor(kept, dtype=torch.int64), pieces, "; ".join(notes)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
