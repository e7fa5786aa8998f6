"""An impact document where reports are read: its layers are ranked by what they cost, with errors and no false word."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from builders import cost_settings, make_report, report_of_costs, tally

from srdd.analysis.comparison.changes import compare
from srdd.analysis.series import layer_series
from srdd.analysis.zones import find_zones
from srdd.documents.costs import Cost, Costs, LayerCost, Ratio
from srdd.documents.report import Report, dumps

Run = Callable[..., tuple[int, str, str]]
MODEL = make_report({"weight": [[tally(0.1)]] * 12}).model


def impact(path: Path, costs: Sequence[float], error: float | None = 0.01) -> Path:
    """An impact document whose layers are predicted to cost so much, all with one standard error."""
    layers = [
        LayerCost(
            layer=layer,
            format="mxfp4:even",
            mode="both",
            isolated=Ratio(value=0.2, error=0.002),
            cumulative=Ratio(value=0.3),
            predicted_kl=Cost(value=cost, error=error),
        )
        for layer, cost in enumerate(costs)
    ]
    report_of_costs(Costs(settings=cost_settings("predicted"), layers=layers), MODEL).save(path)
    return path


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    base = [0.1] * 6 + [0.5] * 6
    return impact(tmp_path / "a.json", base), impact(tmp_path / "b.json", [*base[:-1], 0.6])


def test_two_impact_documents_compare_with_errors_and_without_a_false_sentence(
    two: tuple[Path, Path], srdd: Run
) -> None:
    code, shown, said = srdd("compare", *two, "--metric", "predicted_kl")
    assert (code, said[:5]) == (0, "More:")
    assert "predicted_kl" in shown
    assert "version 0" not in shown
    assert "note:" not in shown
    assert "No standard errors" not in shown
    code, printed, _ = srdd("compare", *two, "--metric", "predicted_kl", "--json")
    document = json.loads(printed)
    assert document["notes"] == []
    (table,) = document["comparisons"]
    first, *rest = table["layers"]
    assert (first["name"], first["within_noise"], first["worse"]) == ("layer 11", False, True)
    assert first["change"] == pytest.approx(0.1)
    assert first["standard_error"] == pytest.approx(math.hypot(0.01, 0.01))
    assert all(row["within_noise"] for row in rest)
    # at most the mean of its layers' errors, if they rise and fall together
    assert [row["standard_error"] for row in table["zones"]] == pytest.approx([math.hypot(0.01, 0.01)] * 3)


def test_costs_that_differ_by_less_than_their_errors_are_noise(tmp_path: Path) -> None:
    a, b = impact(tmp_path / "a.json", [0.1] * 3, 0.1), impact(tmp_path / "b.json", [0.2] * 3, 0.1)
    rows = compare(Report.load(a), Report.load(b), "output", "mxfp4:even", "predicted_kl").layers
    assert all(row.within_noise for row in rows)


def test_a_cost_without_an_error_has_none_in_a_comparison(tmp_path: Path) -> None:
    a, b = impact(tmp_path / "a.json", [0.1] * 3, None), impact(tmp_path / "b.json", [0.2] * 3, None)
    table = compare(Report.load(a), Report.load(b), "output", "mxfp4:even", "predicted_kl")
    assert all(math.isnan(row.standard_error) and not row.within_noise for row in (*table.layers, *table.zones))


def test_errors_reach_series_and_the_stability_of_cuts(tmp_path: Path, two: tuple[Path, Path]) -> None:
    series = layer_series(Report.load(two[0]), metric="predicted_kl")
    assert series.standard_errors == [0.01] * 12
    (cut,) = find_zones(series)[1]
    assert (cut.before_layer, cut.stability) == (6, 1.0)
    assert cut.method == "each layer redrawn within its standard error"
    rough = Report.load(impact(tmp_path / "rough.json", [0.1] * 6 + [0.5] * 6, 0.5))
    (cut,) = find_zones(layer_series(rough, metric="predicted_kl"))[1]
    assert cut.stability < 0.6
    bare = Report.load(impact(tmp_path / "bare.json", [0.1] * 6 + [0.5] * 6, None))
    (cut,) = find_zones(layer_series(bare, metric="predicted_kl"))[1]
    assert cut.method == "one layer left out"


def test_costs_and_their_errors_survive_saving(tmp_path: Path, two: tuple[Path, Path]) -> None:
    report = Report.load(two[0])
    assert not report.is_version_0
    report.save(tmp_path / "saved.json")
    again = Report.load(tmp_path / "saved.json")
    assert again == report
    assert dumps(again) == dumps(report)
    assert again.costs is not None
    assert again.costs.layers[6].predicted_kl == Cost(value=0.5, error=0.01)
    assert again.costs.layers[6].isolated == Ratio(value=0.2, error=0.002)


def test_a_version_0_report_stays_one_when_it_is_saved(tmp_path: Path) -> None:
    rows = [{"layer_id": layer, "sqnr_db": 17.0, "relative_error": 0.3} for layer in range(3)]
    (tmp_path / "old.json").write_text(json.dumps({"report": {"per_layer": rows}}))
    Report.load(tmp_path / "old.json").save(tmp_path / "new.json")
    assert all(Report.load(tmp_path / name).is_version_0 for name in ("old.json", "new.json"))
