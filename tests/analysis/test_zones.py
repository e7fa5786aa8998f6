"""Zones: the known case by hand, structure found where it is and nowhere else, every layer in exactly one zone."""

import json
import random
from collections.abc import Callable
from itertools import combinations, pairwise
from math import fsum, log
from pathlib import Path

import pytest
import yaml
from builders import make_report, tally
from hypothesis import given
from hypothesis import strategies as st
from known_layers import KNOWN, MEAN, weights

from srdd.analysis.segmentation import (
    bootstrap,
    cuts,
    cuts_of,
    kept_in_samples,
    kept_without_one,
    penalty,
)
from srdd.analysis.series import layer_series
from srdd.analysis.zones import SCHEMES, edges_together, find_zones, label_of
from srdd.core.layers import span
from srdd.documents.zones import ZoneMap
from srdd.errors import NoEffectError, SettingError

Run = Callable[..., tuple[int, str, str]]


def rss(values: list[float], places: tuple[int, ...]) -> float:
    total = 0.0
    for a, b in pairwise([0, *places, len(values)]):
        mean = fsum(values[a:b]) / (b - a)
        total += fsum((v - mean) ** 2 for v in values[a:b])
    return total


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


@given(st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=9), st.integers(1, 5))
def test_the_best_cuts_are_the_best_of_all(values: list[float], runs: int) -> None:
    runs = min(runs, len(values))
    least = min(rss(values, places) for places in combinations(range(1, len(values)), runs - 1))
    found = cuts_of(values, runs)
    assert len(found) == runs - 1
    assert rss(values, found) == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize("draw", ["gauss", "uniform"])
@pytest.mark.parametrize("layers", [6, 12, 28, 80])
def test_white_noise_is_one_zone(layers: int, draw: str) -> None:
    generator = random.Random(layers)
    series = ([getattr(generator, draw)(0, 1) for _ in range(layers)] for _ in range(300))
    assert sum(cuts(values, 6) == () for values in series) >= 285  # 95 in 100


@pytest.mark.parametrize("at", [1, 2, 9, 14, 27])
def test_a_clear_step_is_found_exactly(at: int) -> None:
    generator = random.Random(at)
    for _ in range(50):
        values = [(10.0 if i >= at else 0.0) + generator.gauss(0, 0.3) for i in range(28)]
        assert cuts(values, 2) == (at,)
    assert cuts([0.2] * at + [0.4] * (28 - at), 6, 0.001) == (at,)


def test_two_steps_in_a_short_model_and_none_in_a_flat_one() -> None:
    assert cuts([1.0] * 3 + [5.0] * 3 + [2.0] * 3, 6, 0.1) == (3, 6)
    assert cuts([0.3] * 28, 6, 0.001) == ()
    assert cuts([0.3], 6) == cuts([0.1, 0.9], 6) == ()
    # the docstring's number: 8 log((32 + 0.08) / 0.08) = 47.9
    assert 8 * log(32.08 / 0.08) == pytest.approx(47.9, abs=0.1)
    assert penalty(8) == 15


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


def test_bootstrap_moves_values_as_their_sequences_do() -> None:
    # two sequences with 0 and 2: means 0, 1 or 2 in the samples; the second series does not depend on them
    samples = bootstrap([1.0, 5.0], [[2.0, 0.0], [5.0, 5.0]])
    assert {round(s[0], 9) for s in samples} == {0.0, 1.0, 2.0}
    assert {s[1] for s in samples} == {5.0}
    steps = [[0.0, 0.0, 9.0, 9.0], [0.0, 9.0, 9.0, 9.0]]
    assert kept_in_samples((2,), steps) == [0.5]


def test_stability_says_which_cut_to_trust() -> None:
    firm = [0.0] * 6 + [9.0] * 6
    assert kept_without_one((6,), firm) == [1.0]
    hangs_on_one = [0.0] * 6 + [9.0]
    assert kept_without_one((6,), hangs_on_one) == [pytest.approx(6 / 7)]
    noisy = [[tally(0.2 + 0.02 * s), tally(0.2 - 0.02 * s)] for s in range(6)] + [[tally(0.6), tally(0.6)]] * 6
    _, found = find_zones(layer_series(make_report({"output": noisy})))
    assert [(c.before_layer, c.method) for c in found] == [(6, "bootstrap over 2 sequences")]
    assert found[0].stability == 1.0


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
    assert "cut before layer 10: found in 100%" in shown


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
