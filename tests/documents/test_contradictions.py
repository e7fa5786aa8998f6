"""A report that lies is refused in one line, whoever opens it, with the file, the site, the format and the sums."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import make_costs, make_report, tally

from srdd.core.tally import FIELDS
from srdd.documents.report import Report
from srdd.errors import ReportError

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    report = make_report({"weight": [[tally(0.2)]] * 3, "output": [[tally(0.3, deadzone=9)] * 2] * 3})
    path = tmp_path / "r.json"
    report.model_copy(update={"costs": make_costs({"mxfp4:even": [0.1, 0.2, 0.1]}, traces=[1.0] * 3)}).save(path)
    return path


def refused(path: Path, change: Change) -> str:
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    with pytest.raises(ReportError) as caught:
        Report.load(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ") or "is no valid report" in str(caught.value)
    return str(caught.value)


def measured(tree: dict[str, Any], kind: str, layer: int) -> Any:
    (site,) = (site for site in tree["sites"] if (site["kind"], site["layer"]) == (kind, layer))
    return site["formats"]["mxfp4:even"]


def test_a_weight(path: Path) -> None:
    def lie(tree: dict[str, Any]) -> None:
        measured(tree, "weight", 1)["tally"][FIELDS.index("sum_e2")] = -1.0

    assert (
        "weight model.layers.1.mlp.down_proj under mxfp4:even: sums contradict each other: sum_e2 is negative"
        in refused(path, lie)
    )


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([[85, 3, 0, 1], [149, 4], [0.5, 2]], ""),
        ([[], [], []], ""),
        ([[85, 3, 1], [149, 3], [0.5, 2]], "are 4 by SQNR and 3 by scale"),
        ([[85, -3, 7], [149, 4], [0.5, 2]], "are negative, or no whole numbers"),
        ([[85, 3.5, 0.5], [149, 4], [0.5, 2]], "are negative, or no whole numbers"),
        ([[85, 1e300], [149, 1e300], [0.5, 2]], "are negative, or no whole numbers"),
        ([[240, 3, 1], [149, 4], [0.5, 2]], "are in bins that do not exist"),
        ([[85, 4], [278, 4], [0.5, 2]], "are in bins that do not exist"),
        ([[85, 4], [149, 4], [-0.5, 2]], "have a worst block that is none"),
        ([[85, 4], [149, 4], [0.5]], "have a worst block that is none"),
    ],
)
def test_counts_of_blocks(blocks: list[list[float]], said: str, path: Path) -> None:
    def lie(tree: dict[str, Any]) -> None:
        measured(tree, "weight", 1)["blocks"] = blocks

    if said:
        place = "weight model.layers.1.mlp.down_proj under mxfp4:even"
        assert f"{place}: counts of blocks {said}" in refused(path, lie)
        return
    tree = json.loads(path.read_text())
    lie(tree)
    path.write_text(json.dumps(tree))
    assert Report.load(path).sites[1].formats["mxfp4:even"].blocks == blocks


def test_one_sequence_of_an_activation(path: Path) -> None:
    def lie(tree: dict[str, Any]) -> None:
        measured(tree, "output", 2)["sequences"][1][FIELDS.index("deadzone")] = 2000

    text = refused(path, lie)
    assert "output model.layers.2 under mxfp4:even, sequence 1: " in text
    assert "more values became zero than were not zero (deadzone 2000, nonzero 1024)" in text


def test_a_whole_beside_its_sequences_is_never_read(path: Path) -> None:
    """It follows from them, so that there is nothing to believe."""
    tree = json.loads(path.read_text())
    measured(tree, "output", 0)["tally"][0] = -5
    path.write_text(json.dumps(tree))
    assert measured(json.loads(path.read_text()), "output", 0)["tally"][0] == -5
    assert Report.load(path).sites[3].formats["mxfp4:even"].merged().n == 2048


@pytest.mark.parametrize("number", ["1e999", "NaN", "Infinity", "-1e999"])
def test_no_number_that_is_none(number: str, path: Path) -> None:
    text = path.read_text()
    tree = json.loads(text)
    measured(tree, "weight", 0)["tally"][FIELDS.index("sum_x2")] = "here"
    path.write_text(json.dumps(tree).replace('"here"', number))
    with pytest.raises(ReportError):
        Report.load(path)


def test_the_command_line_says_so_and_passes_nothing(path: Path, srdd: Callable[..., tuple[int, str, str]]) -> None:
    tree = json.loads(path.read_text())
    measured(tree, "weight", 1)["tally"][FIELDS.index("sum_e2")] = 0
    path.write_text(json.dumps(tree))
    for words in (("check", path, "--baseline", path), ("show", path), ("zones", path), ("compare", path, path)):
        code, out, err = srdd(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "weight model.layers.1.mlp.down_proj under mxfp4:even" in err


def whole(**fields: Any) -> Change:
    def lie(tree: dict[str, Any]) -> None:
        tree["costs"]["whole"][0].update(fields)

    return lie


def of_layer(**fields: Any) -> Change:
    def lie(tree: dict[str, Any]) -> None:
        tree["costs"]["layers"][0].update(fields)

    return lie


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (whole(kl={"value": -0.1}), "kl of the whole model under mxfp4:even (weight) is -0.100, below 0"),
        (whole(kl={"sequences": [0.3, -0.1]}), "kl of the whole model"),
        (whole(top1={"value": 1.2}), "top1 of the whole model under mxfp4:even (weight) is 1.20, a share beyond 1"),
        (whole(top1={"value": -0.2}), "top1 of the whole model"),
        (whole(loss={"value": -3.0}), "loss of the whole model"),
        (whole(kl={"value": 0.1, "error": -1.0}), "the standard error of kl"),
        (whole(kl_quantiles={"0.5": 0.2, "0.9": 0.1}), "quantiles do not rise"),
        (whole(no_effect=True), "no_effect says that nothing changed"),
        (lambda tree: tree["costs"]["clean"].update(entropy={"value": -1.0}), "entropy of the model as it is"),
        (of_layer(predicted_kl={"value": -1.0}), "predicted_kl of layer 0 under mxfp4:even is -1.00, below 0"),
        (of_layer(isolated={"value": -0.5}), "isolated of layer 0"),
        (lambda tree: tree["costs"]["groups"][0]["predicted_kl"].update(both={"value": -1.0}), "predicted_kl of model"),
        (lambda tree: tree["costs"]["linears"][0]["predicted_kl"].update(both={"value": -1.0}), "predicted_kl of"),
        (lambda tree: tree["costs"]["sensitivities"][0].update(trace={"value": -1.0}), "trace of model.layers.0"),
        (whole(loss={"sequences": [1e308, 1e308]}), "sequences have no mean, they are too large"),
        (whole(loss={"value": 1, "sequences": ["a", "b"]}), "valid number"),
        (whole(loss={"value": 1, "sequences": {"a": 1}}), "valid list"),
        (of_layer(isolated={"above": [-1.0, 2.0], "below": [1.0, 1.0]}), "squared norms are negative"),
        (of_layer(isolated={"above": [1e308, 1e308], "below": [1.0, 1.0]}), "squared norms are negative, or too large"),
        (of_layer(isolated={"above": [1.0, 1.0], "below": [1.0]}), "2 sequences above and 1 below"),
        (of_layer(isolated={"value": 1, "above": ["a"], "below": [1.0]}), "valid number"),
    ],
)  # fmt: skip
def test_costs(change: Change, said: str, path: Path) -> None:
    assert said in refused(path, change)


def test_rounding_of_a_kl_is_no_lie(path: Path) -> None:
    tree = json.loads(path.read_text())
    whole(kl={"sequences": [-1e-6, 2e-6]})(tree)
    path.write_text(json.dumps(tree))
    costs = Report.load(path).costs
    assert costs is not None
    assert costs.whole[0].kl.value == pytest.approx(5e-7)


@pytest.mark.parametrize(("metric", "value"), [("deadzone_ratio", 5), ("deadzone_ratio", -0.1), ("relative_error", -1)])
def test_metrics_without_sums(metric: str, value: float, tmp_path: Path) -> None:
    row = {"layer_id": 0, "sqnr_db": 12.0, metric: value}
    path = tmp_path / "v0.json"
    path.write_text(json.dumps({"config": {}, "report": {"per_layer": [row]}}))
    with pytest.raises(ReportError, match=f"output layers.0 under mxfp4:floor: {metric} is {value:g}, expected"):
        Report.load(path)
