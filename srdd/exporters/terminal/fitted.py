"""A console that cuts no table: numbers keep their width, words wrap, and what still does not fit runs on.

Rich would shorten any column with an ellipsis, numbers too. Where a table is wider than the terminal, headings wrap
first, then words; then the space around cells and the outer frame go. A table that needs still more is printed at the
width it needs, and the terminal wraps its lines.

Not here: what tables hold.

Worked number: in 30 columns of a terminal, cells "18.74 ± 0.12" (a number, 12 wide) and "layers 0, 1, 2, 3" (words, at
least 6 and at most 17 wide) with 7 for the frame leave 11 to the words: they wrap onto two lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

from srdd.errors import WriteError
from srdd.exporters.terminal import HungUpError

_UNLIMITED = 10_000
_LONG_WORD = 16  # a name of a module may be folded beyond this


class _Span(NamedTuple):
    """How narrow a column may be, how wide its longest cell is, and how wide it is with its heading on one line."""

    least: int
    cells: int
    most: int


class FittedConsole(Console):
    """Prints tables whole."""

    def on_broken_pipe(self) -> None:
        """Rich would exit with 1, a failed check."""
        raise HungUpError

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich does, but a table that does not fit is narrowed first and never cropped.

        Raises WriteError where there is no room.
        """
        for table in objects:
            if isinstance(table, Table) and fit(self, table) > self.width:
                options["crop"] = False
        try:
            super().print(*objects, **options)
        except OSError as problem:
            raise WriteError(f"cannot write the output: {problem.strerror}; make room, or redirect it") from None


def fit(console: Console, table: Table) -> int:
    """Set widths so that no number is cut, in the console's width where possible. The table's width."""
    spans = [_span(console, column) for column in table.columns]
    natural = _measure(console, table).maximum
    if natural <= console.width:
        return natural
    frame = natural - sum(span.most for span in spans)
    if frame + sum(span.least for span in spans) > console.width:
        table.padding, table.show_edge = (0, 0), False
        frame = _measure(console, table).maximum - sum(span.most for span in spans)
    widths = _shared(console.width - frame, spans)
    for column, width in zip(table.columns, widths, strict=True):
        column.width, column.no_wrap, column.overflow = width, False, "fold"
    table.width = frame + sum(widths)
    return table.width


def _measure(console: Console, what: Any) -> Measurement:
    return Measurement.get(console, console.options.update_width(_UNLIMITED), what)


def _span(console: Console, column: Column) -> _Span:
    """A number is as wide as it is; its heading and words may wrap."""
    heading = _measure(console, column.header)
    cells = [_measure(console, cell) for cell in column.cells] or [heading]
    longest = max(cell.maximum for cell in cells)
    least = longest if column.justify == "right" else max(min(cell.minimum, _LONG_WORD) for cell in cells)
    return _Span(max(least, heading.minimum), longest, max(longest, heading.maximum))


def _shared(room: int, spans: Sequence[_Span]) -> list[int]:
    """What is left over goes to the narrowest column that wants more, one by one: to cells first, then to headings."""
    widths = [span.least for span in spans]
    for wanted in ([span.cells for span in spans], [span.most for span in spans]):
        while sum(widths) < room and (wanting := [i for i, width in enumerate(widths) if width < wanted[i]]):
            widths[min(wanting, key=widths.__getitem__)] += 1
    return widths
