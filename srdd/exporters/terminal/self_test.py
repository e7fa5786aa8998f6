"""The self-test of the search for faults: what was planted, what was found, and the smallest size that was.

Not here: planting (srdd.runs.faults.self_test).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rich.table import Table

from srdd.core.faults import KINDS

if TYPE_CHECKING:
    from rich.console import Console


class Trial(Protocol):
    """What a table needs of a trial."""

    @property
    def planted(self) -> str: ...
    @property
    def found(self) -> str: ...
    @property
    def size(self) -> float: ...
    @property
    def is_located(self) -> bool: ...


def show(out: Console, trials: Sequence[Trial]) -> None:
    """The confusion matrix, and a line for every kind."""
    columns = [*KINDS, *sorted({t.found for t in trials} - {*KINDS, ""}), ""]
    columns = [name for name in columns if any(t.found == name for t in trials)]
    matrix = Table(title="Planted (rows) and found (columns)", title_justify="left")
    matrix.add_column("planted")
    for name in columns:
        matrix.add_column(name.replace("_", " ") or "nothing", justify="right")
    for kind in ("none", *KINDS):
        mine = [t for t in trials if t.planted == kind]
        counts = [sum(t.found == name for t in mine) for name in columns]
        matrix.add_row(kind.replace("_", " "), *(str(n) if n else "." for n in counts))
    out.print(matrix)
    sizes = Table(title="Smallest size", title_justify="left")
    for heading in ("kind", "planted from", "located from", "and named from", "located"):
        sizes.add_column(heading, justify="left" if heading == "kind" else "right")
    for kind in KINDS:
        mine = sorted((t for t in trials if t.planted == kind), key=lambda t: t.size)
        located = [t for t in mine if t.is_located]
        named = [t for t in located if t.found == kind]
        if mine:
            smallest = (f"{some[0].size:g}" if some else "-" for some in (located, named))
            share = f"{len(located)} of {len(mine)}"
            sizes.add_row(kind.replace("_", " "), f"{mine[0].size:g}", *smallest, share)
    out.print(sizes)
