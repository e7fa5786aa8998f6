"""Correlations against scipy, and tables that say what predicts and what does not."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import cost_settings, make_report, report_of_costs, tally
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from srdd.analysis.rankings import kendall, spearman
from srdd.analysis.validation import validate
from srdd.documents.costs import Cost, Costs, GroupCost, LayerCost, LinearCost, Ratio
from srdd.documents.report import Report
from srdd.errors import ReportError

Run = Callable[..., tuple[int, str, str]]
NUMBERS = st.lists(st.integers(0, 6).map(float), min_size=4, max_size=12)


@given(NUMBERS, st.randoms(use_true_random=False))
def test_rank_correlations_are_scipys(a: list[float], generator: random.Random) -> None:
    b = [generator.choice([0.0, 1.0, 2.0, 3.0, value]) for value in a]
    if len(set(a)) < 2 or len(set(b)) < 2:
        assert spearman(a, b) != spearman(a, b)  # nan
        return
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert kendall(a, b) == pytest.approx(kendalltau(a, b).statistic)


def make(layers: int = 12, swap: bool = True) -> Report:
    """Measured KL 0.01 i; one score follows it, one runs against it, one is noise."""
    generator = random.Random(1)
    rows = [
        LayerCost(
            layer=i,
            format="mxfp4:even",
            mode="both",
            isolated=Ratio(value=0.1),
            cumulative=Ratio(value=0.1),
            predicted_kl_own=Cost(value=0.02 * (i + 1)),
            measured_kl=Cost(value=0.01 * (i + 1)) if swap else None,
            scores={"output relative_error": generator.random(), "output sqnr_db": 1 / (i + 1)},
        )
        for i in range(layers)
    ]
    return report_of_costs(Costs(settings=cost_settings("predicted", "layers"), layers=rows))


def test_the_best_score_comes_first() -> None:
    (table,) = validate(make())
    best, worst = table.rows[0], table.rows[-1]
    assert (best.score, best.verdict) == ("gradient: layer's own error", "predicts")
    assert (best.spearman, best.kendall) == pytest.approx((1, 1))
    assert best.off == pytest.approx(1)  # twice too high everywhere
    assert (worst.score, worst.spearman, worst.verdict) == (
        "scan: output sqnr_db",
        pytest.approx(-1),
        "misleads",
    )
    assert worst.off is None
    noise = table.rows[1]
    assert noise.interval[0] < noise.spearman < noise.interval[1]
    assert "isolated" not in {row.score for row in table.rows}, "a constant score ranks nothing"


def test_what_cannot_be_validated() -> None:
    with pytest.raises(ReportError, match="run `srdd impact` with attribute=both"):
        validate(make(swap=False))
    with pytest.raises(ReportError, match="4 layers are too few"):
        validate(make(4))
    with pytest.raises(ReportError, match="no costs in this report; run `srdd impact`"):
        validate(make_report({"weight": [[tally(0.1)]]}))


def with_groups(count: int) -> Report:
    """Groups measured at 0.01 i, predicted at half of it; one Linear each, whose error runs against it."""
    groups = [
        GroupCost(
            name=f"{i}.mlp",
            layer=0,
            members=[f"{i}.mlp.up"],
            parameters=64,
            format="mxfp4:even",
            predicted_kl={"both": Cost(value=0.005 * (i + 1))},
            measured_kl={"both": Cost(value=0.01 * (i + 1))},
        )
        for i in range(count)
    ]
    linears = [
        LinearCost(
            module=f"{i}.mlp.up",
            role="up_proj",
            parameters=64,
            format="mxfp4:even",
            output_error={"both": Ratio(value=1 / (i + 1))},
        )
        for i in range(count)
    ]
    four = make(4).costs
    assert four is not None
    return report_of_costs(four.model_copy(update={"groups": groups, "linears": linears}))


def test_fusion_groups_are_ranked_too() -> None:
    (table,) = validate(with_groups(6))  # of four layers nothing can be said
    assert (table.of, table.measured, table.rows[0].count) == ("fusion groups", "KL", 6)
    assert [(row.score, row.spearman) for row in table.rows] == [
        ("gradient: its Linears' errors, joint", pytest.approx(1)),
        ("output error of its Linears, mean", pytest.approx(-1)),
    ]  # all have as many parameters
    assert table.rows[0].off == pytest.approx(1)
    with pytest.raises(ReportError, match="4 layers are too few"):
        validate(with_groups(4))


def test_command(tmp_path: Path, srdd: Run) -> None:
    path = tmp_path / "impact.json"
    make().save(path)
    code, shown, said = srdd("validate", path)
    assert (code, said) == (0, "")
    assert "best: gradient: layer's own error, Spearman 1.00" in shown
    assert "not shown to predict the damage here: output relative_error, output sqnr_db" in " ".join(shown.split())
    code, printed, _ = srdd("validate", path, "--json")
    assert (code, json.loads(printed)["tables"][0]["tokens"]) == (0, 16)
    path.write_text('{"schema_version": 1}')
    code, _, shown = srdd("validate", path)
    assert code == 2
    assert "is no valid report" in shown
