"""What changed, by hand: paired errors, zones, drift; and what cannot be compared is refused by its field."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import make_report, tally
from fresh_interpreter import loaded_by

from srdd.analysis.comparison.changes import compare, drift
from srdd.analysis.comparison.comparability import comparable
from srdd.analysis.comparison.pairing import within_noise
from srdd.core.layers import thirds
from srdd.core.metrics import BY_NAME
from srdd.core.tally import Tally
from srdd.documents.opening import document_of
from srdd.documents.parts import Estimate, Note
from srdd.documents.report import Report
from srdd.documents.schema import Measurement, Site, measurement
from srdd.errors import ReportError
from srdd.exporters.wording import change_text

Run = Callable[..., tuple[int, str, str]]
ERROR, SQNR = BY_NAME["relative_error"], BY_NAME["sqnr_db"]
BASE = make_report({"weight": [[tally(0.1)]] * 3, "output": [[tally(0.3), tally(0.5)]] * 3})
NEW = make_report(
    {
        "weight": [[tally(0.1)], [tally(0.1, noise=2.0)], [tally(0.1)]],
        "output": [[tally(0.4), tally(0.6)], [tally(0.6), tally(0.4)], [tally(0.3), tally(0.5)]],
    }
)


def version_0(*rows: dict[str, float], name: str = "old") -> Report:
    layers = [{"layer_id": i, **row} for i, row in enumerate(rows)]
    return document_of({"config": {"quant_type": "mxfp4"}, "report": {"per_layer": layers}}, Report, name)


def save(report: Report, folder: Path, name: str) -> Path:
    report.save(folder / name)
    return folder / name


def with_settings(report: Report, **changes: object) -> Report:
    return report.model_copy(update={"settings": report.settings.model_copy(update=changes)})


def with_model(report: Report, **changes: object) -> Report:
    return report.model_copy(update={"model": report.model.model_copy(update=changes)})


def test_a_change_has_the_error_of_the_difference() -> None:
    rows = {row.name: row for row in compare(BASE, NEW, "output", "mxfp4:even", ERROR).layers}
    assert rows["layer 0"].change == pytest.approx(0.1)
    assert rows["layer 0"].standard_error == pytest.approx(0.0, abs=1e-12)  # +0.1 in either sequence, not 0.14
    # +0.3 and -0.1: a mean of 0.1 with standard error |0.3 - -0.1| / 2
    assert rows["layer 1"].change == pytest.approx(0.1)
    assert rows["layer 1"].standard_error == pytest.approx(0.2)
    assert (rows["layer 0"].within_noise, rows["layer 1"].within_noise) == (False, True)
    assert (rows["layer 0"].worse, rows["layer 2"].worse) == (True, None)


def test_sequences_in_another_order_are_still_paired() -> None:
    swapped = make_report({"output": [[tally(0.5), tally(0.3)]] * 3}, hashes=["s1", "s0"])
    base = make_report({"output": [[tally(0.3), tally(0.5)]] * 3})
    assert comparable(base, swapped) == []
    assert all(
        row.change == 0 and row.standard_error == 0
        for row in compare(base, swapped, "output", "mxfp4:even", ERROR).layers
    )


def test_largest_first_and_zones_are_means_over_layers() -> None:
    found = compare(BASE, NEW, "weight", "mxfp4:even", SQNR, zones={"0-1": [0, 1], "2": [2]})
    assert found.layers[0].name == "layer 1"
    assert found.layers[0].change == pytest.approx(10 * math.log10(1 / 2))
    assert found.zones[0].name == "0-1"
    assert found.zones[0].change == pytest.approx(5 * math.log10(1 / 2))
    assert math.isnan(found.layers[0].standard_error), "weights are not a sample"


def test_the_error_of_a_zone_knows_that_layers_move_together() -> None:
    new = make_report({"output": [[tally(0.5), tally(0.5)]] * 3})
    base = make_report({"output": [[tally(0.3), tally(0.5)]] * 3})
    zone = compare(base, new, "output", "mxfp4:even", ERROR, zones={"all": [0, 1, 2]}).zones[0]
    assert zone.standard_error == pytest.approx(0.1), "not 0.1 / sqrt(3): the three layers are one observation"


def test_drift_is_a_line_through_the_reports() -> None:
    reports = [make_report({"weight": [[tally(e)], [tally(0.2)]]}) for e in (0.1, 0.2, 0.4)]
    table = drift(reports, "weight", "mxfp4:even", ERROR)
    assert table.layers[0].values == pytest.approx([0.1, 0.2, 0.4])
    assert table.layers[0].change == pytest.approx(0.3)
    assert table.layers[0].slope == pytest.approx(0.15)
    assert table.layers[1].change == 0
    sampled = [make_report({"output": [[tally(e), tally(2 * e)]]}) for e in (0.1, 0.2, 0.3)]
    row = drift(sampled, "output", "mxfp4:even", ERROR).layers[0]
    assert (row.slope, row.slope_error) == pytest.approx((0.15, 0.05))  # 0.1 and 0.2 a report


def test_exact_copies_do_not_differ_and_nan_is_last() -> None:
    exact = make_report({"weight": [[tally(0.1, noise=0.0)], [Tally()], [tally(0.1)]]})
    worse = make_report({"weight": [[tally(0.1, noise=0.0)], [Tally()], [tally(0.1, noise=0.0)]]})
    rows = compare(exact, worse, "weight", "mxfp4:even", SQNR).layers
    assert [row.name for row in rows] == ["layer 2", "layer 0", "layer 1"]
    assert (rows[0].change, rows[1].change) == (math.inf, 0.0)
    assert math.isnan(rows[2].change)


def test_one_layer_makes_one_zone() -> None:
    assert thirds([5]) == {"middle": [5]}
    assert thirds([0, 1]) == {"early": [0], "late": [1]}
    assert thirds(range(10)) == {"early": [0, 1, 2], "middle": [3, 4, 5, 6], "late": [7, 8, 9]}


def test_changes_as_people_read_them() -> None:
    assert change_text(SQNR, -3.0103, 0.02) == "-3.01 ± 0.02"
    assert change_text(ERROR, 0.012) == "+1.20"
    assert change_text(ERROR, 0.00001) == "+0.001"
    assert change_text(SQNR, math.inf) == "+inf"
    assert change_text(SQNR, math.nan) == "-"
    assert within_noise(0.1, 0.05, 15)  # 2.13 errors are 5 % of chance with 16 documents,
    assert not within_noise(0.1, 0.05, 1000)  # 1.96 with many
    assert not within_noise(0.1, math.nan, 15)


def test_a_later_checkpoint_is_the_same_model_and_its_id_is_said() -> None:
    notes = comparable(BASE, with_model(NEW, id="step-200", weights_hash="other"))
    assert notes == ["model ids differ: toy and step-200"]


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (with_model(NEW, layer_count=4), "another model: layer_count differs .*3.*4.*allow_different_model"),
        (with_model(NEW, parameter_count=7), "another model: parameter_count differs .*1024.*7"),
        (make_report({"output": [[tally(0.3), tally(0.5)]] * 3}), "site set differs: the new report has no weight"),
        (
            make_report({"weight": [[tally(0.1)]] * 3, "output": [[tally(0.3), tally(0.5)]] * 3}, hashes=["a", "b"]),
            "calibration differs: tokens_sha256",
        ),
        (
            make_report({"weight": [[tally(0.1)]] * 3, "output": [[tally(0.3), tally(0.5)]] * 3}, ["mxfp4:floor"]),
            "scale rule differs: mxfp4:even in the base and mxfp4:floor in the new",
        ),
        (
            make_report({"weight": [[tally(0.1)]] * 3, "output": [[tally(0.3), tally(0.5)]] * 3}, ["nvfp4:nvidia"]),
            "formats differ: the new report has no mxfp4:even",
        ),
        (
            NEW.model_copy(update={"sites": NEW.sites[:-1]}),
            "site set differs: output model.layers.2 is only in the base",
        ),
        (NEW.model_copy(update={"sites": []}), "the new report is empty"),
    ],
    ids=["depth", "size", "kinds", "calibration", "rule", "formats", "sites", "empty"],
)
def test_what_cannot_be_compared_is_refused_by_its_field(new: Report, words: str) -> None:
    with pytest.raises(ReportError, match=words):
        comparable(BASE, new)


def test_a_format_missing_at_one_site_is_another_site_set() -> None:
    bare = NEW.sites[0].model_copy(update={"formats": {}})
    with pytest.raises(ReportError, match="only in the base report under mxfp4:even"):
        comparable(BASE, NEW.model_copy(update={"sites": [bare, *NEW.sites[1:]]}))


def test_other_models_on_request_share_layers_and_say_what_is_left_out() -> None:
    deeper = make_report({"weight": [[tally(0.1)]] * 5, "output": [[tally(0.3), tally(0.5)]] * 5})
    notes = comparable(BASE, deeper, allow_different_model=True)
    assert "layer_count differs: 3 and 5" in notes
    assert "weight layer(s) 3-4 are in one report only and left out" in notes
    assert len(compare(BASE, deeper, "weight", "mxfp4:even", SQNR).layers) == 3


def test_device_and_dtype_are_said() -> None:
    assert comparable(BASE, with_settings(NEW, device="cuda", dtype="bfloat16")) == [
        "device differs: cpu and cuda",
        "dtype differs: float32 and bfloat16",
    ]


def test_version_0_against_version_1_by_layer() -> None:
    old = version_0({"sqnr_db": 20.0, "relative_error": 0.1}, {"sqnr_db": 18.0, "relative_error": 0.2})
    new = make_report({"output": [[tally(0.3), tally(0.5)]] * 2}, ["mxfp4:floor"])
    notes = comparable(old, new)
    assert "the base report is of version 0: no sums, no standard errors, calibration unknown" in notes
    rows = compare(old, new, "output", "mxfp4:floor", SQNR).layers
    assert [(row.name, row.change) for row in rows] == [("layer 1", pytest.approx(2)), ("layer 0", pytest.approx(0))]
    assert math.isnan(rows[0].standard_error)
    assert all(math.isnan(row.change) for row in compare(old, new, "output", "mxfp4:floor", BY_NAME["cosine"]).layers)
    longer = make_report({"output": [[tally(0.3), tally(0.5)]] * 3}, ["mxfp4:floor"])
    with pytest.raises(ReportError, match=r"output layer\(s\) 2 are in one report only"):
        comparable(old, with_model(longer, layer_count=2))


def test_sites_outside_the_layers_are_compared() -> None:
    def with_head(report: Report, noise: float) -> Report:
        head = Site(
            kind="weight", name="lm_head", role="lm_head", formats={"mxfp4:even": measurement(tally(0.1, noise))}
        )
        return report.model_copy(update={"sites": [*report.sites, head]})

    found = compare(with_head(BASE, 1.0), with_head(NEW, 10.0), "weight", "mxfp4:even", SQNR)
    assert [(row.name, row.change) for row in found.outside] == [("lm_head", pytest.approx(-10))]


def test_the_command_prints_tables_and_json(tmp_path: Path, srdd: Run) -> None:
    base, new = save(BASE, tmp_path, "base.json"), save(with_model(NEW, id="step-2"), tmp_path, "new.json")
    code, out, said = srdd("compare", base, new, "--site", "weight")
    assert (code, said[:5]) == (0, "More:")
    for words in ("model ids differ: toy and step-2", "layer 1", "-3.01", "worse", "weights are not a sample",
                  "2 layers are exactly the same"):  # fmt: skip
        assert words in out, words
    code, out, _ = srdd("compare", base, new, "--json", "--metric", "relative_error")
    document = json.loads(out)
    assert code == 0
    assert [row["kind"] for row in document["comparisons"]] == ["weight", "output"]
    assert document["comparisons"][1]["layers"][0]["change"] == pytest.approx(0.1)
    assert document["comparisons"][0]["layers"][0]["standard_error"] is None


def test_layers_without_numbers_are_not_the_same(tmp_path: Path, srdd: Run) -> None:
    nothing = Tally(nonfinite=1, excluded=1024)
    base = make_report({"output": [[tally(0.3)], [tally(0.4)], [tally(0.5)]]})
    new = make_report({"output": [[tally(0.3)], [tally(0.4)], [nothing]]})
    _, out, _ = srdd("compare", save(base, tmp_path, "base.json"), save(new, tmp_path, "new.json"))
    assert "2 layers are exactly the same" in out
    assert "not measured in both reports for layer 2" in out


@pytest.mark.parametrize("broken", [0, 1])
def test_an_error_of_either_report_is_repeated(broken: int, tmp_path: Path, srdd: Run) -> None:
    said = "ERROR: NaN or infinite values at 1 site(s): output model.layers.2"
    reports = [
        report.model_copy(update={"warnings": [Note(said)] if i == broken else []})
        for i, report in enumerate((BASE, NEW))
    ]
    paths = [save(report, tmp_path, f"{i}.json") for i, report in enumerate(reports)]
    for options in ((), ("--series",), ("--site", "weight")):
        code, out, _ = srdd("compare", *paths, *options)
        assert code == 0
        assert " ".join(out.split()).count(f"{broken}.json: {said}") == 1
    _, printed, _ = srdd("compare", *paths, "--json")
    assert f"{paths[broken]}: {said}" in json.loads(printed)["notes"]


def test_the_command_shows_a_series(tmp_path: Path, srdd: Run) -> None:
    paths = [save(make_report({"weight": [[tally(e)]]}), tmp_path, f"{e}.json") for e in (0.1, 0.2, 0.4)]
    code, out, err = srdd("compare", *paths, "--series", "--metric", "relative_error")
    assert code == 0, err
    assert "+15.00" in out
    assert "slope a report" in out
    code, out, _ = srdd("compare", *paths, "--series", "--json", "--metric", "relative_error")
    assert json.loads(out)["drift"][0]["layers"][0]["slope"] == pytest.approx(0.15)
    assert srdd("compare", paths[0], paths[1], "--series", "--metric", "relative_error")[0] == 0


def test_the_command_compares_rules(tmp_path: Path, srdd: Run) -> None:
    a = save(make_report({"weight": [[tally(0.1)]]}, ["mxfp4:even"]), tmp_path, "a.json")
    b = save(make_report({"weight": [[tally(0.1, noise=2.0)]]}, ["mxfp4:floor"]), tmp_path, "b.json")
    assert srdd("compare", a, b)[0] == 2
    code, out, err = srdd("compare", a, b, "--across", "quant")
    assert code == 0, err
    assert "mxfp4:even to mxfp4:floor" in out
    two = save(make_report({"weight": [[tally(0.1)]]}, ["mxfp4:even", "nvfp4:nvidia"]), tmp_path, "two.json")
    code, out, err = srdd("compare", two, "--across", "quant", "--quant", "mxfp4,nvfp4")
    assert code == 0, err
    assert "exactly the same" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{base}"], "one report is nothing to compare with"),
        (["{base}", "{base}", "{base}"], "--series shows the drift"),
        (["-", "-"], "only one report can come from standard input"),
        (["{base}", "nowhere.json"], "no report at"),
        (["{base}", "{empty}"], "empty"),
        (["{empty}", "{base}"], "is empty: it has no sites"),
        (["{base}", "{base}", "--site", "input"], "the report has weight, output"),
        (["{base}", "{base}", "--quant", "nvfp4"], "has no nvfp4:nvidia"),
        (["{base}", "{base}", "--quant", "fp3"], "unknown format"),
        (["{base}", "{base}", "--metric", "loss"], "expected one of: sqnr_db"),
        (["{base}", "{base}", "--zones", "0-1,1-2"], "are in two zones"),
        (["{base}", "{base}", "--zones", "7"], "--zones 7: holds no layer; compared are 0-2"),
        (["{base}", "{base}", "--across", "model"], "expected quant"),
        (["{base}", "{base}", "--across", "quant"], "both reports have only mxfp4:even"),
        (["{base}", "{base}", "--across", "quant", "--series"], "has no effect with --series"),
        (["{old}", "{old}", "--metric", "saturation_ratio"], "saturation_ratio is not measured in every report"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], words: str, tmp_path: Path, srdd: Run) -> None:
    save(BASE, tmp_path, "base.json")
    save(BASE.model_copy(update={"sites": []}), tmp_path, "empty.json")
    rows = [{"layer_id": 0, "sqnr_db": 20.0}]
    (tmp_path / "old.json").write_text(json.dumps({"config": {}, "report": {"per_layer": rows}}))
    code, out, err = srdd("compare", *(a.format(**{n: tmp_path / f"{n}.json" for n in ("base", "empty", "old")})
                                       for a in arguments))  # fmt: skip
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert words in err


def test_one_report_from_standard_input(tmp_path: Path) -> None:
    base = save(BASE, tmp_path, "base.json")
    done = subprocess.run(
        [sys.executable, "-m", "srdd", "compare", str(base), "-"], input=base.read_bytes(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert b"exactly the same" in done.stdout


def test_metrics_without_sums_have_no_errors() -> None:
    assert Measurement(given={"sqnr_db": Estimate(value=20.0)}).without_each(SQNR) == []


@pytest.mark.parametrize(
    "code",
    [
        "import srdd.analysis.comparison.changes, srdd.analysis.comparison.pairing, srdd.exporters.terminal.comparison",
        "from srdd.cli.app import main; main(['compare', 'no-such-report.json', 'nor-this.json'])",
    ],
)
def test_stays_light(code: str) -> None:
    assert loaded_by(code) == []
