"""Tables on a terminal: numbers are whole at any width, and what a table says of its layers is true."""

import io
import math
import re
from pathlib import Path

import pytest
from builders import make_report, tally
from rich.table import Table

from srdd.cli import console
from srdd.cli.fitted import FittedConsole, fit
from srdd.metrics import BY_NAME


def _table() -> Table:
    table = Table(title="A title that is longer than the table", title_justify="left")
    table.add_column("kind", no_wrap=True)
    table.add_column("layers")
    table.add_column("a long heading", justify="right", no_wrap=True)
    table.add_column("number", justify="right")
    table.add_row("weight", "layers 0, 1, 2, 3, 4, 5", "18.74 ± 0.12", "[red]-123.4567 ± 0.0012[/red]")
    return table


@pytest.mark.parametrize("width", [10, 40, 60, 70, 80, 120])
def test_a_table_is_printed_whole_at_any_width(width: int) -> None:
    out = FittedConsole(file=io.StringIO(), width=width)
    out.print(_table())
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert "18.74 ± 0.12" in text
    assert "-123.4567 ± 0.0012" in text
    assert all(str(layer) in re.findall(r"\d+", text) for layer in range(6))
    assert len({len(line) for line in text.splitlines()[1:] if line[:1] in "┏┡└"}) == 1, "the frame is whole"


def test_a_table_takes_no_more_than_the_terminal_where_it_fits() -> None:
    def width(of: int) -> int:
        return fit(FittedConsole(file=io.StringIO(), width=of), _table())

    assert width(200) == width(100) < 100
    assert (width(70), width(60)) == (70, 60)
    assert width(10) == width(20) > 20, "numbers need that much"


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("options", [(), ("--layer", "1")])
def test_show_cuts_no_number(width, options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, srdd) -> None:
    path = tmp_path / "r.json"
    rows = {kind: [[tally(0.1 + i / 100, 1 + i)] for i in range(6)] for kind in ("weight", "input", "output")}
    make_report(rows).save(path)
    numbers = []
    for columns in (400, width):
        monkeypatch.setattr(console, "_WIDTH_WITHOUT_TERMINAL", columns)
        code, _, err = srdd("show", path, *options)
        assert code == 0
        assert "…" not in err
        numbers.append(sorted(re.findall(r"\d+\.\d+", err)))
    assert numbers[0] == numbers[1]


def test_long_numbers_are_short() -> None:
    kurtosis = BY_NAME["kurtosis"]
    assert [kurtosis.text(value) for value in (3.0, 7511.06, 234567.0)] == ["3.00", "7511", "2.346e+05"]
    assert kurtosis.text(math.nan) == "-"
