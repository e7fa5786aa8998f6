"""Documents beside the report, on the page and in Markdown: probe, experiment, costs of Linears, the report itself."""

import base64
import gzip
import math
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from builders import make_report, tally
from hostile import NAMES, hostile_report, impact_document, noise_documents

from srdd.analysis.bundle import Bundle, View, gather
from srdd.documents.parts import Note, Part
from srdd.documents.report import Report
from srdd.exporters.page.data import build
from srdd.exporters.report import html as report_html
from srdd.exporters.report import markdown as report_markdown
from srdd.exporters.report.html import MOST_BYTES, packed

Run = Callable[..., tuple[int, str, str]]


def toy(**options: Any) -> Report:
    return make_report({"output": [[tally(0.2 + 0.01 * i)] * 2 for i in range(6)]}, **options)


def written(document: Part, path: Path) -> Path:
    path.write_text(document.model_dump_json(), encoding="utf-8")
    return path


def test_curves_of_the_page_are_the_probes() -> None:
    report = toy()
    probe, _ = noise_documents(report.model)
    page = build(Bundle(report, probe=probe), View(), "0")[0]["probe"]
    (chart,) = page["charts"]
    assert chart["ticks"] == ["0", "0.01", "0.02", "0.04"]
    assert chart["places"] == [0.005, 0.01, 0.02, 0.04]
    assert [profile["name"] for profile in chart["profiles"]] == ["global", "guided"]
    whole, broken = chart["profiles"][0]["curves"]
    losses = [3 + 10 * 0.02 + seed / 10 for seed in range(3)]
    assert whole["loss"]["mean"][0] == 3
    assert whole["loss"]["error"][0] is None, "without noise there are no seeds"
    assert whole["loss"]["mean"][2] == pytest.approx(fmean(losses))
    assert whole["loss"]["error"][2] == pytest.approx(stdev(losses) / math.sqrt(3))
    assert whole["agreement"]["mean"] == [100, 75, 75, 75]
    assert broken["lost"] == [0, 0, 0, 1]
    assert broken["loss"]["mean"][3] is None
    assert any("sigma 0.04 collapsed the model with 1 of 3 seeds" in said for said in page["said"])
    assert any("at equal damage guided noise is 1.000 times as large" in said for said in page["said"])
    first, last = page["breaks"][0], page["breaks"][-1]
    assert (first["sigma"], first["interval"], first["relative"]) == (0.025, (0.02, 0.03), 25)
    assert (last["sigma"], last["interval"]) == (None, None)


def test_arms_and_comparisons_are_the_experiments() -> None:
    report = toy()
    _, experiment = noise_documents(report.model)
    page = build(Bundle(report, experiment=experiment), View(), "0")[0]["experiment"]
    assert page["verdict"] == experiment.verdict
    assert [arm["losses"] for arm in page["arms"]] == [arm.losses for arm in experiment.arms]
    assert [arm["text"] for arm in page["arms"]] == ["3.1000 ± 0.1000", "collapsed in 1 of 3"]
    assert [row["p_holm"] for row in page["comparisons"]] == [0.25, None]


def test_linears_and_groups_beside_their_predictions() -> None:
    report = toy()
    names = tuple(f"layers.0.linear_{i}" for i in range(40))
    page = build(Bundle(report, impact_document(report.model, names)), View(), "0")[0]["impact"]
    (linears,), (groups,) = page["linears"], page["groups"]
    assert (len(linears["rows"]), linears["of"], linears["by"]) == (30, 40, "predicted KL (W+A)")
    assert linears["rows"][0]["module"] == names[0]
    assert linears["rows"][1]["kl"] == [{"value": 0.125, "error": 0.001}] * 3
    assert groups["by"] == "measured KL (W+A)"
    measured, predicted = {"value": 0.25, "error": 0.01}, {"value": 0.125, "error": 0.001}
    assert groups["rows"][1] == {"name": names[1], "measured": measured, "predicted": predicted}


