"""Tables on a terminal: numbers are whole at any width, and what a table says of its layers is true."""

import io
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import N, cost_settings, make_report, report_of_costs, tally
from rich.table import Table

from srdd.analysis.costs import MODE_NAMES
from srdd.analysis.rankings import agreement
from srdd.cli import console
from srdd.core.metrics import BY_NAME, RANKED, significant
from srdd.core.tally import Tally
from srdd.documents.costs import Clean, Cost, Costs, LayerCost, LinearCost, Ratio, WholeCost
from srdd.documents.parts import Kind
from srdd.documents.report import Report
from srdd.exporters.terminal.fitted import FittedConsole, fit

Run = Callable[..., tuple[int, str, str]]


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
    assert len({len(line) for line in text.splitlines() if "18.74" in line or "━" in line}) <= 2, "rows are in line"


def test_a_table_takes_no_more_than_the_terminal_where_it_fits() -> None:
    def width(of: int) -> int:
        return fit(FittedConsole(file=io.StringIO(), width=of), _table())

    assert width(200) == width(100) < 100
    assert (width(70), width(60)) == (70, 60)
    assert width(10) == width(20) > 20, "numbers need that much"


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("options", [(), ("--layer", "1")])
def test_show_cuts_no_number(width, options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, srdd: Run) -> None:
    path = tmp_path / "r.json"
    rows = {kind: [[tally(0.1 + i / 100, 1 + i)] for i in range(6)] for kind in ("weight", "input", "output")}
    make_report(rows).save(path)
    numbers = []
    for columns in (400, width):
        monkeypatch.setattr(console, "_WIDTH_WITHOUT_TERMINAL", columns)
        code, out, _ = srdd("show", path, *options)
        assert code == 0
        assert "…" not in out
        numbers.append(sorted(re.findall(r"\d+\.\d+", out)))
    assert numbers[0] == numbers[1]


def test_long_numbers_are_short() -> None:
    kurtosis = BY_NAME["kurtosis"]
    assert [kurtosis.text(value) for value in (3.0, 7511.06, 234567.0)] == ["3.00", "7511", "2.346e+05"]
    assert kurtosis.text(math.nan) == "-"


def _opposed(kind: Kind, count: int) -> Report:
    """The lower the relative error, the lower the SQNR."""
    return make_report({kind: [[tally(0.1 + i / 100, 20.0 - i)] for i in range(count)]})


@pytest.mark.parametrize(("kind", "massive"), [("weight", False), ("input", True), ("output", True)])
def test_rankings_name_massive_activations_for_activations_only(kind: Kind, massive: bool) -> None:
    found = agreement(_opposed(kind, 8).layers, "mxfp4:even", 3)
    assert found is not None
    assert found.sentence().startswith("The two rankings disagree: 0 of the 3 worst layers are in both lists, Spearman")
    assert ("massive activations" in found.sentence()) == massive


def test_lists_of_all_layers_say_nothing_of_what_is_in_both() -> None:
    found = agreement(_opposed("output", 6).layers, "mxfp4:even", 10)
    assert found is not None
    assert found.sentence().startswith("The two rankings disagree: Spearman -1.00. SQNR")


def test_few_or_equal_layers_get_no_verdict() -> None:
    equal = make_report({"output": [[tally(0.1)]] * 6})
    assert agreement(equal.layers, "mxfp4:even", 10) is None
    assert agreement(_opposed("output", 4).layers, "mxfp4:even", 10) is None
    assert agreement(_opposed("output", 5).layers, "mxfp4:even", 10) is not None


def test_the_two_lists_of_worst_layers_are_told_apart(tmp_path: Path, srdd: Run) -> None:
    _opposed("weight", 6).save(tmp_path / "r.json")
    _, out, _ = srdd("show", tmp_path / "r.json", "--top", "2")
    assert "the 2 worst layers by relative error, and by SQNR" in out
    heading = next(line for line in out.splitlines() if "by error:" in line)
    assert "by SQNR:" in heading


def test_layers_without_numbers_are_counted_apart(tmp_path: Path, srdd: Run) -> None:
    nothing = Tally(nonfinite=1, excluded=N)
    path = tmp_path / "r.json"
    make_report({"output": [[tally(0.2)], [tally(0.3, 2.0)], [nothing], [nothing]]}).save(path)
    _, out, _ = srdd("show", path, "--stats")
    assert "Decoder-layer outputs, over 2 of 4 layers (2 hold no numbers)" in out
    assert "the 2 worst layers by relative error, and by SQNR (2 hold no numbers)" in " ".join(out.split())
    assert "1/2 < 20.00 dB" in out
    assert "/4" not in out


def _impact() -> Report:
    """Costs that four decimals would all show as zero, in the order 1, 2, 3 of the Linears."""
    kl, error = Cost(value=0.0000123, error=0.0000045), Ratio(value=0.0000123, error=0.0000045)
    layer = LayerCost(layer=0, format="mxfp4:even", mode="both", isolated=error, cumulative=error, predicted_kl=kl)
    linears = [
        LinearCost(
            module=f"m{i}",
            role="q_proj",
            parameters=1,
            format="mxfp4:even",
            output_error=dict.fromkeys(MODE_NAMES, error),
            interaction=0.0,
            predicted_kl=dict.fromkeys(MODE_NAMES, Cost(value=i * 1e-6)),
        )
        for i in (1, 2, 3)
    ]
    whole = WholeCost(
        format="mxfp4:even",
        mode="both",
        loss=kl,
        kl=Cost(value=0.00042),
        kl_quantiles={"0.5": 0.00031, "0.9": 0.001, "0.99": 0.00222, "1": 0.00444},
        top1=Cost(value=1.0),
    )
    costs = Costs(
        settings=cost_settings("predicted"),
        clean=Clean(loss=kl, entropy=kl),
        whole=[whole],
        layers=[layer],
        linears=linears,
    )
    return report_of_costs(costs)


def test_small_costs_keep_three_digits(tmp_path: Path, srdd: Run) -> None:
    path = tmp_path / "impact.json"
    _impact().save(path)
    _, out, _ = srdd("show", path, "--stats")
    for number in ("0.000420", "0.000310", "0.00222", "0.00444", "0.0000123 ± 0.0000045"):
        assert number in out, number
    rows = [line for line in out.splitlines() if re.search(r"\bm[123]\b", line)]
    assert [row.split("│")[-2].strip() for row in rows] == ["3.00e-06", "2.00e-06", "1.00e-06"]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (7.314, None, "7.31"),
        (0.0123456, 0.0004, "0.0123 ± 0.0004"),
        (-0.5, None, "-0.500"),
        (0.0, None, "0.00"),
        (1234.5, 10.0, "1234 ± 10"),
        (1.23e-9, 2e-10, "1.23e-09 ± 2.00e-10"),
        (math.nan, None, "-"),
        (math.inf, None, "inf"),
    ],
)
def test_significant_digits(value: float, error: float | None, text: str) -> None:
    assert significant(value, error) == text


def test_costs_are_told_apart_in_zones() -> None:
    assert [RANKED[name].text(0.0000123) for name in ("predicted_kl", "measured_kl")] == ["0.0000123"] * 2
