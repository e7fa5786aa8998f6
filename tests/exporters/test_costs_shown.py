"""Costs on the page, in Markdown and in pictures: they come first, with their errors; errors of sites stand beside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from builders import make_costs, make_report, tally
from priced_reports import KLS, PLAIN, PRICED, SPEC, WORST, report

from srdd.analysis.bundle import Bundle, View, gather
from srdd.analysis.site_costs import site_costs
from srdd.documents.report import Report
from srdd.documents.schema import Site, measurement
from srdd.exporters.page.data import build
from srdd.exporters.report import csv as csv_table
from srdd.exporters.report import markdown, picture

Run = Callable[..., tuple[int, str, str]]


def with_inputs() -> Report:
    """The priced report with the input that q, k and v read in layer 0, and its three weights."""
    measured = {SPEC: measurement(tally(0.1))}
    attention = "model.layers.0.self_attn"
    names = [f"{attention}.{name}_proj" for name in "qkv"]
    sites = [Site(kind="weight", name=name, role=name[-6:], layer=0, index=1, formats=measured) for name in names]
    sites.append(
        Site(kind="input", name=names[0], role="q_proj", layer=0, index=1, members=names[::-1], formats=measured)
    )
    return PRICED.model_copy(update={"sites": [*PRICED.sites, *sites]})


def test_the_page_starts_with_the_cost() -> None:
    data, _ = build(Bundle(PRICED), View(), "0")
    assert data["start"] == {"kind": "output", "format": SPEC, "metric": "predicted_kl"}
    found = data["overview"]["output"][SPEC]
    assert [row["layer"] for row in found["worst"]][:3] == [WORST, 10, 0]
    assert found["worst"][0]["values"]["predicted_kl"] == [pytest.approx(0.9), pytest.approx(0.045)]
    assert found["worst"][0]["values"]["relative_error"][0] == pytest.approx(0.2)
    assert found["ranked_by"] == "predicted_kl of layers under mxfp4:even W4A4"
    assert (found["verdict"], found["flagged"]) == ("higher_precision", 0)
    for kind in ("weight", "output"):
        layers = data["layers"][kind]
        assert layers["values"][SPEC]["predicted_kl"] == pytest.approx(KLS)
        assert layers["errors"][SPEC]["predicted_kl"] == pytest.approx([0.05 * kl for kl in KLS])
    assert data["multipliers"]["source"].startswith("strategy inverse: predicted_kl of layers")
    assert data["zones"]["source"] == "found from predicted_kl of layers under mxfp4:even W4A4"
    assert not any("predict damage poorly" in text for text in data["warnings"])
    commands = [step["command"] for step in found["steps"] if step["command"]]
    assert not any("--site" in command or "impact" in command for command in commands)


def test_without_costs_the_page_says_so_and_starts_as_before() -> None:
    data, _ = build(Bundle(PLAIN), View(), "0")
    assert data["start"]["metric"] == "relative_error"
    assert any("predict damage poorly" in text for text in data["warnings"])
    assert data["overview"]["output"][SPEC]["ranked_by"] is None
    assert "predicted_kl" not in data["values"][SPEC]


def test_sites_have_the_cost_of_what_they_feed_or_hold() -> None:
    costs = [row.value("predicted_kl") for row in site_costs(with_inputs(), SPEC)]
    whole, group = 0.1, 0.1 * 0.5
    assert costs[-4:-1] == pytest.approx([group / 3] * 3)
    assert costs[-1] == pytest.approx(group)
    assert costs[0] == pytest.approx(whole * 0.25)  # down_proj
    assert costs[12] == pytest.approx(whole)  # the output of layer 0
    data, _ = build(Bundle(with_inputs()), View(), "0")
    assert data["values"][SPEC]["predicted_kl"] == pytest.approx(costs)
    assert site_costs(PLAIN, SPEC)[0].costs == {}


def test_markdown_leads_with_the_cost() -> None:
    text = markdown.render(Bundle(PRICED), View())
    assert text.splitlines()[2].startswith("**A few layers carry half of the cost")
    rows = [line for line in text.splitlines() if line.startswith(f"| {WORST} |")]
    assert rows[0].startswith("| 7 | **0.900 ± 0.045** | 20.00 ± 0.00 | 20.00 ± 0.00 |")
    assert "| mxfp4:even | 4.25 | 2.1000 ± 0.1050 | 2 of 12 |" in text


def test_a_format_without_costs_is_judged_by_its_errors() -> None:
    both = make_report({"output": [[tally(0.3)] * 2] * 12}, [SPEC, "nvfp4:nvidia"])
    both = both.model_copy(update={"costs": make_costs({"nvfp4:nvidia": KLS})})
    found = build(Bundle(both), View(), "0")[0]["overview"]["output"]
    assert found[SPEC]["ranked_by"] is None
    assert found["nvfp4:nvidia"]["ranked_by"] == "predicted_kl of layers under nvfp4:nvidia W4A4"


@pytest.mark.parametrize("figure", ["profile", "zones", "heatmap"])
def test_pictures_draw_the_cost(figure: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = picture.render(Bundle(PRICED), View(suffix=".svg", figure=figure)).decode()
    other = report(make_costs({SPEC: KLS[::-1]}))
    assert drawn != picture.render(Bundle(other), View(suffix=".svg", figure=figure)).decode()


NOISY = report(make_costs({SPEC: KLS}, traces=[4.0] * 6 + [16.0] * 6))


@pytest.mark.parametrize("form", ["html", "md", "svg", "csv"])
@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("predicted_kl", "--metric predicted_kl: no "),
        ("noise_sensitivity", "--metric noise_sensitivity: no "),
        ("measured_kl", "--metric measured_kl: no "),
        ("predicted_lk", "did you mean predicted_kl?"),
    ],
)
def test_a_metric_that_nothing_holds_is_one_line(form: str, metric: str, words: str, tmp_path: Path, srdd: Run) -> None:
    PLAIN.save(tmp_path / "plain.json")
    out = tmp_path / f"out.{form}"
    code, printed, said = srdd("report", tmp_path / "plain.json", "--metric", metric, "--out", out)
    assert (code, printed, said.count("\n"), out.exists()) == (2, "", 1, False)
    assert words in said


def test_the_metric_that_is_asked_for_is_the_one_that_is_shown() -> None:
    data, _ = build(Bundle(NOISY), View(metric="sqnr_db"), "0")
    found = data["overview"]["output"][SPEC]
    assert data["start"]["metric"] == found["ordered_by"] == "sqnr_db"
    assert found["ranked_by"] is None
    shown = [row["values"]["sqnr_db"][0] for row in found["worst"]]
    assert shown == sorted(shown)
    assert any(text.startswith("sqnr_db could not be compared with the predicted KL") for text in found["sure"])
    assert data["multipliers"]["source"].startswith("strategy variable: sqnr_db of output sites")
    noise, _ = build(Bundle(NOISY), View(metric="noise_sensitivity"), "0")
    assert [row["layer"] for row in noise["overview"]["output"][SPEC]["worst"]] == [*range(6, 12), *range(4)]
    assert noise["layers"]["output"]["values"][SPEC]["noise_sensitivity"] == pytest.approx([4.0] * 6 + [16.0] * 6)
    assert noise["zones"]["source"] == "found from noise_sensitivity of layers"
    assert "| layer | noise_sensitivity |" in markdown.render(Bundle(NOISY), View(metric="noise_sensitivity"))
    lines = csv_table.render(Bundle(NOISY), View(metric="predicted_kl")).splitlines()
    assert len(lines) == 25
    assert lines[-1].endswith("predicted_kl,0.1,0.0050000000000000044")


def test_the_page_recommends_noise_of_equal_damage() -> None:
    data, _ = build(Bundle(NOISY), View(), "0")
    assert data["multipliers"]["source"].startswith("strategy equal-damage: noise_sensitivity of layers")
    assert any("the model breaks at sigma" in line for line in data["multipliers"]["dose"])
    steps = data["overview"]["output"][SPEC]["steps"]
    noise = next(step for step in steps if step["section"] == "multipliers")
    assert noise["command"] == "srdd multipliers srdd-report.json --strategy equal-damage --out rin.yaml"
    assert any(
        text == "predicted_kl against measured KL: Spearman 0.91 on SmolLM2."
        for text in data["overview"]["output"][SPEC]["sure"]
    )


def test_costs_that_are_given_rank_the_page(tmp_path: Path) -> None:
    PLAIN.save(tmp_path / "plain.json")
    PRICED.save(tmp_path / "priced.json")
    bundle = gather(tmp_path / "plain.json", impact=tmp_path / "priced.json")
    data, _ = build(bundle, View(), "0")
    assert data["start"]["metric"] == "predicted_kl"
    assert data["overview"]["output"][SPEC]["worst"][0]["layer"] == WORST
    assert not any("predict damage poorly" in text for text in data["warnings"])