def test_the_report_travels_inside_its_page(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    toy().save(path)
    text = report_html.render(gather(path), View())
    found = re.search(r'id="report">(.*?)</script>', text)
    assert found is not None
    assert gzip.decompress(base64.b64decode(found[1])) == path.read_bytes()
    assert text == report_html.render(gather(path), View())
    assert packed(b"").why_not == ""
    assert packed(None).why_not == "the page was made from a report in memory"


def test_a_large_report_stays_outside_and_the_page_says_so() -> None:
    import random

    found = packed(random.Random(0).randbytes(MOST_BYTES))
    assert found.text == ""
    assert found.why_not.startswith("packed it has 0.8 MB, the page takes up to 0.6 MB")
    data = build(Bundle(toy()), View(), "0")[0]
    assert "report_missing" not in data, "the exporter packs, the data knows nothing of files"


def test_markdown_has_breaks_and_comparisons_folded() -> None:
    report = toy()
    probe, experiment = noise_documents(report.model)
    bundle = Bundle(report, impact_document(report.model), probe=probe, experiment=experiment)
    text = report_markdown.render(bundle, View())
    assert "<summary>How much noise it bears: w16a16, loss ratio above 1.1</summary>" in text
    assert "| w16a16 | w16a16 | guided | 0.025 | 0.02 to 0.03 | 25.0 | w4a4 |" in text
    assert "<summary>Does guided noise help</summary>" in text
    assert "| w16a16 - w16a16 | +0.0500 | -0.1000 to +0.2000 | 0.031 | 0.25 | w16a16 |" in text
    assert "<summary>Fusion groups, mxfp4:even: the 2 costliest of 2, by measured KL (W+A)</summary>" in text
    assert text.count("<details>") == text.count("</details>")


def test_markdown_of_hostile_documents_is_plain() -> None:
    report = hostile_report()
    probe, experiment = noise_documents(report.model, NAMES)
    bundle = Bundle(report, impact_document(report.model, NAMES), probe=probe, experiment=experiment)
    text = report_markdown.render(bundle, View())
    assert set(re.findall(r"<(/?\w+)", text)) == {"details", "/details", "summary", "/summary"}
    outside = re.sub(r"<summary>.*?</summary>", "", text)
    assert not re.search(r"(?<!\\)\]\(|https?://|www\.|@somebody|[^\\]#1 ", outside)
    cells = {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("| ")}
    assert cells <= {3, 4, 6, 7, 8, 9}


@pytest.mark.parametrize("option", ["probe", "experiment"])
def test_another_model_is_refused_in_one_line(option: str, tmp_path: Path, srdd: Run) -> None:
    report = tmp_path / "report.json"
    toy().save(report)
    mine = toy().model
    other = mine.model_copy(update={"layer_count": 7})
    for model, code in ((mine, 0), (other, 2)):
        document = written(
            dict(zip(("probe", "experiment"), noise_documents(model), strict=True))[option], tmp_path / "d"
        )
        for suffix in (".html", ".md"):
            words = (f"--{option}", document, "--out", tmp_path / f"x{suffix}", "--force")
            found, _, err = srdd("report", report, *words)
            assert found == code, err
            assert err.count("\n") == 1
            assert code == 0 or "another model: layer_count is 7, in the report 6" in err


def test_an_experiment_of_another_report_is_said(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    toy().save(path)
    _, experiment = noise_documents(toy().model)
    notes = gather(path, experiment=written(experiment, tmp_path / "e.json")).notes
    assert notes == ["the experiment chose its layers from another report of this model"]


def test_warnings_of_the_report_are_not_said_twice() -> None:
    report = toy().model_copy(update={"warnings": [Note("w16a16")]})
    probe, experiment = noise_documents(report.model)
    page = build(Bundle(report, probe=probe, experiment=experiment), View(), "0")[0]
    assert (page["probe"]["warnings"], page["experiment"]["warnings"]) == (["w4a4"], ["w4a4"])
