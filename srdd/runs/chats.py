"""Conversations as texts, by the chat template of the model's tokenizer.

Not here: reading conversations (records.py, messages.py). A template is a program of the model's makers: what it
refuses (roles that do not alternate, say) is left out and counted, and so are the tool calls that it has no words for.

Worked number: of 12 conversations of which one begins with the answer, Llama's template may refuse that one; 11 are
read, and "1 conversation that the chat template refused" is said with the reason.
"""

from __future__ import annotations

from typing import Any

from srdd.errors import CalibrationError
from srdd.runs.records import Counts, Document

_CALLS = ("tool_calls", "function_call")


def as_texts(documents: list[Document], tokenizer: Any, source: str, counts: Counts) -> list[tuple[str, bool]]:
    """Each document as a text, and whether a template wrote it, special tokens and all.

    Raises CalibrationError for conversations without a template, and when it refuses all of them.
    """
    template = getattr(tokenizer, "chat_template", None)
    texts, refused, chats = [], [], 0
    for document in documents:
        if isinstance(document, str):
            texts.append((_whole(document, counts), False))
            continue
        if template is None:
            raise CalibrationError(f"{source} holds chat messages, but this model's tokenizer has no chat template")
        chats += 1
        try:
            texts.append((_whole(str(tokenizer.apply_chat_template(document, tokenize=False)), counts), True))
        except Exception as problem:  # templates are programs of strangers
            refused.append(" ".join(str(problem).encode("utf-8", "backslashreplace").decode().split()))
            continue
        for name in _CALLS:
            if name not in str(template):
                hidden = sum(bool(message.get(name)) for message in document)
                counts.left_out[f"messages whose {name} the chat template does not show"] += hidden
    if chats and len(refused) == chats:
        every = "a conversation" if chats == 1 else f"all {chats} conversations"
        raise CalibrationError(f"{source}: the model's chat template refused {every}: {refused[0]}")
    if refused:
        counts.left_out[f"conversations that the chat template refused ({refused[0][:100]})"] += len(refused)
    return texts


def _whole(text: str, counts: Counts) -> str:
    """The text without halves of surrogate pairs, which JSON can hold and no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        counts.left_out["texts with half a character, which was replaced"] += 1
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
