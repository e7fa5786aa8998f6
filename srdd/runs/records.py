"""One record of a calibration file as a document: the forms that people's chat and training files have.

Not here: files (text_files.py), and what the model's chat template makes of messages (chats.py). The form is found for
each record from its own columns. What is read and what is left out is counted, so that `Counts` can say both.

Worked number: {"instruction": "Add.", "input": "1 + 1", "output": "2"} is the text "Add.\\n\\n1 + 1\\n\\n2" of the form
"instruction, input and output"; a column "id" beside them is not read, and counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from srdd.errors import CalibrationError, setting
from srdd.runs.messages import is_chat, messages_of

Document = str | list[dict[str, Any]]

_CHATS = ("messages", "conversations", "conversation", "dialogue", "dialog")
_CHOSEN = "chosen"  # of a pair of answers; the rejected one is a column that is not read
_ASKS = ("prompt", "instruction", "question", "query", "problem", "input")
_INPUTS = ("input", "context")
_ANSWERS = ("completion", "response", "output", "solution", "answer")
_TEXTS = ("text", "content")
_ROLES = ("user", "assistant")
_NAMED = 6  # columns that are not read, by name


@dataclass
class Counts:
    """What was read, by form, and what was left out, by kind: both in the order of their first record."""

    read: Counter[str] = field(default_factory=Counter)  # keys in the plural: "conversations of ShareGPT form"
    left_out: Counter[str] = field(default_factory=Counter)  # so too
    columns: Counter[str] = field(default_factory=Counter)  # that hold something and are not read

    def told(self) -> str:
        """ "8 conversations of ShareGPT form, 1 record of column 'text'"."""
        return ", ".join(_counted(count, form) for form, count in self.read.items())

    def missing(self) -> str:
        """ "3 parts of kind 'image'; columns 'id', 'source' of 12 records not read"; "" when nothing was left out."""
        said = [_counted(count, what) for what, count in self.left_out.items() if count]
        for count in dict.fromkeys(self.columns.values()):
            names = [name for name, times in self.columns.items() if times == count]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            one = "column" if len(names) == 1 else "columns"
            listed = ", ".join(map(repr, names[:_NAMED]))
            said.append(f"{one} {listed}{more} of {_counted(count, 'records')} not read")
        return "; ".join(said)


def document_of(record: Any, place: str, text_column: str | None, counts: Counts) -> Document:
    """The document of one record, counted. Raises CalibrationError that begins with `place`, as in "d.jsonl line 3"."""
    if text_column is None and isinstance(record, str):
        counts.read["texts"] += 1
        return record
    if text_column is None and is_chat(record):
        return _chat(record, place, counts)
    if not isinstance(record, dict):
        raise CalibrationError(f"{place}: expected an object, found {type(record).__name__}")
    if text_column is not None:
        if text_column not in record:
            raise _without_text(record, place, f"column {text_column!r}")
        return _column(record, text_column, place, counts)
    used, document = _found(record, place, counts)
    if not used:
        raise _without_text(record, place, "text column")
    for name in record:
        if name not in used and record[name] not in (None, "", [], {}):
            counts.columns[name] += 1
    return document


def _found(record: dict[str, Any], place: str, counts: Counts) -> tuple[tuple[str, ...], Document]:
    """The columns that were read and the document; no columns when there are none to read.

    Tables of several forms hold every column in every row: one that is filled goes before one that is not.
    """
    chat = next((name for name in _CHATS if record.get(name)), None)
    if chat is not None:
        document = _column(record, chat, place, counts)
        system = record.get("system")
        first = document[0]["role"] if isinstance(document, list) else "system"
        if isinstance(system, str) and system.strip() and first != "system":
            return (chat, "system"), [{"role": "system", "content": system}, *document]
        return (chat,), document
    if record.get(_TEXTS[0]):
        return (_TEXTS[0],), _column(record, _TEXTS[0], place, counts)
    asked = _first(record, _ASKS)
    # The answer of a multiple choice is a number: then the question is a text of its own.
    answered = _first({name: value for name, value in record.items() if _readable(value)}, (_CHOSEN, *_ANSWERS))
    if answered is not None and (asked is not None or answered == _CHOSEN):
        given = next((name for name in _INPUTS if name in record and name != asked), None)
        names = (asked, given, answered) if asked is not None else (answered,)
        return _pair(record, tuple(name for name in names if name is not None), place, counts)
    others = tuple(name for name, value in record.items() if is_chat(value))
    column = _first(record, (_TEXTS[1], *_ASKS, *others, *_CHATS, _TEXTS[0]))
    return ((column,), _column(record, column, place, counts)) if column is not None else ((), "")


def _first(record: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the columns that is filled, else the first that is there."""
    there = [name for name in names if name in record]
    return next((name for name in there if record[name]), there[0] if there else None)


