"""The slim baseline: small, the same verdicts as with the report it was made of, and refused what is no such file."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import make_costs, make_report, tally

from srdd.analysis.comparison.gate import check
from srdd.analysis.comparison.limits import Factor, Floor, Limit, Scope
from srdd.analysis.comparison.policy import DEFAULTS, Policy, parse_limit
from srdd.analysis.comparison.recalled import recall
from srdd.analysis.comparison.slim import slim
from srdd.core.blocks import Blocks
from srdd.core.metrics import METRICS
from srdd.core.tally import Tally
from srdd.core.uncertainty import total
from srdd.documents.baseline import PAIRED, STEPS_IN_1, Baseline, dumps, open_baseline
from srdd.documents.check import CheckResult
from srdd.documents.opening import document_of
from srdd.documents.parts import Calibration, Note
from srdd.documents.report import Report, in_order
from srdd.documents.schema import Site, measurement
from srdd.errors import ReportError
from srdd.exporters.check.text import headline

Run = Callable[..., tuple[int, str, str]]
SPECS = ("mxfp4:even", "mxfp8_e4m3:rceil")
BLOCKS = Blocks((75.0, 10.0, 20.0, 2.0), (145.0, 32.0), (0.5, 7.0))
LAYERS, TEXTS = 6, 5


def scanned(
    change: Callable[[str, int, int], dict[str, float]] | None = None, texts: int = TEXTS, **options: Any
) -> Report:
    """Weights, inputs and outputs; `change` gives other sums of a kind, layer and text. No two tallies are the same."""

    def one(kind: str, layer: int, text: int) -> Tally:
        size = 100.0 + 3 * layer + 7 * text + len(kind)
        made = tally(
            0.2 + 0.01 * layer + 0.02 * (text % 5),
            1.0 + 0.1 * (text % 7),
            size,
            deadzone=50 + 3 * (text % 11),
            clipped=text,
        )
        made = replace(made, sum_x=0.01 * layer + 0.003 * text - 0.02, blocks=BLOCKS)
        return replace(made, **(change(kind, layer, text) if change else {}))

    kinds = {"weight": 1, "input": texts, "output": texts}
    layers = {k: [[one(k, layer, text) for text in range(n)] for layer in range(LAYERS)] for k, n in kinds.items()}
    return make_report(layers, SPECS, **options)  # type: ignore[arg-type]


BASE = scanned()
SLIM = slim(BASE)


def again(baseline: Baseline) -> Baseline:
    """As a file holds it."""
    return document_of(json.loads(dumps(baseline)), Baseline)


def test_the_file_gives_back_what_was_written() -> None:
    assert again(SLIM) == SLIM
    assert again(SLIM).schema_version == 1
    assert dumps(again(SLIM)) == dumps(SLIM)


def test_values_are_rounded_to_the_worse_side_by_at_most_a_step() -> None:
    known = {(site.kind, site.name): site for site in recall(SLIM).sites}
    checked = 0
    for site in BASE.sites:
        for spec, measured in site.formats.items():
            kept = known[site.kind, site.name].formats[spec]
            for metric in METRICS:
                if metric.name in STEPS_IN_1:
                    lost = kept.value(metric.name) - measured.value(metric.name)
                    lost = -lost if metric.better == "up" else lost
                    assert 0 <= lost <= 1.0001 / STEPS_IN_1[metric.name], (metric.name, site.name)
                    checked += 1
    assert checked == 18 * 2 * len(STEPS_IN_1)


def test_the_scatter_is_kept_to_four_percent() -> None:
    known = {(site.kind, site.name): site for site in recall(SLIM).sites}
    for site in BASE.sites:
        for spec, measured in site.formats.items():
            for metric in METRICS:
                kept = known[site.kind, site.name].formats[spec]
                if metric.name in PAIRED and site.kind != "weight":
                    unseen = 0.1 / STEPS_IN_1[metric.name]
                    assert kept.error(metric.name) == pytest.approx(measured.error(metric.name), rel=0.04, abs=unseen)
                    assert len(kept.without_each(metric)) == TEXTS
                elif site.kind == "weight":
                    assert math.isnan(kept.error(metric.name))


def test_what_follows_from_kept_metrics_is_known_and_nothing_else() -> None:
    kept, measured = recall(SLIM).sites[-1].formats[SPECS[0]], BASE.sites[-1].formats[SPECS[0]]
    for name in ("zero_ratio_after", "relative_rms"):
        assert kept.value(name) == pytest.approx(measured.value(name), abs=3e-4)
        assert kept.value(name) >= measured.value(name)
    assert math.isnan(kept.value("cosine"))
    assert math.isnan(kept.value("rms"))
    assert recall(SLIM).sites[0].formats[SPECS[0]].value("rms") == pytest.approx(
        BASE.sites[0].formats[SPECS[0]].value("rms"), rel=1e-4
    )


# The same report passes whatever is allowed, and by layer as by module.
@pytest.mark.parametrize("by", ["layer", "module"])
@pytest.mark.parametrize(
    "metric", [name for name in (*STEPS_IN_1, "zero_ratio_after", "relative_rms") if name != "crest"]
)
def test_the_same_report_passes_a_limit_of_nothing(metric: str, by: Any) -> None:
    policy = Policy(limits=(Limit(metric=metric, max_worse=0.0),), by=by)
    assert check(BASE, BASE, policy).passed
    assert check(BASE, SLIM, policy).passed


SAME = {"kind", "format", "metric", "checked", "limit", "mode"}
FAULTS: dict[str, Callable[[str, int, int], dict[str, float]]] = {
    "nothing": lambda kind, layer, text: {},
    "a weight that is wrong": lambda k, i, t: {"sum_rel": 400.0, "deadzone": 80.0} if (k, i) == ("weight", 2) else {},
    "a weight twice as large": lambda k, i, t: {"sum_x2": 500.0} if (k, i) == ("weight", 3) else {},
    "a little of a weight": lambda k, i, t: {"sum_abs_x": 250.0} if (k, i) == ("weight", 3) else {},
    "zeros in a weight": lambda k, i, t: {"nonzero": 1000.0} if (k, i) == ("weight", 1) else {},
    "a deadzone in outputs": lambda k, i, t: {"deadzone": 90.0 + 3 * t} if (k, i) == ("output", 4) else {},
    "a deadzone in one text": lambda k, i, t: {"deadzone": 250.0} if (k, i, t) == ("output", 4, 1) else {},
    "clipped inputs": lambda k, i, t: {"clipped": 30.0, "at_max": 30.0} if (k, i) == ("input", 5) else {},
    "worse blocks": lambda k, i, t: {"blocks": Blocks((72.0, 10.0, 20.0, 2.0), BLOCKS.scales)} if k == "output" else {},  # type: ignore[dict-item]
    "a little worse everywhere": lambda k, i, t: {"deadzone": 57.0 + 3 * t} if k != "weight" else {},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("undecided", ["pass", "fail"])
def test_the_verdict_is_that_of_the_report(fault: str, undecided: Any) -> None:
    new = scanned(FAULTS[fault])
    policy = Policy(are_defaults=True, undecided=undecided)
    full, small = check(new, BASE, policy), check(new, again(SLIM), policy)
    assert (small.passed, len(small.cases)) == (full.passed, len(full.cases))
    assert small.beginning == full.beginning
    for one, other in zip(full.cases, small.cases, strict=True):
        assert one.model_dump(include=SAME) == other.model_dump(include=SAME)
        assert [f.name for f in one.failures] == [f.name for f in other.failures], one.metric
        assert [f.name for f in one.undecided] == [f.name for f in other.undecided], one.metric
    assert said(small) == said(full)


def said(verdict: CheckResult) -> str:
    """The first line without what it says of values, and of what is closest where nothing failed."""
    line = headline(verdict)
    return line.split(";")[0] if verdict.passed else line.split(" dB")[0].rpartition(" ")[0]


@pytest.mark.parametrize("limit", [parse_limit(text, Scope()) for text in ("relative_error=+5%", "sqnr_db=-0.5")])
@pytest.mark.parametrize("noise", [1.0, 1.03, 1.07, 1.4])
def test_given_limits_hold_layers_as_they_do_with_the_report(limit: Limit, noise: float) -> None:
    new = scanned(lambda k, i, t: {"sum_rel": 1024 * noise * (0.2 + 0.01 * i + 0.02 * t)} if i == 3 else {})
    for by in ("layer", "module"):
        policy = Policy(limits=(limit, Factor(metric="rms", factor=2.0, site="weight")), by=by)
        full, small = check(new, BASE, policy), check(new, SLIM, policy)
        assert small.passed == full.passed == (noise < 1.05 or limit.metric == "sqnr_db")


def with_modules(report: Report) -> Report:
    """Two weights and inputs in each layer, and one weight outside the layers."""
    more = [
        site.model_copy(update={"name": f"{site.name}.twin", "index": site.index + 100})
        for site in report.sites
        if site.kind != "output"
    ]
    head = report.sites[0].model_copy(update={"name": "lm_head", "layer": None, "index": 500})
    return in_order(report.model_copy(update={"sites": [*report.sites, *more, head]}))


def test_whole_layers_are_kept_beside_their_modules() -> None:
    base = with_modules(BASE)
    wrong = next(site for site in base.sites if site.name.endswith("2.mlp.down_proj.twin"))
    bad = wrong.model_copy(update={"formats": {s: measurement(tally(0.5, 3.0)) for s in SPECS}})
    new = base.model_copy(update={"sites": [bad if site is wrong else site for site in base.sites]})
    for by, name in (("layer", "layer 2"), ("module", wrong.name)):
        policy = Policy(limits=(Limit(metric="relative_error", max_worse="5%", site="weight"),), by=by)
        for verdict in (check(new, base, policy), check(new, slim(base), policy)):
            assert [[f.name for f in case.failures] for case in verdict.cases] == [[name], [name]]
            assert [case.checked for case in verdict.cases] == [LAYERS + 1 if by == "layer" else 2 * LAYERS + 1] * 2


def test_weights_that_died_became_copies_or_were_moved_are_told() -> None:
    weights = [site for site in BASE.sites if site.kind == "weight"]

    def with_weight(layer: int, **sums: Any) -> Report:
        made = {s: measurement(replace(m.merged(), **sums)) for s, m in weights[layer].formats.items()}
        bad = weights[layer].model_copy(update={"formats": made})
        return BASE.model_copy(update={"sites": [bad if s is weights[layer] else s for s in BASE.sites]})

    copied = weights[3].model_copy(update={"formats": weights[2].formats})
    dead = weights[4].model_copy(update={"notes": [Note.of("dead", "3 of 64 output channels hold only zeros")]})
    cases = {
        "is now equal to model.layers.2.": BASE.model_copy(
            update={"sites": [copied if s is weights[3] else s for s in BASE.sites]}
        ),
        "output channels hold only zeros (was not": BASE.model_copy(
            update={"sites": [dead if s is weights[4] else s for s in BASE.sites]}
        ),
        "in another order": with_weight(1, blocks=replace(BLOCKS, worst=(0.5, 11.0))),
        "with the other sign": with_weight(1, sum_x=-weights[1].formats[SPECS[0]].merged().sum_x),
        "all zero": with_weight(5, **dict.fromkeys([f for f in vars(Tally()) if f not in ("n", "blocks")], 0.0)),
    }
    for said, new in cases.items():
        full, small = check(new, BASE), check(new, SLIM)
        assert small.problems == full.problems
        assert any(said in problem for problem in small.problems), said
        assert small.beginning == full.beginning


def test_many_texts_are_taken_together_and_stay_paired() -> None:
    base = scanned(texts=70)
    small = slim(base)
    assert small.regrouped
    assert small.settings.calibration is not None
    assert small.settings.calibration.units == 16
    new = scanned(lambda k, i, t: {"deadzone": 75.0 + 3 * (t % 11)} if (k, i) == ("output", 4) else {}, texts=70)
    for verdict in (check(new, base), check(new, small)):
        assert [f.name for case in verdict.cases for f in case.failures if case.metric == "deadzone_ratio"] == [
            "layer 4"
        ] * 2
    assert check(base, small).passed


def test_texts_in_another_order_are_paired() -> None:
    names = ["a", "b", "c", "d", "e"]
    base = scanned(hashes=names)
    backward = make_report(
        {
            kind: [
                [site.formats[SPECS[0]].per_sequence()[i] for i in reversed(range(TEXTS))]
                if kind != "weight"
                else [site.formats[SPECS[0]].merged()]
                for site in base.sites
                if site.kind == kind
            ]
            for kind in ("weight", "input", "output")
        },
        SPECS,
        hashes=list(reversed(names)),
    )
    policy = Policy(limits=(Limit(metric="relative_error", max_worse=0.0),), undecided="fail")
    assert check(backward, slim(base), policy).passed


def test_documents_that_the_slim_baseline_does_not_know_are_said_and_nothing_is_paired() -> None:
    def told(report: Report) -> Report:
        calibration = report.settings.calibration
        assert calibration is not None
        known = Calibration(**{**dict(calibration), "documents": ["a", "a", "b", "b", "c"], "offsets": [0, 8, 0, 8, 0]})
        tree = report.model_dump(mode="json")
        tree["settings"]["calibration"] = known.model_dump(mode="json")
        return Report.from_tree(tree, "new")

    verdict = check(told(BASE), SLIM)
    assert verdict.passed
    assert any("does not know the documents" in note for note in verdict.notes)
    verdict = check(told(BASE), slim(told(BASE)))
    assert not any("does not know the documents" in note for note in verdict.notes)


def priced(kl: list[float]) -> Report:
    return BASE.model_copy(update={"costs": make_costs({SPECS[0]: kl})})


@pytest.mark.parametrize("factor", [1.0, 1.04, 1.3])
@pytest.mark.parametrize("metric", ["predicted_kl", "kl", "loss"])
def test_costs_are_gated(metric: str, factor: float) -> None:
    kls = [0.1, 0.2, 0.15, 0.12, 0.4, 0.3]
    base, new = priced(kls), priced([factor * kl for kl in kls])
    worse: Any = "10%" if metric != "loss" else 0.02
    policy = Policy(limits=(Limit(metric=metric, max_worse=worse),))
    full, small = check(new, base, policy), check(new, again(slim(base)), policy)
    assert small.passed == full.passed
    assert [case.checked for case in small.cases] == [case.checked for case in full.cases]
    assert [len(case.undecided) for case in small.cases] == [len(case.undecided) for case in full.cases]
    strict = Policy(limits=(Limit(metric=metric, max_worse="0%" if metric != "loss" else 0.0),))
    assert check(base, slim(base), strict).passed


def test_a_limit_on_what_was_lost_is_refused_and_says_so() -> None:
    with pytest.raises(ReportError, match="cosine is not known for any layer or site of the slim baseline"):
        check(BASE, SLIM, Policy(limits=(Limit(metric="cosine", max_worse=0.1),)))
    assert check(BASE, SLIM, Policy(floors=(Floor(metric="cosine", value=0.1),))).passed


def test_names_without_the_layers_number_and_strange_ones_come_back() -> None:
    names = ["{layer}.x", "no number", "h.1.2.1.w", "with space 3", 'quote".4', "über.5.ü"]
    sites: list[Site] = [
        site.model_copy(update={"name": name})
        for site, name in zip((s for s in BASE.sites if s.kind == "weight"), names, strict=True)
    ]
    base = in_order(BASE.model_copy(update={"sites": sites}))
    assert {(s.layer, s.name) for s in recall(again(slim(base))).sites} == {(s.layer, s.name) for s in base.sites}
    assert check(base, slim(base)).passed


def test_sites_that_lack_a_format_or_were_nan_come_back() -> None:
    first, *rest = BASE.sites
    fewer = first.model_copy(update={"formats": {SPECS[0]: first.formats[SPECS[0]]}})
    exact = rest[0].model_copy(update={"formats": {s: measurement(tally(0.0, 0.0)) for s in SPECS}})
    base = BASE.model_copy(update={"sites": [fewer, exact, *rest[1:]]})
    kept = {site.name: site for site in recall(again(slim(base))).sites if site.kind == "weight"}
    assert list(kept[first.name].formats) == [SPECS[0]]
    assert kept[exact.name].formats[SPECS[0]].value("sqnr_db") == math.inf
    assert math.isnan(kept[exact.name].formats[SPECS[0]].value("block_sqnr_db"))


def test_a_weight_whose_rms_depends_on_the_format_keeps_each() -> None:
    """Where values were left out with a NaN in their block, blocks of other sizes leave out others."""
    sites = list(BASE.sites)
    sums = replace(tally(0.3, 2.0, 900.0), blocks=BLOCKS)
    sites[0] = sites[0].model_copy(update={"formats": {**sites[0].formats, SPECS[1]: measurement(sums)}})
    base = BASE.model_copy(update={"sites": sites})
    kept = recall(again(slim(base))).sites[0].formats
    for spec in SPECS:
        assert kept[spec].value("rms") == pytest.approx(sites[0].formats[spec].value("rms"), rel=1e-4)
    assert check(base, again(slim(base))).passed


def test_reports_without_sums_are_refused() -> None:
    old = Report(**{**dict(BASE), "sites": [BASE.sites[0].model_copy(update={"formats": {SPECS[0]: _without_sums()}})]})
    with pytest.raises(ReportError, match="no sums"):
        slim(old)


def _without_sums() -> Any:
    measured = measurement(total([tally(0.3)]))
    return type(measured).model_validate({"metrics": {"sqnr_db": 20.0}})


def test_thirty_layers_and_three_formats_stay_below_100_kb() -> None:
    """Sites as SmolLM2 has them, three 4-bit formats and 24 texts, of numbers without a pattern."""
    import random

    generator = random.Random(0)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    specs = ["mxfp4:even", "mxfp4:floor", "nvfp4:nvidia"]

    def drawn() -> Tally:
        made = tally(generator.uniform(0.2, 0.5), generator.uniform(1, 4), generator.uniform(50, 150), 40, 9)
        clipped = float(generator.randint(5, 20))
        noise = {"deadzone": float(generator.randint(60, 190)), "clipped": clipped, "at_max": clipped}
        low = float(generator.randint(70, 80))
        return replace(made, **noise, sum_x=generator.gauss(0, 1), blocks=Blocks((low, 9.0, 21.0, 2.0), BLOCKS.scales))

    def site(kind: Any, layer: int, name: str) -> Site:
        texts = [] if kind == "weight" else [drawn() for _ in range(24)]
        formats = {s: measurement(drawn() if not texts else total(texts), texts) for s in specs}
        return Site(kind=kind, name=f"model.layers.{layer}.mlp.{name}", role=name, layer=layer, formats=formats)

    rows = [("weight", m) for m in modules] + [("input", m) for m in modules[:4]] + [("output", "out")]
    sites = [site(kind, layer, name) for layer in range(30) for kind, name in rows]
    report = scanned(texts=24)
    settings = report.settings.model_copy(update={"formats": specs})
    report = Report(**{**dict(report), "settings": settings, "sites": sites})
    small = slim(report)
    assert 50_000 < len(dumps(small).encode()) <= 100_000
    assert check(report, again(small)).passed


# --- files and the command line --------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    BASE.save(tmp_path / "base.json")
    scanned(FAULTS["a deadzone in outputs"]).save(tmp_path / "worse.json")
    return tmp_path


def test_a_slim_baseline_from_the_shell(files: Path, srdd: Run) -> None:
    code, shown, aside = srdd("check", files / "base.json", "--write-baseline", files / "gate.json")
    assert (code, aside) == (0, "")
    assert "slim baseline of toy" in " ".join(shown.split())
    assert "Lost: metrics other than" in " ".join(shown.split())
    alone = (files / "gate.json").read_text()
    for new, wanted in (("base.json", 0), ("worse.json", 1)):
        assert srdd("check", files / new, "--baseline", files / "base.json")[0] == wanted
        code, shown, _ = srdd("check", files / new, "--baseline", files / "gate.json")
        assert (code, shown.split()[0]) == (wanted, "FAILED" if wanted else "PASSED")
        assert "the baseline is a slim one" in " ".join(shown.split())
    # with a baseline it is the baseline that is made slim, whatever the verdict
    code, shown, aside = srdd(
        "check",
        files / "worse.json",
        "--baseline",
        files / "base.json",
        "--write-baseline",
        files / "gate.json",
        "--force",
    )
    assert (code, (files / "gate.json").read_text()) == (1, alone)
    assert shown.startswith("FAILED")
    assert "slim baseline of toy" in " ".join(aside.split())
    code, shown, _ = srdd(
        "check", files / "base.json", "--floor", "sqnr_db=1", "--write-baseline", files / "g2.json", "--json"
    )
    assert (code, json.loads(shown)["passed"], (files / "g2.json").read_text()) == (0, True, alone)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("check base.json --write-baseline gate.json", "gate.json exists"),
        ("check base.json --write-baseline no/where.json", "does not exist"),
        ("check gate.json --baseline base.json", "is a slim baseline"),
        ("check gate.json --write-baseline other.json", "is a slim baseline"),
        ("check base.json --baseline gate.json --write-baseline other.json", "is a slim baseline already"),
        ("check base.json --write-baseline other.json --json", "--json"),
        ("check base.json --write-baseline other.json --junit x.xml", "--junit"),
        ("check base.json --write-baseline other.json --site weight", "--site"),
        ("check base.json --write-baseline other.json --undecided fail", "--undecided"),
        ("check base.json --baseline base.json --junit x --write-baseline x", "are the same file"),
        ("check base.json --baseline other-model.json", "another model"),
        ("check base.json --baseline cut.json", "no complete JSON document"),
        ("check base.json --baseline future.json", "install a newer srdd"),
        ("check base.json --baseline zero.json", "write it anew"),
        ("check base.json --baseline probe.json", "expected a report, or a slim baseline of one"),
        ("check base.json --baseline extra.json", "unknown key 'surplus'"),
        ("check base.json --baseline short.json", "values of"),
        ("check base.json --baseline negative.json", "which no share is"),
        ("check base.json --baseline word.json", "packed word"),
        ("show gate.json", "nothing to show"),
        ("zones gate.json", "nothing to show"),
        ("merge gate.json base.json --out m.json", "is a slim baseline"),
        ("compare gate.json base.json", "is a slim baseline"),
    ],
)
def test_bad_inputs_are_one_line_and_exit_2(
    words: str, said: str, files: Path, srdd: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from builders import make_probe

    text = dumps(SLIM)
    tree = json.loads(text)

    def changed(name: str, change: Callable[[dict[str, Any]], object]) -> None:
        copy = json.loads(text)
        change(copy)
        (files / name).write_text(json.dumps(copy))

    (files / "gate.json").write_text(text)
    (files / "cut.json").write_text(text[: len(text) // 2])
    (files / "probe.json").write_text(make_probe(BASE.model, {}).model_dump_json())
    changed("other-model.json", lambda d: d["model"].update(layer_count=99))
    changed("future.json", lambda d: d.update(schema_version=2))
    changed("zero.json", lambda d: d.update(schema_version=0))
    changed("extra.json", lambda d: d.update(surplus=1))
    column = tree["tables"][0]["formats"][SPECS[0]]["values"]["relative_error"]
    assert len(column) == LAYERS + 1

    def values(d: dict[str, Any]) -> dict[str, Any]:
        return d["tables"][0]["formats"][SPECS[0]]["values"]  # type: ignore[no-any-return]

    changed("short.json", lambda d: values(d)["relative_error"].pop())
    changed("negative.json", lambda d: values(d).update(relative_error=[-5]))
    changed("word.json", lambda d: d["tables"][-1]["formats"][SPECS[0]]["each"].update(relative_error="é"))
    monkeypatch.chdir(files)
    code, _, told = srdd(*words.split())
    assert (code, said in told, told.count("error:")) == (2, True, 1), told


def test_open_baseline_knows_both(files: Path) -> None:
    (files / "gate.json").write_text(dumps(SLIM))
    assert dumps(open_baseline(files / "gate.json").document) == dumps(SLIM)
    assert open_baseline(files / "base.json").document.model == BASE.model
    assert check(BASE, SLIM, Policy(limits=DEFAULTS, are_defaults=True)).passed
