"""Conversations as the messages that chat templates take: {"role": ..., "content": text, ...}.

Not here: which column of a record holds them (records.py). Two forms are known: OpenAI's (role, content) and
ShareGPT's (from, value). A template wants text: parts of a content are joined, and parts that are no text (pictures,
sounds) are left out and counted.

Worked number: {"from": "gpt", "value": "4"} is {"role": "assistant", "content": "4"}; a content of
[{"type": "text", "text": "What is"}, {"type": "image"}, {"type": "text", "text": "this?"}] is "What is\\nthis?", and
one part of kind 'image' is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from srdd.errors import CalibrationError

# Who speaks in ShareGPT files and what was made of them.
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "function_call": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
}
_MISNAMED = ("human", "gpt", "chatgpt", "bot", "model")  # ShareGPT's names under the other form's key
_SAID = ("value", "text", "content")  # in ShareGPT's order; the other form has them the other way round
_TEXT_PARTS = ("text", "input_text", "output_text")
_CALLS = ("tool_calls", "function_call")


def is_chat(value: Any) -> bool:
    """A list of messages of one of the two forms, at least one; their values are looked at by `messages_of`."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and ("role" in item or _is_share(item)) for item in value)
    )


def _is_share(item: dict[str, Any]) -> bool:
    return "from" in item and any(name in item for name in _SAID)


def messages_of(value: list[dict[str, Any]], place: str, left_out: Counter[str]) -> tuple[str, list[dict[str, Any]]]:
    """The form, and messages with a role and a text each. Raises CalibrationError for a message of neither form."""
    forms = {"ShareGPT" if "role" not in message else "messages" for message in value}
    messages = [_message(item, f"{place} message {number}", left_out) for number, item in enumerate(value, 1)]
    return "ShareGPT" if forms == {"ShareGPT"} else "messages", messages


def _message(item: dict[str, Any], place: str, left_out: Counter[str]) -> dict[str, Any]:
    share = "role" not in item
    who = item["from"] if share else item["role"]
    if not isinstance(who, str):
        raise CalibrationError(f"{place}: {'from' if share else 'role'!r} holds {type(who).__name__}, expected text")
    # Tables of several forms of message hold every key in every row, most of them empty.
    rest = {name: found for name, found in item.items() if found is not None}
    said = next((name for name in (_SAID if share else _SAID[::-1]) if name in rest), "content")
    content = rest.pop(said, None)
    if not share:
        rest["role"] = _SPEAKERS[who] if who in _MISNAMED else who
        return {**rest, "content": _content(content, rest, place, left_out), **_calls(rest)}
    role = _SPEAKERS.get(who.strip().lower())
    if role is None:
        raise CalibrationError(f"{place} is from {who!r}; known: {', '.join(_SPEAKERS)}")
    return {"role": role, "content": _content(content, rest, place, left_out)}


def _content(content: Any, rest: dict[str, Any], place: str, left_out: Counter[str]) -> str:
    """The text of a content; "" for one that only calls tools, since templates join texts."""
    if isinstance(content, str):
        return content
    if content is None:
        if not any(rest.get(name) for name in _CALLS):
            left_out["messages without content"] += 1
        return ""
    if not isinstance(content, list):
        raise CalibrationError(f"{place}: its content is {type(content).__name__}, expected text or a list of parts")
    texts = []
    for part in content:
        text = part if isinstance(part, str) else _text_of(part, place)
        if text is None:
            left_out[f"parts of kind {part.get('type')!r}"] += 1
        else:
            texts.append(text)
    return "\n".join(texts)


def _text_of(part: Any, place: str) -> str | None:
    """The text of a part of a content; None for one that is no text."""
    if not isinstance(part, dict):
        raise CalibrationError(f"{place}: a part of its content is {type(part).__name__}, expected an object")
    if part.get("type", "text") not in _TEXT_PARTS:
        return None
    text = part.get("text")
    if not isinstance(text, str):
        raise CalibrationError(f"{place}: a text part holds {type(text).__name__}, expected text")
    return text


def _calls(rest: dict[str, Any]) -> dict[str, Any]:
    """Tool calls with their arguments as objects: OpenAI's files have them as text, templates walk through them."""
    calls = rest.get("tool_calls")
    if not isinstance(calls, list):
        return {}
    return {"tool_calls": [_call(call) for call in calls]}


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call  # as it is: the template shows what the model wrote
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call
