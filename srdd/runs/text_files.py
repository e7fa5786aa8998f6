"""Calibration files as documents: plain text, JSON lines, JSON, parquet.

Not here: tokens (calibration.py). A text document is a string, or a list of chat messages for the model's own template.
In plain text a line holding exactly `%%` separates documents.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from srdd.errors import CalibrationError, MissingExtraError, NoEffectError, setting

Document = str | list[dict[str, Any]]
SUFFIXES = (".txt", ".jsonl", ".json", ".parquet", ".npz")
_TEXT_COLUMNS = ("text", "content", "prompt", "question", "instruction")


def from_text(text: str) -> list[Document]:
    """Split at lines holding exactly `%%`; without one the whole text is one document."""
    parts: list[list[str]] = [[]]
    for line in text.split("\n"):  # not splitlines(), which also cuts at characters that may stand inside a text
        if line.rstrip("\r") == "%%":
            parts.append([])
        else:
            parts[-1].append(line)
    return [joined for part in parts if (joined := "\n".join(part).strip("\r\n"))]


def from_file(path: Path, text_column: str | None) -> list[Document]:
    """The documents of a file by its suffix. Raises CalibrationError with the place of what is wrong."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return list(_documents(_parquet_rows(path), path, text_column))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise CalibrationError(f"{path.name} is not UTF-8 (byte {problem.start}); convert it") from problem
    if suffix == ".txt":
        if text_column is not None:
            raise NoEffectError("text_column", f"on {path.name}, which is plain text without columns")
        return from_text(text)
    rows = _json_lines(text, path) if suffix == ".jsonl" else _json_rows(text, path)
    return list(_documents(rows, path, text_column))


def _json_lines(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as problem:
                raise CalibrationError(f"{path.name} line {number} is no JSON: {problem}") from problem


def _json_rows(text: str, path: Path) -> list[tuple[str, Any]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise CalibrationError(f"{path.name} is no JSON: {problem}; one object per line is .jsonl") from problem
    if not isinstance(rows, list):
        raise CalibrationError(f"{path.name}: expected a list of objects, found {type(rows).__name__}")
    return [(f"row {number}", row) for number, row in enumerate(rows, 1)]


def _parquet_rows(path: Path) -> list[tuple[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("parquet files need pyarrow: pip install 'srdd[parquet]'") from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except Exception as problem:  # pyarrow's own error types, and OSError
        raise CalibrationError(f"{path.name} is no readable parquet file: {problem}") from problem
    return [(f"row {number}", row) for number, row in enumerate(rows, 1)]


def _documents(rows: Iterable[tuple[str, Any]], path: Path, text_column: str | None) -> Iterator[Document]:
    for place, row in rows:
        if isinstance(row, str) and text_column is None:
            yield row
            continue
        if not isinstance(row, dict):
            raise CalibrationError(f"{path.name} {place}: expected an object, found {type(row).__name__}")
        columns = (text_column,) if text_column is not None else ("messages", *_TEXT_COLUMNS)
        column = next((name for name in columns if name in row), None)
        if column is None:
            wanted = f"column {text_column!r}" if text_column else "text column"
            raise CalibrationError(
                f"{path.name} {place} has no {wanted}; it has {', '.join(map(repr, row))}; use {setting('text_column')}"
            )
        value = row[column]
        if value is None or value == []:
            value = ""  # an empty row, which the packing leaves out and counts
        chat = isinstance(value, list) and all(isinstance(m, dict) and {"role", "content"} <= set(m) for m in value)
        if not isinstance(value, str) and not chat:
            raise CalibrationError(
                f"{path.name} {place}: {column!r} holds {type(value).__name__}, expected text or chat messages"
            )
        yield value
