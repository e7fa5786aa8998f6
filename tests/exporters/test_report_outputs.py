"""`srdd report`: what each output holds, that names stay names, and which options are refused where."""

import csv
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from builders import make_costs, make_report, report_of_costs, tally
from hostile import NAMES, SPEC, hostile_report

from srdd.analysis.bundle import Bundle, View, gather
from srdd.analysis.first_look import zones_of
from srdd.analysis.overview import overview
from srdd.core.metrics import METRICS
from srdd.core.tally import Tally
from srdd.documents.costs import Cost, Costs, LayerCost
from srdd.documents.parts import Note
from srdd.documents.report import Report
from srdd.documents.schema import measurement
from srdd.errors import SettingError
from srdd.exporters.next_steps import next_steps
from srdd.exporters.page.data import build
from srdd.exporters.report import (
    csv as report_csv,
)
from srdd.exporters.report import (
    html as report_html,
)
from srdd.exporters.report import (
    markdown as report_markdown,
)
from srdd.exporters.report import (
    picture as report_picture,
)
from srdd.exporters.report import (
    report_exporters,
)

Run = Callable[..., tuple[int, str, str]]
MXFP4, MXFP8 = "mxfp4:even", "mxfp8_e4m3:rceil"


def toy(noises: tuple[float, ...] = (1.0, 1.0, 1.0, 4.0, 1.0, 1.0), **options: Any) -> Report:
    """Six layers of 20 dB, the fourth of 14; two sequences that differ a little."""
    rows = [[tally(0.22, n / 2, 50.0), tally(0.24, n / 2, 55.0)] for n in noises]
    weights = [[tally(0.22, n)] for n in noises]
    return make_report({"weight": weights, "output": rows}, (MXFP4, MXFP8), **options)


