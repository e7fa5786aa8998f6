"""Costs on the page, in Markdown and in pictures: they come first, with their errors; errors of sites stand beside."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import make_costs, make_report, tally
from priced_reports import KLS, PLAIN, PRICED, SPEC, WORST, report

from srdd.analysis.bundle import Bundle, View
from srdd.analysis.site_costs import site_costs
from srdd.documents.report import Report
from srdd.documents.schema import Site, measurement
from srdd.exporters.page.data import build
from srdd.exporters.report import markdown, picture


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
