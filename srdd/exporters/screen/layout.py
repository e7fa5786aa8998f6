"""The first screen's paper: sections under a word, aligned columns, bars, and signs that the terminal can write.

Lines are made for at most 80 columns; a narrower terminal wraps them between words, and nothing is cut.

Not here: what is said (srdd.exporters.terminal.screen, classic.py).
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

WIDTH, LINES = 80, 28
INDENT = 10  # of what stands beside a section's word
_BAR = 18
# what a log in ASCII can write
_PLAIN = {"█": "#", "±": "+-", " · ": "; ", "·": ";"}


class Paper:
    """Lines, in order; `say` makes text writable, so that columns are aligned as they will be seen."""

    def __init__(self, encoding: str) -> None:
        self._plain = {sign: plain for sign, plain in _PLAIN.items() if not _can_write(encoding, sign)}
        self._encoding = encoding
        self.lines: list[str] = []

    def say(self, text: str) -> str:
        for sign, plain in self._plain.items():
            text = text.replace(sign, plain)
        return text.encode(self._encoding, "replace").decode(self._encoding)

    def add(self, text: str = "", indent: int = 0) -> None:
        """A line, wrapped where it is too long; what follows is indented."""
        self.lines += _wrapped(self.say(text), indent)

    def section(self, word: str, text: str = "") -> None:
        """A section's word in capitals and what stands beside it."""
        self.add(f"{word:<{INDENT}}{text}".rstrip(), INDENT)

    def items(self, word: str, texts: Sequence[str], between: str) -> None:
        """A section of texts that are not broken inside: a command is pasted whole."""
        line = f"{word:<{INDENT}}"
        for place, text in enumerate(map(self.say, texts)):
            joined = f"{line}{self.say(between) if place else ''}{text}"
            if len(joined) > WIDTH and place:
                self.lines.append(line)
                joined = " " * INDENT + text
            line = joined
        self.lines.append(line.rstrip())

    def columns(self, rows: Sequence[Sequence[str]], indent: int = 2, gap: int = 2) -> None:
        """Rows of cells under each other."""
        cells = [[self.say(cell) for cell in row] for row in rows]
        widths = [max(len(row[at]) for row in cells) for at in range(len(cells[0]))]
        for row in cells:
            line = (" " * gap).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.add(" " * indent + line.rstrip(), INDENT)

    def bar_room(self, others: int) -> int:
        """How long the longest bar may be where the rest of the line takes `others` columns."""
        return max(min(_BAR, WIDTH - others), 4)

    def bar(self, share: float, room: int) -> str:
        """A bar of its share of `room`; what is not 0 is seen."""
        return self.say("█" * max(round(share * room), 1 if share > 0 else 0))

    def print(self, out: Console) -> None:
        """Section words are bold, bars and grave words coloured where the terminal shows colours."""
        for line in self.lines:
            text = Text(line)
            text.highlight_regex(r"^[A-Z][A-Z ]{2,8}[A-Z](?= |$)", "bold")
            text.highlight_regex(r"[█]+", "cyan")
            text.highlight_regex(r"\btoo much\b", "red")
            out.print(text)


def encoding_of(out: Console) -> str:
    """What the console writes; a stream without an encoding takes all."""
    return out.encoding or "utf-8"


def _can_write(encoding: str, sign: str) -> bool:
    try:
        sign.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _wrapped(text: str, indent: int) -> list[str]:
    if len(text) <= WIDTH:
        return [text]
    lead = text[: len(text) - len(text.lstrip())]
    after = " " * max(indent, len(lead))
    return textwrap.wrap(
        text.strip(), WIDTH, initial_indent=lead, subsequent_indent=after, break_long_words=True, break_on_hyphens=False
    )
