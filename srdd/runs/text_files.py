"""Calibration files as documents: plain text, JSON lines, JSON, parquet.

Not here: what one record is (records.py), and tokens (calibration.py). A text document is a string, or a list of chat
messages for the model's own template. In plain text a line holding exactly `%%` separates documents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from srdd.errors import CalibrationError, MissingExtraError, NoEffectError
from srdd.runs.records import Counts, Document, document_of

SUFFIXES = (".txt", ".jsonl", ".json", ".parquet", ".npz")


def from_text(text: str) -> list[Document]:
    """Split at lines holding exactly `%%`; without one the whole text is one document."""
    parts: list[list[str]] = [[]]
    for line in text.split("\n"):  # not splitlines(), which also cuts at characters that may stand inside a text
        if line.rstrip("\r") == "%%":
            parts.append([])
        else:
            parts[-1].append(line)
    return [joined for part in parts if (joined := "\n".join(part).strip("\r\n"))]


def from_file(path: Path, text_column: str | None, counts: Counts) -> list[Document]:
    """The documents of a file by its suffix, counted. Raises CalibrationError with the place of what is wrong."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return [document_of(row, place, text_column, counts) for place, row in _parquet_rows(path)]
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise CalibrationError(f"{path.name} is not UTF-8 (byte {problem.start}); convert it") from problem
    if suffix == ".txt":
        if text_column is not None:
            raise NoEffectError("text_column", f"on {path.name}, which is plain text without columns")
        texts = from_text(text)
        counts.read["texts"] += len(texts)
        return texts
    rows = _json_lines(text, path) if suffix == ".jsonl" else _json_rows(text, path)
    return [document_of(row, place, text_column, counts) for place, row in rows]


def _json_lines(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"{path.name} line {number}", json.loads(line)
            except (ValueError, RecursionError) as problem:
                raise CalibrationError(f"{path.name} line {number} is no JSON: {problem}") from problem


def _json_rows(text: str, path: Path) -> list[tuple[str, Any]]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as problem:
        # Extra data after a whole first value: one object per line, as many tools call .json too
        if problem.msg == "Extra data" and "\n" in text.strip():
            return list(_json_lines(text, path))
        raise CalibrationError(f"{path.name} is no JSON: {problem}; one object per line is .jsonl") from problem
    except (ValueError, RecursionError) as problem:
        raise CalibrationError(f"{path.name} is no JSON: {problem}; one object per line is .jsonl") from problem
    if not isinstance(rows, list):
        raise CalibrationError(f"{path.name}: expected a list of objects, found {type(rows).__name__}")
    return [(f"{path.name} row {number}", row) for number, row in enumerate(rows, 1)]


def _parquet_rows(path: Path) -> list[tuple[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("parquet files need pyarrow: pip install 'srdd[parquet]'") from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except Exception as problem:  # pyarrow's own error types, and OSError
        raise CalibrationError(f"{path.name} is no readable parquet file: {problem}") from problem
    return [(f"{path.name} row {number}", row) for number, row in enumerate(rows, 1)]
