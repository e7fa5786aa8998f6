"""What layers cost ranks wherever it is known: every command agrees, and errors are those of the sequences."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import pytest
from builders import make_costs, make_report, tally
from priced_reports import KLS, PLAIN, PRICED, SPEC, WORST, report, with_layer

from srdd.analysis.advice import advise
from srdd.analysis.bundle import Bundle
from srdd.analysis.cost_advice import flagged_layers
from srdd.analysis.first_look import first_metric
from srdd.analysis.multipliers import find_multipliers
from srdd.analysis.overview import overview
from srdd.analysis.series import layer_series
from srdd.analysis.strategies import NO_CLAMP, StrategyOptions
from srdd.analysis.zones import find_zones
from srdd.core.modes import Mode, choose_mode, mode_title
from srdd.documents.report import Report
from srdd.errors import NoEffectError, ReportError, SettingError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, document in (
        ("priced", PRICED),
        ("plain", PLAIN),
        ("weights", report(make_costs({SPEC: KLS}, modes=("weight",)))),
        ("costs", report(make_costs({SPEC: KLS}), sites=[])),
        ("dearer", with_layer([1.3, 1.5])),
    ):
        document.save(tmp_path / f"{name}.json")
    return tmp_path


def test_a_series_is_of_the_cost_with_the_errors_of_its_sequences() -> None:
    series = layer_series(PRICED)
    assert (series.kind, series.metric.name, series.mode, series.depth) == ("layer", "predicted_kl", "both", 12)
    assert series.values == pytest.approx(KLS)
    by_hand = [[0.95 * kl, 1.05 * kl] for kl in KLS]
    assert series.standard_errors == pytest.approx([stdev(pair) / math.sqrt(2) for pair in by_hand])
    assert [m.without_each(series.metric) for m in series.measurements] == [pytest.approx(p[::-1]) for p in by_hand]
    assert series.title == "predicted_kl of layers under mxfp4:even W4A4"


def test_replicates_of_three_sequences_leave_one_out() -> None:
    series = layer_series(with_layer([0.1, 0.2, 0.6]))
    row = series.measurements[WORST]
    assert row.without_each(series.metric) == pytest.approx([0.4, 0.35, 0.15])
    jackknife = math.sqrt(2 / 3 * sum((m - 0.3) ** 2 for m in (0.4, 0.35, 0.15)))
    assert row.error("predicted_kl") == pytest.approx(jackknife)


def test_the_mode_is_both_else_the_last_or_the_one_that_is_asked_for() -> None:
    assert layer_series(PRICED, mode="w4a16").values == pytest.approx([kl / 3 for kl in KLS])
    assert layer_series(PRICED, mode="weight").mode == "weight"
    modes: tuple[Mode, ...] = ("input", "weight")
    assert layer_series(report(make_costs({SPEC: KLS}, modes=modes))).mode == "weight"
    assert mode_title("both", "mxfp8:rceil") == "W8A8"
    assert mode_title("input", "identity") == "inputs"
    assert choose_mode("W8A16", ["weight", "both"], "mxfp8:rceil") == "weight"


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        ({"mode": "input"}, SettingError, "mode=input: not measured under mxfp4:even; its costs are of weight"),
        ({"mode": "w8a8"}, SettingError, "mode=w8a8: mxfp4:even has no such mode"),
        ({"mode": ""}, SettingError, "has no such mode"),
        ({"spec": "nvfp4"}, SettingError, "the costs are of mxfp4:even"),
        ({"metric": "measured_kl"}, ReportError, "measured_kl is not known under mxfp4:even W4A4 for layer"),
        ({"metric": "swap_kl"}, SettingError, "measured_kl"),
        ({"kind": "output", "metric": "predicted_kl"}, NoEffectError, "the cost of whole layers"),
        ({"metric": "relative_error", "mode": "both"}, NoEffectError, "which is no cost"),
    ],
)
def test_what_costs_lack_is_said(wanted: dict[str, str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        layer_series(PRICED, **wanted)


def test_a_kind_or_a_metric_asks_for_errors_of_sites() -> None:
    assert layer_series(PRICED, "weight").metric.name == "relative_error"
    assert layer_series(PRICED, metric="sqnr_db").kind == "output"
    assert layer_series(PLAIN).metric.name == "relative_error"


def test_a_format_without_costs_is_ranked_by_its_errors() -> None:
    both = make_report({"output": [[tally(0.3)] * 2] * 12}, [SPEC, "nvfp4:nvidia"])
    both = both.model_copy(update={"costs": make_costs({"nvfp4:nvidia": KLS})})
    assert layer_series(both).spec == "nvfp4:nvidia"
    assert layer_series(both, spec="mxfp4").metric.name == "relative_error"
    assert (first_metric(both, "output", SPEC), first_metric(both, "output", "nvfp4:nvidia")) == (
        "relative_error",
        "predicted_kl",
    )


def test_every_command_without_options_agrees_on_the_worst_layer(files: Path, srdd: Run) -> None:
    priced, said = files / "priced.json", {}
    zones = json.loads(srdd("zones", priced, "--json")[1])
    said["zones"] = max(zones["zones"], key=lambda zone: zone["ratio"])["worst_layer"]
    assert (zones["provenance"]["metric"], zones["provenance"]["mode"]) == ("predicted_kl", "both")
    multipliers = json.loads(srdd("multipliers", priced, "--json")[1])["layer_multipliers"]
    said["multipliers"] = int(min(multipliers, key=multipliers.__getitem__))  # the least noise
    said["advise"] = json.loads(srdd("advise", priced, "--json")[1])["flagged"][0]["layer"]
    changed = json.loads(srdd("compare", priced, files / "dearer.json", "--json")[1])
    said["compare"] = changed["comparisons"][0]["layers"][0]["layers"][0]
    verdict = json.loads(srdd("check", priced, "--baseline", priced, "--json")[1])
    assert verdict["passed"]
    held = [case for case in verdict["cases"] if case["metric"] == "predicted_kl"]
    assert {(case["mode"], case["limit"]) for case in held} == {("both", "predicted_kl +25%")}
    said["page"] = overview(Bundle(PRICED), "output", SPEC).worst[0].layer
    srdd("report", priced, "--out", files / "out.md")
    first = next(line for line in (files / "out.md").read_text().splitlines() if line.startswith("| ") and "**" in line)
    said["markdown"] = int(first.split("|")[1])
    assert set(said.values()) == {WORST}, said


@pytest.mark.parametrize("command", ["zones", "multipliers", "advise", "compare", "check", "report"])
def test_without_costs_one_line_says_so_and_json_stays_json(files: Path, srdd: Run, command: str) -> None:
    plain = files / "plain.json"
    more = {"compare": [plain], "check": ["--baseline", plain], "report": ["--out", files / "out.md"]}.get(command, [])
    code, printed, warned = srdd(command, plain, *more)
    said = " ".join(f"{printed} {warned}".split())
    text = (files / "out.md").read_text().replace("\\", "") if command == "report" else said
    assert code == 0
    assert text.count("error statistics predict damage poorly (rank correlation 0.37 and less") == 1
    if command != "report":
        code, printed, _ = srdd(command, plain, *more, "--json")
        assert code == 0
        json.loads(printed)


@pytest.mark.parametrize("command", ["zones", "multipliers", "advise"])
def test_with_costs_no_such_line_is_said(files: Path, srdd: Run, command: str) -> None:
    _, printed, warned = srdd(command, files / "priced.json")
    assert printed
    assert "predict damage poorly" not in " ".join(f"{printed} {warned}".split())


def test_modes_are_named_and_a_missing_one_is_one_line(files: Path, srdd: Run) -> None:
    assert "under mxfp4:even W4A4" in srdd("zones", files / "priced.json")[1]
    assert "under mxfp4:even W4A16" in srdd("multipliers", files / "priced.json", "--mode", "weight")[1]
    assert "under mxfp4:even W4A16" in srdd("zones", files / "weights.json")[1]
    for command in ("zones", "multipliers"):
        code, printed, shown = srdd(command, files / "weights.json", "--mode", "w4a4")
        assert (code, printed) == (2, "")
        assert shown.count("\n") == 1
        assert "--mode w4a4: not measured under mxfp4:even; its costs are of weight (W4A16)" in shown
    code, _, shown = srdd("multipliers", files / "priced.json", "--strategy", "global", "--mode", "both")
    assert (code, "--mode has no effect on global" in shown) == (2, True)


def test_costs_alone_are_enough(files: Path, srdd: Run) -> None:
    costs = files / "costs.json"
    for command in (["zones", costs], ["multipliers", costs], ["advise", costs], ["compare", costs, costs]):
        code, _, shown = srdd(*command)
        assert code == 0, shown
    assert srdd("check", costs, "--baseline", costs, "--limit", "predicted_kl=+20%")[0] == 0


def test_cuts_of_costs_are_as_stable_as_their_sequences() -> None:
    steps = report(make_costs({SPEC: [0.1] * 6 + [0.5] * 6}))
    (cut,) = find_zones(layer_series(steps))[1]
    assert (cut.before_layer, cut.stability, cut.method) == (6, 1.0, "2 sequences resampled")


def test_more_noise_where_it_costs_more_is_said() -> None:
    def warnings(**wanted: str) -> list[str]:
        notes = find_multipliers(PRICED, **wanted)[0].provenance.notes  # type: ignore[arg-type]
        return [note for note in notes if note.startswith("warning")]

    config, series = find_multipliers(PRICED, strategy="variable")
    assert (config.provenance.site, config.provenance.mode, series.mode) == ("layer", "both", "both")
    assert config.layer_multipliers[WORST] == 2.0  # 5.14 of the mean, clamped
    free = find_multipliers(PRICED, strategy="variable", options=StrategyOptions(clamp=NO_CLAMP))[0]
    assert free.layer_multipliers[WORST] == pytest.approx(0.9 / fmean(KLS), rel=1e-5)
    assert warnings(strategy="variable")[0].startswith("warning: variable puts more noise where it costs more")
    assert warnings() == warnings(strategy="inverse") == warnings(strategy="global") == []
    assert warnings(metric="sqnr_db") == []


def test_advice_ranks_by_cost_and_never_flags_every_layer() -> None:
    advice = advise(PRICED)
    assert (advice.against, advice.mode, advice.verdict) == ("cost", "both", "higher_precision")
    assert [row.layer for row in advice.flagged] == [WORST, 10]  # 0.9 of 2.1 is less than half, 1.1 is more
    assert advice.flagged[0].cause == "attn.qkv 50%, mlp.down 25%; inputs"
    assert advice.flagged[0].severity == pytest.approx(0.9 / fmean(KLS))
    assert flagged_layers({0: 1.0}) == []
    assert flagged_layers({0: 1.0, 1: 1.0, 2: 1.0}) == [0, 1]
    assert flagged_layers({0: 9.0, 1: 0.0}) == [0]
    even = advise(report(make_costs({SPEC: [0.1] * 12})))
    assert (even.verdict, len(even.flagged)) == ("reconsider_format", 6)
    free = advise(report(make_costs({SPEC: [0.0005] * 12})))
    assert (free.verdict, free.flagged) == ("no_action", [])
    assert len(advise(PRICED, against="classic").flagged) == 12


def test_advice_names_the_cheaper_format() -> None:
    costs = make_costs({SPEC: [0.1] * 12, "nvfp4:nvidia": [0.04] * 12, "mxfp8:rceil": [0.0005] * 12})
    advice = advise(report(costs), spec="mxfp4")
    assert advice.next_format == "mxfp8:rceil"
    assert [row.passes for row in advice.formats] == [False, False, True]
    assert [what.format for what in advice.flagged[0].what_if] == ["mxfp8:rceil", "nvfp4:nvidia"]
    cheaper = make_costs({SPEC: [0.1] * 12, "nvfp4:nvidia": [0.04] * 12})
    assert advise(report(cheaper), spec="mxfp4").next_format == "nvfp4:nvidia"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: advise(PLAIN, against="cost"), "against=cost: no costs in this report"),
        (lambda: advise(PRICED, "output", against="cost"), "which is of whole layers"),
        (lambda: advise(PRICED, spec="nvfp4"), "the costs are of mxfp4:even"),
    ],
)
def test_bad_advice(call: Callable[[], object], words: str) -> None:
    with pytest.raises((SettingError, NoEffectError), match=words):
        call()


def test_a_document_that_says_swap_kl_is_read(tmp_path: Path) -> None:
    tree = json.loads(PLAIN.model_dump_json())
    for site in tree["sites"]:
        site["formats"] = {SPEC: {"metrics": {"swap_kl": 0.5}, "standard_errors": {"swap_kl": 0.1}}}
    (tmp_path / "old.json").write_text(json.dumps({k: v for k, v in tree.items() if k != "costs"}))
    series = layer_series(Report.load(tmp_path / "old.json"), metric="measured_kl")
    assert (series.values[0], series.standard_errors[0]) == (0.5, 0.1)
