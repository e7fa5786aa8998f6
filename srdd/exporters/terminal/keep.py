"""Every keep-list that the first screen names, group by group, in the order in which groups are kept.

Not here: the order (srdd.analysis.keep).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.core.metrics import significant

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from srdd.analysis.choices import Choice


def show(out: Console, choices: Iterable[Choice]) -> None:
    """One table for each pair of formats, as long as the longest of its lists."""
    longest: dict[tuple[str, str], Choice] = {}
    for one in choices:
        if one.found is not None:
            pair = one.found.base, one.found.higher
            longest[pair] = max(longest.get(pair, one), one, key=lambda choice: choice.kept)
    for (base, higher), one in longest.items():
        assert one.found is not None
        title = f"{base}: groups to keep in {higher}, what saves most per bit first; predicted KL with all up to here"
        table = Table(title=escape(title), title_justify="left")
        table.add_column("", justify="right", no_wrap=True)
        table.add_column("group")
        for heading in ("bits a value", "KL nats/token"):
            table.add_column(heading, justify="right", no_wrap=True)
        knee = one.found.knee
        for mix in one.found.steps[1 : one.kept + 1]:
            name = escape(mix.last.name) if mix.last is not None else ""
            mark = " (knee)" if knee is not None and mix.kept == knee.kept else ""
            table.add_row(str(mix.kept), name + mark, f"{mix.bits:.2f}", significant(mix.kl, mix.error))
        out.print(table)
