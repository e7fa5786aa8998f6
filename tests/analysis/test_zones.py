"""Zones: the known case by hand, every layer in exactly one zone, how firm a cut is, and what the command says."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import log10
from pathlib import Path

import pytest
import yaml
from builders import make_report, tally
from known_layers import KNOWN, MEAN, weights

from srdd.analysis.layer_costs import Priced
from srdd.analysis.resampling import DRAWS, draws, found_again, kept_without_one
from srdd.analysis.series import layer_series
from srdd.analysis.zone_words import cut_words, grade_of, one_zone_words, outlier_words
from srdd.analysis.zones import SCHEMES, edges_together, find_zones, label_of, survey
from srdd.core.layers import span
from srdd.core.metrics import BY_NAME, COSTS, METRICS
from srdd.core.uncertainty import total
from srdd.documents.costs import Cost
from srdd.documents.report import Report
from srdd.documents.schema import measurement
from srdd.documents.zones import Cut, ZoneMap
from srdd.errors import NoEffectError, SettingError

Run = Callable[..., tuple[int, str, str]]


def test_the_known_case() -> None:
    zones, _ = find_zones(weights([m * MEAN for m in KNOWN]), "five")
    assert [z.span for z in zones] == ["0-3", "4-9", "10-19", "20-25", "26-27"]
    means = [100 * z.metrics["relative_error"].mean for z in zones]
    assert [round(m, 2) for m in means] == [32.58, 35.98, 40.55, 34.70, 30.39]
    assert max(zones, key=lambda z: z.ratio).name == "middle"
    assert [z.label for z in zones] == ["low", "medium", "high", "medium", "low"]
    assert zones[2].worst_layer == 15
    assert (zones[2].metrics["relative_error"].min, zones[2].metrics["relative_error"].max) == pytest.approx(
        (1.06 * MEAN, 1.17 * MEAN)
    )


@pytest.mark.parametrize(("scheme", "wanted"), [("five", 5), ("edge-middle", 3), ("thirds", 3)])
def test_named_schemes_hold_every_layer_once(scheme: str, wanted: int) -> None:
    assert scheme in SCHEMES
    for depth in range(1, 130):
        zones, found = find_zones(weights([0.3] * depth), scheme)
        assert [layer for zone in zones for layer in zone.layers] == list(range(depth))
        assert len(zones) == wanted if depth >= wanted else 1 <= len(zones) <= depth
        assert all(zone.label == "medium" for zone in zones)
        assert found == []


def test_both_edges_together_as_the_study_has_them() -> None:
    series = weights([m * MEAN for m in KNOWN])
    zones, _ = find_zones(series, "edge-middle")
    (both,) = edges_together(series, zones)
    assert (both.name, both.span) == ("both edges", "0-5,23-27")
    assert round(100 * both.metrics["relative_error"].mean, 2) == 32.79
    assert round(100 * zones[1].metrics["relative_error"].mean, 2) == 38.82
    assert (both.worst_layer, both.label) == (5, "low")
    assert edges_together(series, find_zones(series, "five")[0]) == []


def test_both_edges_are_printed_and_written(tmp_path: Path, srdd: Run) -> None:
    path = tmp_path / "report.json"
    make_report({"output": [[tally(m * MEAN)] * 2 for m in KNOWN]}, ["mxfp4:floor"]).save(path)
    shown = srdd("zones", path, "--scheme", "edge-middle")[1]
    row = next(line for line in shown.splitlines() if "both edges" in line)
    assert "32.79 (" in row
    assert "0-5,23-27" in row
    tree = json.loads(srdd("zones", path, "--scheme", "edge-middle", "--json")[1])
    assert [zone["name"] for zone in tree["together"]] == ["both edges"]
    assert json.loads(srdd("zones", path, "--json")[1])["together"] == []


def test_edge_middle_of_28() -> None:
    zones, _ = find_zones(weights([0.3] * 28), "edge-middle")
    assert [z.span for z in zones] == ["0-5", "6-22", "23-27"]


def test_sqnr_is_an_error_upside_down() -> None:
    rows = [[tally(0.3, noise)] for noise in (1.0,) * 6 + (4.0,) * 6]
    zones, found = find_zones(layer_series(make_report({"weight": rows}), metric="sqnr_db"))
    assert [(z.span, z.label, z.worst_layer) for z in zones] == [("0-5", "low", 0), ("6-11", "high", 6)]
    assert zones[0].metrics["sqnr_db"].mean == pytest.approx(20)
    assert zones[1].ratio == pytest.approx(0.2 / 0.15)  # noise over signal 0.1 and 0.2
    assert [(c.before_layer, c.stability, c.method) for c in found] == [(6, 1.0, "one layer left out")]


def stepped(sequences: int, spread: float = 0.0) -> Report:
    """Six layers at 0.2 and six at 0.6; sequences differ by `spread`."""
    off = [spread * (s - (sequences - 1) / 2) for s in range(sequences)]
    return make_report({"output": [[tally(level + o) for o in off] for level in [0.2] * 6 + [0.6] * 6]})


def test_documents_are_drawn_whole() -> None:
    drawn = draws([0, 0, 1])  # two documents, of two sequences and of one
    assert {tuple(sorted(draw)) for draw in drawn} == {(0, 0, 1, 1), (0, 1, 2), (2, 2)}
    assert drawn == draws([0, 0, 1])
    assert len(drawn) == DRAWS


def test_a_number_of_a_draw_is_made_of_its_sums() -> None:
    one, other = tally(0.1, noise=1.0, power=100.0), tally(0.4, noise=9.0, power=300.0)
    measured = measurement(total([one, other]), [one, other])
    sqnr, relative = METRICS[0], BY_NAME["relative_error"]
    assert sqnr.name == "sqnr_db"
    assert measured.resampled(sqnr, [0, 1]) == measured.value("sqnr_db")
    assert measured.resampled(sqnr, [1, 1, 0]) == pytest.approx(10 * log10(700 / 19))
    assert measured.resampled(relative, [0, 0, 1]) == pytest.approx(0.2)
    assert (measured.sequence_count(sqnr), measurement(one).sequence_count(sqnr)) == (2, 0)
    priced = Priced({"predicted_kl": Cost.of([0.1, 0.4])})
    assert priced.resampled(COSTS[0], [0, 0, 1]) == pytest.approx(0.2)
    assert (priced.sequence_count(COSTS[0]), priced.sequence_count(COSTS[1])) == (2, 0)
    assert Priced({"predicted_kl": Cost(value=1.0)}).sequence_count(COSTS[0]) == 0


def test_found_again_is_at_most_one_layer_away() -> None:
    answers = iter([(5,), (6,), (7,), (8,), ()])
    assert found_again((6,), [[0.0]] * 5, lambda _: next(answers)) == [0.6]


def test_a_cut_of_one_document_is_not_firm() -> None:
    # five documents of two sequences each; the step stands in the last one alone and is drawn in 1 - 0.8^5 = 67 %
    rows = [[tally(0.2 + 0.001 * (layer % 3))] * 8 + [tally(0.2 + level)] * 2 for layer, level in enumerate(STEP)]
    series = replace(layer_series(make_report({"output": rows})), documents=(0, 0, 1, 1, 2, 2, 3, 3, 4, 4))
    (cut,) = find_zones(series)[1]
    assert (cut.before_layer, cut.method, cut.units, grade_of(cut)) == (6, "5 documents resampled", 5, "fair")
    assert cut.stability == pytest.approx(1 - 0.8**5, abs=0.12)
    everywhere = [[tally(0.2 + 0.001 * (layer % 3) + level)] * 10 for layer, level in enumerate(STEP)]
    firm = replace(layer_series(make_report({"output": everywhere})), documents=(0, 0, 1, 1, 2, 2, 3, 3, 4, 4))
    assert [grade_of(c) for c in find_zones(firm)[1]] == ["firm"]


STEP = [0.0] * 6 + [0.3] * 6


def test_sequences_are_documents_where_nothing_else_is_known() -> None:
    for count, grade in ((2, "fair"), (4, "fair"), (5, "firm")):
        (cut,) = find_zones(layer_series(stepped(count, 0.01)))[1]
        assert (cut.before_layer, cut.stability, cut.units) == (6, 1.0, count)
        assert (cut.method, grade_of(cut)) == (f"{count} sequences resampled", grade)


def test_without_sequences_firm_is_not_claimed() -> None:
    (cut,) = find_zones(weights([0.2] * 6 + [0.6] * 6))[1]
    assert (cut.method, cut.stability, cut.units, grade_of(cut)) == ("one layer left out", 1.0, None, "not known")
    assert cut_words(cut) == (
        "cut before layer 6: found again in 100% (one layer left out), "
        "firm or not is not known: there are no documents to resample"
    )
    (one,) = find_zones(layer_series(stepped(1)))[1]  # of one sequence no other draw can be made
    assert (one.units, grade_of(one)) == (None, "not known")


def test_grades() -> None:
    def grade(stability: float, units: int | None) -> str:
        return grade_of(Cut(before_layer=1, stability=stability, method="", units=units))

    assert [grade(share, 16) for share in (0.9, 0.89, 0.5, 0.49)] == ["firm", "fair", "fair", "weak"]
    assert [grade(1.0, units) for units in (4, 5, None)] == ["fair", "firm", "not known"]
    assert grade(0.49, None) == "weak"
    few = Cut(before_layer=3, stability=1.0, method="2 documents resampled", units=2)
    assert cut_words(few).endswith("(2 documents resampled), fair: firm takes 5 at least")


def test_stability_without_sequences() -> None:
    assert kept_without_one((6,), [0.0] * 6 + [9.0] * 6) == [1.0]
    hangs_on_one = [0.0] * 6 + [9.0]
    assert kept_without_one((6,), hangs_on_one) == [pytest.approx(6 / 7)]


def test_an_outlier_layer_is_named_and_in_no_mean() -> None:
    errors = [0.3, 0.31] * 6
    errors[7] = 0.9
    found = survey(weights(errors))
    assert [zone.span for zone in found.zones] == ["0-11"]
    assert [(o.layer, round(o.value, 9), o.between) for o in found.outliers] == [
        (7, 0.9, (pytest.approx(0.3), pytest.approx(0.31)))
    ]
    assert (found.zones[0].worst_layer, found.zones[0].ratio) == (7, 1.0)
    assert found.zones[0].metrics["relative_error"].max == pytest.approx(0.31)
    assert found.zones[0].metrics["relative_error"].mean == pytest.approx(3.35 / 11)
    assert outlier_words(found.outliers, BY_NAME["relative_error"]) == [
        "outlier layer 7: 90.00 % where its neighbours let expect 30.00 to 31.00 %; it is no zone and counts in no mean"
    ]
    assert survey(weights(errors), "thirds").outliers == []


def test_a_ramp_is_told_in_words() -> None:
    ramp = survey(weights([0.30 + 0.01 * layer for layer in range(12)]))
    assert (len(ramp.zones), ramp.cuts, ramp.outliers) == (1, [], [])
    assert one_zone_words(ramp.ramp, BY_NAME["relative_error"]) == (
        "One zone, a ramp: relative_error rises along the depth, from about 30.00 to 41.00 %, without a step."
    )
    bend = survey(weights([0.4 - 0.001 * (layer - 7) ** 2 for layer in range(14)]))
    assert one_zone_words(bend.ramp, BY_NAME["relative_error"]) == (
        "One zone, a bend: relative_error rises, then falls along the depth, "
        "from about 35.10 to 40.00 near layer 7 to 36.40 %, without a step."
    )
    flat = one_zone_words(survey(weights([0.3] * 12)).ramp, BY_NAME["relative_error"])
    assert flat == "One zone: no cut stands out from how much each layer differs from the next."


def test_outliers_and_ramps_are_printed_and_written(tmp_path: Path, srdd: Run) -> None:
    path = tmp_path / "report.json"
    errors = [0.30 + 0.01 * layer for layer in range(12)]
    errors[5] = 0.9
    make_report({"output": [[tally(e)] * 2 for e in errors]}, ["mxfp4:floor"]).save(path)
    shown = srdd("zones", path)[1]
    assert "ramp: relative_error rises along the depth, from about 30.00 to 41.00 %" in " ".join(shown.split())
    assert "outlier layer 5: 90.00 %" in shown
    assert next(line for line in shown.splitlines() if line.startswith("   5 ")).endswith("outlier")
    document = ZoneMap.model_validate_json(srdd("zones", path, "--json")[1])
    assert [outlier.layer for outlier in document.outliers] == [5]
    assert document.ramp is not None
    assert (document.ramp.shape, document.layers[5]) == ("rises", "zone 1")
    assert "One zone" not in srdd("zones", path, "--max-zones", "1")[1]  # zones were not looked for
    old = json.loads(document.model_dump_json(exclude={"outliers", "ramp"}))  # as they were written before
    assert ZoneMap.model_validate(old).outliers == []


def test_label_and_span() -> None:
    assert [label_of(r) for r in (0.95, 0.951, 1.049, 1.05)] == ["low", "medium", "medium", "high"]
    assert (span([0, 1, 2, 5, 7, 8]), span([4])) == ("0-2,5,7-8", "4")


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("six", "scheme='six': 'six' not understood; expected auto, five"),
        ("0-3,3-9", "3-9 does not follow layer 3"),
        ("0-3,5-9", r"leaves out layer\(s\) 4"),
        ("0-9,10-12", "10-12 holds no layer; the report has 0-9"),
        ("9-0", "9-0 is no range of layers"),
        ("", "not understood"),
    ],
)
def test_bad_schemes(scheme: str, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        find_zones(weights([0.3] * 10), scheme)


def test_max_zones() -> None:
    series = weights([0.1] * 6 + [0.5] * 6 + [0.9] * 6)
    assert [len(find_zones(series, max_zones=n)[0]) for n in (1, 2, 3, 6)] == [1, 2, 3, 3]
    for scheme, most, error in (("auto", 0, SettingError), ("auto", 19, SettingError), ("five", 3, NoEffectError)):
        with pytest.raises(error, match="max_zones"):
            find_zones(series, scheme, most)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    make_report({"output": [[tally(m * MEAN), tally(m * MEAN)] for m in KNOWN]}, ["mxfp4:floor"]).save(path)
    return path


def test_command(path: Path, tmp_path: Path, srdd: Run) -> None:
    out = tmp_path / "zones.yaml"
    code, shown, said = srdd("zones", path, "--scheme", "five", "--out", out)
    assert (code, said.split()[-3:]) == (0, ["Zone", "map:", str(out)])
    assert said.startswith("warning: no costs in this report")
    assert "40.55 (38.58 to 42.59)" in shown
    assert "mxfp4:floor" in shown
    document = ZoneMap.model_validate(yaml.safe_load(out.read_text()))
    assert document.layers[15] == "middle"
    assert document.provenance.quant == "mxfp4:floor"
    _, printed, _ = srdd("zones", path, "--scheme", "five", "--json")
    assert ZoneMap.model_validate(json.loads(printed)) == document
    code, shown, _ = srdd("zones", path)
    assert code == 0
    assert "One zone: no cut stands out" in shown
    stepped(8, 0.01).save(tmp_path / "stepped.json")
    code, shown, _ = srdd("zones", tmp_path / "stepped.json")
    assert code == 0
    assert "cut before layer 6: found again in 100% (8 sequences resampled), firm" in shown


def test_version_0_has_zones_and_says_what_it_lacks(tmp_path: Path, srdd: Run) -> None:
    rows = [{"layer_id": i, "relative_error": m * MEAN, "sqnr_db": 17.0} for i, m in enumerate(KNOWN)]
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"report": {"per_layer": rows}}))
    code, shown, said = srdd("zones", old, "--scheme", "five")
    assert code == 0
    assert "34.70" in shown
    assert "saturation was the share of values near the maximum" in " ".join(said.split())
    code, _, shown = srdd("zones", old, "--metric", "cosine")
    assert code == 2
    assert "cosine of output under mxfp4:floor is not in this report" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--site", "weight"], "the report has output"),
        (["--metric", "crest"], "cannot rank layers"),
        (["--metric", "predicted_kl"], "--metric predicted_kl: no costs in this report; scan again with costs"),
        (["--quant", "nvfp4"], "the report has mxfp4:floor"),
        (["--out", "zones.txt"], "'.txt'; use .json, .yaml"),
        (["--force"], "--force has no effect without --out"),
        (["--max-zones", "0"], "--max-zones 0: expected 1 to 28"),
        (["--max-zones", "29"], "--max-zones 29: expected 1 to 28"),
    ],
)
def test_bad_options(path: Path, srdd: Run, arguments: list[str], words: str) -> None:
    code, printed, shown = srdd("zones", path, *arguments)
    assert (code, printed) == (2, "")
    assert words in shown.splitlines()[-1]


def test_an_existing_file_is_kept_unless_forced(path: Path, tmp_path: Path, srdd: Run) -> None:
    out = tmp_path / "zones.json"
    out.write_text("mine")
    code, _, shown = srdd("zones", path, "--out", out)
    assert (code, out.read_text()) == (2, "mine")
    assert "replace it with --force" in shown
    assert srdd("zones", path, "--out", out, "--force")[0] == 0
    assert json.loads(out.read_text())["document"] == "srdd-zones"
