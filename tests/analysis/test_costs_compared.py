"""Costs of two reports: paired by sequence, held by the gate, refused where they cannot be compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import make_costs
from priced_reports import KLS, PLAIN, PRICED, SPEC, report, with_layer

from srdd.analysis.comparison.changes import compare, drift
from srdd.analysis.comparison.costs import whole_changes

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, document in (("priced", PRICED), ("plain", PLAIN), ("dearer", with_layer([1.3, 1.5]))):
        document.save(tmp_path / f"{name}.json")
    return tmp_path


def test_changes_of_costs_are_paired_by_sequence() -> None:
    table = compare(PRICED, with_layer([0.955, 1.155]), "layer", SPEC, "predicted_kl")
    first, *rest = table.layers
    assert (first.name, first.worse, table.mode) == ("layer 7", True, "both")
    assert first.change == pytest.approx(0.155)
    # 0.1 and 0.21 over the sequences 0.855 and 0.945; two samples apart would say 0.11
    assert first.standard_error == pytest.approx(0.055)
    assert all(row.change == 0 for row in rest)
    slope = drift([PRICED, PRICED, with_layer([0.955, 1.155])], "layer", SPEC, "predicted_kl").layers[0]
    assert (slope.name, slope.slope) == ("layer 7", pytest.approx(0.155 / 2))


def test_other_tokens_are_not_paired_and_the_gate_refuses_them(tmp_path: Path, srdd: Run) -> None:
    assert PRICED.costs is not None
    settings = PRICED.costs.settings
    other = settings.calibration.model_copy(update={"sequence_hashes": ["c", "d"]})
    moved = PRICED.costs.model_copy(update={"settings": settings.model_copy(update={"calibration": other})})
    new = report(moved)
    row = compare(PRICED, new, "layer", SPEC, "predicted_kl").layers[0]
    assert row.standard_error == pytest.approx(math.hypot(*[0.05 * float(row.base)] * 2))
    PRICED.save(tmp_path / "a.json")
    new.save(tmp_path / "b.json")
    assert "the costs were measured on other tokens" in " ".join(
        srdd("compare", tmp_path / "a.json", tmp_path / "b.json")[1].split()
    )
    code, _, shown = srdd(
        "check", tmp_path / "b.json", "--baseline", tmp_path / "a.json", "--limit", "predicted_kl=+20%"
    )
    assert (code, "on other tokens" in shown) == (2, True)


def test_the_whole_model_is_compared() -> None:
    rows = whole_changes(PRICED, report(make_costs({SPEC: KLS}, whole={SPEC: 4.2})), [(SPEC, SPEC)])
    assert [(row.quantity, row.mode) for row in rows] == [
        ("loss", None),
        ("kl", "weight"),
        ("loss", "weight"),
        ("kl", "both"),
        ("loss", "both"),
    ]
    kl = rows[3]
    assert (kl.base, kl.new, kl.worse) == (pytest.approx(2.1), pytest.approx(4.2), True)
    assert kl.standard_error == pytest.approx(0.05 * 2.1)  # doubled on both sequences
    assert rows[0].change == 0
    assert whole_changes(PRICED, PLAIN, [(SPEC, SPEC)]) == []


def test_the_gate_holds_costs(files: Path, srdd: Run) -> None:
    base = files / "priced.json"
    limit = ["--baseline", base, "--limit", "predicted_kl=+20%", "--undecided", "fail"]
    assert srdd("check", base, *limit)[0] == 0
    code, printed, _ = srdd("check", files / "dearer.json", *limit, "--json")
    (case,) = json.loads(printed)["cases"]
    assert (code, case["kind"], case["mode"], case["checked"]) == (1, "layer", "both", 12)
    assert [row["name"] for row in case["failures"]] == ["layer 7"]
    assert srdd("check", base, *limit, "--by", "module")[0] == 0
    for bad, words in (
        ([files / "plain.json", *limit], "no costs of mxfp4:even"),
        ([base, *limit, "--site", "output"], "a cost is of whole layers"),
        ([base, *limit, "--quant", "nvfp4"], "the costs are of mxfp4:even"),
    ):
        code, _, shown = srdd("check", *bad)
        assert (code, words in shown) == (2, True), shown


def test_a_layer_that_lost_its_cost_fails(files: Path, srdd: Run) -> None:
    assert PRICED.costs is not None
    fewer = [row for row in PRICED.costs.layers if row.layer != 3]
    report(PRICED.costs.model_copy(update={"layers": fewer})).save(files / "fewer.json")
    code, shown, _ = srdd(
        "check", files / "fewer.json", "--baseline", files / "priced.json", "--limit", "predicted_kl=+20%"
    )
    assert (code, "layer 3: not measured" in shown) == (1, True), shown