class Scripts(HTMLParser):
    """The elements of a page as an HTML parser sees them: name, attributes, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.found:
            tag, attributes, text = self.found[-1]
            self.found[-1] = (tag, attributes, text + data)

    def data(self, name: str) -> Any:
        return json.loads(next(text for tag, a, text in self.found if tag == "script" and a.get("id") == name))


def page_of(report: Report, **beside: Any) -> Scripts:
    return Scripts(report_html.render(Bundle(report, **beside), View()))


def test_every_number_of_the_page_is_the_reports() -> None:
    report = toy()
    parsed = page_of(report)
    page, sums = parsed.data("data"), parsed.data("sums")
    for i, site in enumerate(report.sites):
        assert page["sites"]["name"][i] == site.name
        for spec, measured in site.formats.items():
            assert sums["tallies"][spec][i] == measured.tally
            for metric in METRICS:
                value = measured.value(metric.name)
                column = page["values"][spec].get(metric.name, [None] * len(report.sites))
                if isinstance(column, str):  # the same as under that format
                    column = page["values"][column][metric.name]
                found = column[i]
                assert found == (value if math.isfinite(value) else None)
    outputs = [row for row in report.layers if row.kind == "output"]
    shown = page["layers"]["output"]
    assert shown["values"][MXFP4]["sqnr_db"] == [row.formats[MXFP4].value("sqnr_db") for row in outputs]
    assert shown["errors"][MXFP4]["sqnr_db"] == [
        pytest.approx(row.formats[MXFP4].error("sqnr_db"), rel=1e-5, nan_ok=True) for row in outputs
    ]


def test_a_column_that_formats_share_stands_once() -> None:
    values = page_of(toy()).data("data")["values"]
    first, *others = values
    for spec in others:
        assert values[spec]["rms"] == values[spec]["kurtosis"] == first
        assert isinstance(values[spec]["sqnr_db"], list) or values[spec]["sqnr_db"] == first
    assert isinstance(values[first]["rms"], list)


def test_the_page_is_the_same_every_time_and_holds_no_provenance() -> None:
    report = toy().model_copy(
        update={"provenance": {"finished": "2031-01-02", "command": "srdd scan --out /home/me/x"}}
    )
    text = report_html.render(Bundle(report), View())
    assert text == report_html.render(Bundle(report), View())
    assert "2031-01-02" not in text
    assert "/home/me" not in text


def test_hostile_names_cannot_leave_their_script_element() -> None:
    text = report_html.render(Bundle(hostile_report()), View(title=NAMES[0]))
    data = re.search(r'id="data">(.*?)</script>', text, re.S)
    assert data is not None
    assert not set("<>&\u2028\u2029") & set(data[1])
    assert text.count("window.pwned=1</script>") == 0
    parsed = Scripts(text)
    assert [tag for tag, _, _ in parsed.found].count("script") == len(report_html.SCRIPTS) + 5
    assert set(parsed.data("data")["sites"]["name"]) == set(NAMES)
    assert "&lt;/script&gt;" in text.partition("</head>")[0]


def test_the_policy_allows_the_scripts_of_the_page_and_no_request() -> None:
    found = page_of(toy()).found
    policy = next(a["content"] for tag, a, _ in found if a.get("http-equiv") == "Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy.partition("style-src")[0]
    assert "http" not in policy
    assert not [a for tag, a, _ in found if tag in ("script", "img", "iframe", "link") and (a.get("src") or "")]


def test_plotly_cannot_end_its_own_element() -> None:
    from plotly.offline import get_plotlyjs

    assert "</script" not in get_plotlyjs().lower()
    assert "<!--" not in get_plotlyjs()


def test_no_script_of_ours_writes_markup_or_computes_metrics() -> None:
    for name in (*report_html.SCRIPTS, "ready.js"):
        text = report_html._part(name)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text), name
        assert not re.search(r"fetch\(|XMLHttp|WebSocket|https?://", text), name


def test_the_four_answers() -> None:
    report = toy()
    found = overview(Bundle(report), "output", MXFP4, zones_of(Bundle(report), "output", MXFP4, "relative_error"))
    assert found.verdict == "higher_precision"
    assert "1 of 6 layers" in found.sentence
    (worst,) = found.worst
    assert (worst.layer, worst.beyond, worst.action) == (3, ["sqnr_db"], "higher precision")
    assert worst.firm is True
    assert "1 of 1 flagged layers are beyond a limit by more than 2 of them." in found.sure
    commands = [step.command for step in next_steps(Bundle(report), found) if step.command]
    assert any(command.startswith("srdd show srdd-report.json --layer 3") for command in commands)
    assert any(
        command == "srdd impact --model path/to/toy --quant mxfp4:even --out impact.json" for command in commands
    )
    same = overview(Bundle(toy((1.0,) * 6)), "weight", MXFP4)
    assert (same.verdict, same.headline) == ("no_action", "No action needed")
    assert same.sure[0].startswith("Weights are measured whole")


@pytest.mark.parametrize("name", [*NAMES, "a; rm -rf ~", "$(id)", "-rf", "a\nb"])
def test_no_command_to_type_holds_what_a_stranger_wrote(name: str) -> None:
    bundle = Bundle(toy(model=name))
    for step in next_steps(bundle, overview(bundle, "output", MXFP4)):
        assert step.command is None or re.fullmatch(r"[\w ./:=,-]+", step.command)
        assert name not in (step.command or "") or name == "__proto__"


def test_worst_verdict_and_nan() -> None:
    report = toy()
    place = next(i for i, site in enumerate(report.sites) if site.kind == "weight")
    holed = {
        spec: measurement(replace(measured.merged(), nonfinite=1.0))
        for spec, measured in report.sites[place].formats.items()
    }
    sites = [*report.sites]
    sites[place] = sites[place].model_copy(update={"formats": holed})
    broken = report.model_copy(update={"sites": sites, "warnings": [Note.of("error", "weight x holds NaN")]})
    found = overview(Bundle(broken), "output", MXFP4)
    assert found.verdict == "broken"
    assert [step.why[:6] for step in next_steps(Bundle(broken), found)] == ["Repair"]
    assert "repair those tensors before anything else" in found.sentence
    page = build(Bundle(broken), View(), "0")[0]
    assert page["warnings"][0].startswith("ERROR")


def test_experts_of_one_place_are_merged() -> None:
    report = toy()
    first = next(site for site in report.sites if site.kind == "weight" and site.layer == 0)
    twin = first.model_copy(update={"name": "expert.1"})
    both = report.model_copy(update={"sites": [*report.sites, twin]})
    page, sums = build(Bundle(both), View(), "0")
    cell = next(i for i, inside in enumerate(page["cells"]["sites"]) if len(inside) == 2)
    row = page["cells"]["row"][cell]
    assert row == len(both.sites)
    merged = first.formats[MXFP4].merged() + first.formats[MXFP4].merged()
    assert sums["tallies"][MXFP4][row] == merged.vector()
    assert page["values"][MXFP4]["sqnr_db"][row] == pytest.approx(20)


def test_csv_is_tidy_and_exact() -> None:
    report = toy()
    rows = list(csv.DictReader(io.StringIO(report_csv.render(Bundle(report), View()))))
    assert len(rows) == len(report.sites) * 2 * len(METRICS)
    for row in rows:
        site = next(s for s in report.sites if (s.kind, s.name) == (row["site"], row["module"]))
        measured = site.formats[row["format"]]
        value = measured.value(row["metric"])
        assert float(row["value"] or "nan") == value or math.isnan(value)
        assert bool(row["standard_error"]) <= (row["site"] == "output")
    few = report_csv.render(Bundle(report), View(kind="weight", formats="mxfp8", metric="sqnr_db")).splitlines()
    assert len(few) == 1 + 6
    hostile = list(csv.DictReader(io.StringIO(report_csv.render(Bundle(hostile_report()), View()))))
    assert not [row for row in hostile if (row["module"] or "x")[0] in "=+-@"]
    assert {row["module"].removeprefix("'") for row in hostile} == set(NAMES)
    exact = make_report({"weight": [[tally(0.0, 0.0)]]})
    assert ",sqnr_db,inf,\n" in report_csv.render(Bundle(exact), View())


def test_markdown_has_the_verdict_first_and_details_folded() -> None:
    text = report_markdown.render(Bundle(toy(), baseline=toy()), View())
    lines = text.splitlines()
    assert lines[0] == "# srdd: toy"
    assert lines[2].startswith("**A few layers need higher precision.** mxfp4:even on")
    assert text.index("worst") < text.index("How sure") < text.index("What next") < text.index("<details>")
    assert text.count("<details>") == text.count("</details>") == 6
    assert "**14.19 ± " in text, "105 over 4 is 14.19 dB"
    assert "baseline SQNR dB" in text


def test_markdown_of_hostile_names_is_plain() -> None:
    text = report_markdown.render(Bundle(hostile_report()), View(title=NAMES[7]))
    assert set(re.findall(r"<(/?\w+)", text)) == {"details", "/details", "summary", "/summary"}
    assert not re.search(r"(?<!\\)\]\(|https?://|www\.|@somebody|[^\\]#1 ", text)
    cells = {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("| ")}
    assert cells <= {3, 6, 7}


@pytest.mark.parametrize("figure", list(report_picture.FIGURES))
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_pictures(figure: str, suffix: str) -> None:
    heads = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    view = View(suffix, figure=figure)
    picture = report_picture.render(Bundle(toy()), view)
    assert picture.startswith(heads[suffix])
    assert picture == report_picture.render(Bundle(toy()), view), "same input, same bytes"
    assert report_picture.render(Bundle(hostile_report()), view).startswith(heads[suffix])


def test_exporters_are_found_by_suffix() -> None:
    assert {".html", ".htm", ".md", ".csv", ".png", ".svg", ".pdf"} == set(report_exporters())


def test_the_command(tmp_path: Path, srdd: Run) -> None:
    report = tmp_path / "report.json"
    toy().save(report)
    for suffix in (".html", ".md", ".csv", ".png"):
        out = tmp_path / f"out{suffix}"
        code, _, err = srdd("report", report, "--out", out)
        assert code == 0, err
        assert "MB" in err
        code, _, err = srdd("report", report, "--out", out)
        assert (code, err.count("\n")) == (2, 1)
        assert "--force" in err
    assert srdd("report", report, "--out", tmp_path / "out.html", "--force", "--title", "Mine")[0] == 0
    assert "<title>Mine</title>" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert not list(tmp_path.glob(".out*")), "no half file"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "x.docx"], "cannot tell the kind of output from '.docx'; use"),
        (["--out", "x.csv", "--title", "t"], "--title has no effect on .csv"),
        (["--out", "x.html", "--title", " "], "--title ' ': expected a text; leave it out for the model's name"),
        (["--out", "x.html", "--figure", "zones"], "--figure has no effect on .html (only on .png, .svg, .pdf)"),
        (["--out", "x.png", "--figure", "pie"], "--figure pie: expected one of profile, heatmap, scatter, zones"),
        (["--out", "x.png", "--figure", "scatter", "--metric", "cosine"], "--metric has no effect on --figure scatter"),
        (["--out", "x.html", "--quant", "nvfp4"], "--quant nvfp4: the report has"),
        (["--out", "x.html", "--site", "input"], "--site input: the report has weight, output"),
        (["--out", "x.html", "--metric", "bias"], "--metric 'bias': cannot rank layers"),
        (
            ["--out", "x.html", "--impact", "report.json"],
            "--impact report.json: this report holds no costs; write one with `srdd impact`",
        ),
        (["--out", "x.html", "--probe", "report.json"], "is no probe document; write one with `srdd probe`"),
        (["--out", "x.html", "--experiment", "report.json"], "is no experiment document; write one with `srdd exp"),
        (["--out", "x.csv", "--probe", "report.json"], "--probe has no effect on .csv (only on .html, .htm, .md)"),
        (["--out", "x.html", "--zones", "report.json"], "is no zone map; write one with `srdd zones`"),
        (["--out", "x.html", "--multipliers", "report.json"], "is no rin document"),
        (["--out", "x.html", "--baseline", "gone.json"], "no report at gone.json"),
        (
            ["--out", "x.html", "--experiment", "gone.json"],
            "no experiment document at gone.json; write one with `srdd exp",
        ),
        (["--out", "x.html", "--zones", "gone.yaml"], "no zone map at gone.yaml"),
        (["--out", "no/such/folder.html"], "folder no/such does not exist"),
    ],
)
def test_refusals(words: list[str], said: str, tmp_path: Path, srdd: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    toy().save("report.json")
    code, _, err = srdd("report", "report.json", *words)
    assert (code, err.count("\n")) == (2, 1), err
    assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_documents_beside_the_report(tmp_path: Path, srdd: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    toy().save("report.json")
    assert srdd("zones", "report.json", "--scheme", "0-2,3-5", "--out", "zones.yaml")[0] == 0
    assert srdd("multipliers", "report.json", "--strategy", "ceiling", "--out", "rin.yaml")[0] == 0
    bundle = gather(
        Path("report.json"), zones=Path("zones.yaml"), multipliers=Path("rin.yaml"), baseline=Path("report.json")
    )
    page = build(bundle, View(), "0")[0]
    assert [zone["span"] for zone in page["zones"]["zones"]] == ["0-2", "3-5"]
    assert page["zones"]["source"].startswith("given: relative_error of output sites")
    assert max(page["multipliers"]["values"]) == 1
    assert page["baseline"]["layers"]["output"]["values"] == page["layers"]["output"]["values"]
    toy(model="other").save("other.json")
    toy((1.0,) * 7).save("deeper.json")
    for words, said in (
        (
            ["other.json", "--zones", "zones.yaml"],
            "another model (toy; the report has other): its weights hash differs",
        ),
        (["other.json", "--multipliers", "rin.yaml"], "another model (toy; the report has other)"),
        (["report.json", "--baseline", "deeper.json"], "another model: layer_count is 7, in the report 6"),
    ):
        code, _, err = srdd("report", *words, "--out", "x.html")
        assert (code, err.count("\n")) == (2, 1), err
        assert said in err
    toy((1.0, 2.0, 1.0, 1.0, 1.0, 1.0)).save("later.json")
    assert (
        "the zones were made from another report of this model"
        in gather(Path("later.json"), zones=Path("zones.yaml")).notes
    )


def test_reports_of_the_first_scripts_and_without_sums(tmp_path: Path, srdd: Run) -> None:
    rows = [{"layer_id": i, "sqnr_db": 20.0 - i, "deadzone_ratio": 0.1, "saturation_ratio": 0.0, "relative_error": 0.3}
            for i in range(6)]  # fmt: skip
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"report": {"per_layer": rows}}))
    for suffix in (".html", ".md", ".csv", ".png"):
        code, _, err = srdd("report", old, "--out", tmp_path / f"old{suffix}")
        assert code == 0, err
    empty = make_report({"weight": [[Tally()]] * 4})
    for exporter in (report_html, report_markdown, report_csv):
        assert exporter.render(Bundle(empty), View())


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, srdd: Run) -> None:
    import sys

    toy().save(tmp_path / "report.json")
    for module, suffix, extra in (("plotly.offline", ".html", "html"), ("matplotlib", ".png", "plots")):
        monkeypatch.setitem(sys.modules, module, None)
        code, _, err = srdd("report", tmp_path / "report.json", "--out", tmp_path / f"x{suffix}")
        assert (code, err.count("\n")) == (2, 1)
        assert f"pip install 'srdd[{extra}]'" in err


def test_unknown_metric_of_csv_is_refused() -> None:
    with pytest.raises(SettingError, match="metric='nonsense': unknown metric; expected one of"):
        report_csv.render(Bundle(toy()), View(metric="nonsense"))


def test_a_format_nobody_knows_still_makes_a_page() -> None:
    page = build(Bundle(hostile_report()), View(formats=SPEC), "0")[0]
    assert page["start"]["format"] == SPEC
    assert page["overview"]["output"][SPEC]["verdict"] == "reconsider_format"


def test_costs_alone_are_no_page(tmp_path: Path, srdd: Run) -> None:
    report_of_costs(make_costs({MXFP4: [0.1] * 6}), toy().model).save(tmp_path / "impact.json")
    code, _, err = srdd("report", tmp_path / "impact.json", "--out", tmp_path / "x.html")
    assert (code, err.count("\n")) == (2, 1)
    assert "impact.json holds costs and no sites to show; join it with a scan by `srdd merge`" in err
    assert not (tmp_path / "x.html").exists()


def test_a_report_shows_its_own_costs_or_those_of_another_file(tmp_path: Path, srdd: Run) -> None:
    own, other = make_costs({MXFP4: [0.1] * 6}), make_costs({MXFP4: [0.2] * 6})
    toy().save(tmp_path / "bare.json")
    toy().model_copy(update={"costs": own}).save(tmp_path / "full.json")
    report_of_costs(other, toy().model).save(tmp_path / "impact.json")
    cases = (
        ("bare.json", None, None),
        ("full.json", None, own),
        ("bare.json", other, other),
        ("full.json", other, other),
    )
    for name, given, want in cases:
        bundle = gather(tmp_path / name, impact=tmp_path / "impact.json" if given else None)
        assert bundle.costs == want
        page = build(bundle, View(), "0")[0]
        steps = [step["command"] for step in page["overview"]["output"][MXFP4]["steps"]]
        assert any((command or "").startswith("srdd impact") for command in steps) == (want is None)
        assert ("**What it costs.**" in report_markdown.render(bundle, View())) == (want is not None)
        noted = "the report has costs of its own; those of the other document are shown"
        assert (noted in page["warnings"]) == (name == "full.json" and given is not None)
        if want is None:
            assert page["impact"] is None
            continue
        row = page["impact"]["whole"][1]
        assert (row["mode"], row["kl"]["value"]) == ("both", want.whole[1].kl.value)
        assert row["loss_change"]["value"] == pytest.approx(want.whole[1].loss.value / 3 - 1)
        assert row["kl_p99"] is None
        assert page["impact"]["clean"]["perplexity"] == pytest.approx(math.exp(3))
        assert "sequences" not in json.dumps(page["impact"])
        assert page["impact"]["groups"][0]["by"] == "predicted KL (W+A)"
        assert page["impact"]["groups"][0]["rows"][0]["measured"] is None
    report_of_costs(other, toy((1.0,) * 7).model).save(tmp_path / "deeper.json")
    code, _, err = srdd(
        "report", tmp_path / "full.json", "--impact", tmp_path / "deeper.json", "--out", tmp_path / "x.md"
    )
    assert (code, err.count("\n")) == (2, 1)
    assert "deeper.json: another model: layer_count is 7, in the report 6" in err


def test_costs_of_other_tokens_are_said_and_those_of_a_part_are_not(tmp_path: Path) -> None:
    toy().save(tmp_path / "report.json")
    costs = make_costs({MXFP4: [0.1] * 6})
    said = "the costs were measured on other tokens than the scan"
    for hashes, noted in ((["s0"], False), (["s0", "s1"], False), (["s0", "x"], True)):
        kept = [[0.1] * len(hashes)] * 6
        calibration = costs.settings.calibration.model_copy(update={"sequence_hashes": hashes})
        settings = costs.settings.model_copy(update={"calibration": calibration})
        layers = [
            LayerCost(layer=at, format=MXFP4, mode="both", predicted_kl=Cost.of(values))
            for at, values in enumerate(kept)
        ]
        report_of_costs(Costs(settings=settings, layers=layers), toy().model).save(tmp_path / "impact.json")
        assert (said in gather(tmp_path / "report.json", impact=tmp_path / "impact.json").notes) == noted