def _column(record: dict[str, Any], column: str, place: str, counts: Counts) -> Document:
    """One column that holds a text or a conversation."""
    value = record[column]
    if isinstance(value, str):
        counts.read[f"records of column {column!r}"] += 1
        return value
    if value is None or value == []:
        counts.read[f"records of column {column!r}"] += 1
        return ""  # an empty row, which the packing leaves out and counts
    if column in _CHATS and isinstance(value, list) and all(isinstance(turn, str) for turn in value):
        counts.read["conversations of turns, the user's first"] += 1
        return [{"role": _ROLES[at % 2], "content": turn} for at, turn in enumerate(value)]
    if not is_chat(value):
        raise CalibrationError(
            f"{place}: {column!r} holds {_kind(value)}, expected text, or messages with 'role' and 'content' or 'from' "
            "and 'value'"
        )
    return _chat(value, f"{place}: {column!r}", counts)


def _chat(value: list[dict[str, Any]], place: str, counts: Counts) -> Document:
    form, messages = messages_of(value, place, counts.left_out)
    counts.read[f"conversations of {form} form"] += 1
    return messages


def _pair(
    record: dict[str, Any], names: tuple[str, ...], place: str, counts: Counts
) -> tuple[tuple[str, ...], Document]:
    """A prompt with its answer, each a text or messages, as one document."""
    for name in names:
        if not _readable(record[name]):
            raise CalibrationError(f"{place}: {name!r} holds {_kind(record[name])}, expected text or messages")
    filled = [(name, record[name]) for name in names if record[name]]
    for name in {names[0], names[-1]} if filled else ():  # with nothing filled it is an empty document
        if not record[name]:
            counts.left_out[f"records with an empty {name!r}"] += 1
    counts.read[
        f"records of {', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else f"records of {names[0]}"
    ] += 1
    if any(not isinstance(value, str) for _, value in filled):
        return names, _conversation(filled, place, counts)
    # A completion goes on where its prompt ends; an answer is a paragraph of its own.
    gap = "\n" if names[0] == "prompt" else "\n\n"
    text = ""
    for name, value in filled:
        if name == _CHOSEN and value.startswith(text):  # the whole dialogue again, with the answer
            text = value
        else:
            text += value if not text or text[-1].isspace() or value[0].isspace() else gap + value
    return names, text


def _conversation(filled: list[tuple[str, Any]], place: str, counts: Counts) -> list[dict[str, Any]]:
    """Messages of all columns in order. A chosen answer often holds the prompt's messages again: they count once."""
    conversation: list[dict[str, Any]] = []
    for name, value in filled:
        if isinstance(value, str):
            messages = [{"role": "assistant" if name in (_CHOSEN, *_ANSWERS) else "user", "content": value}]
        else:
            messages = messages_of(value, f"{place}: {name!r}", counts.left_out)[1]
        again = messages[: len(conversation)] == conversation
        conversation += messages[len(conversation) :] if again else messages
    return conversation


def _without_text(record: dict[str, Any], place: str, wanted: str) -> CalibrationError:
    has = f"it has {', '.join(map(repr, record))}" if record else "it is empty"
    return CalibrationError(f"{place} has no {wanted}; {has}; use {setting('text_column')}")


def _kind(value: Any) -> str:
    if isinstance(value, list) and value:
        odd = next((at for at, item in enumerate(value, 1) if not isinstance(item, dict)), 1)
        item = value[odd - 1]
        keys = f"an object with {', '.join(map(repr, item)) or 'nothing'}" if isinstance(item, dict) else ""
        return f"a list whose item {odd} is {keys or type(item).__name__}"
    return type(value).__name__


def _readable(value: Any) -> bool:
    return value is None or value == [] or isinstance(value, str) or is_chat(value)


def _counted(count: int, plural: str) -> str:
    first, space, rest = plural.partition(" ")
    return f"{count} {first.removesuffix('s') if count == 1 else first}{space}{rest}"
