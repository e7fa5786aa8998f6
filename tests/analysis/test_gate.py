"""The gate in a shell's eyes: what passes, what fails and is named, what cannot be compared; and its documents."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import pytest
from builders import make_report, tally

from srdd.analysis.comparison.gate import check
from srdd.analysis.comparison.limits import Floor, Limit, Scope
from srdd.analysis.comparison.policy import DEFAULTS, Policy, load_policy, parse_floor, parse_limit
from srdd.core.tally import Tally
from srdd.core.uncertainty import total
from srdd.documents.parts import Kind, Note
from srdd.documents.report import Report, in_order
from srdd.documents.schema import measurement
from srdd.errors import ReportError, SettingError
from srdd.exporters.check import junit
from srdd.exporters.check import markdown as gate_markdown
from srdd.exporters.check import text as gate_text

Run = Callable[..., tuple[int, str, str]]
EXAMPLES = Path(__file__).parents[2] / "examples"
SPEC = "mxfp4:even"


def model(noises: list[float], specs: tuple[str, ...] = (SPEC,), error: float = 0.3, **options: object) -> Report:
    """Layers with the SQNR of 100 / noise, two equal sequences each."""
    rows = [[tally(error, noise / 2, 50.0)] * 2 for noise in noises]
    return make_report({"output": rows}, specs, **options)  # type: ignore[arg-type]


BASE = model([1.0] * 6)
LIMIT = Policy(limits=(Limit(metric="sqnr_db", max_worse=0.5),))


def test_a_planted_loss_is_named() -> None:
    verdict = check(model([1.0, 1.0, 1.0, 2.0, 1.05, 1.0]), BASE, LIMIT)
    assert not verdict.passed
    (case,) = verdict.cases
    assert (case.kind, case.format, case.checked) == ("output", SPEC, 6)
    (failure,) = case.failures
    assert failure.name == "layer 3"
    assert (failure.base, failure.new, failure.bound) == pytest.approx((20, 16.9897, 19.5), abs=1e-4)
    assert case.worst == failure
    assert check(BASE, BASE, LIMIT).passed
    assert check(BASE, BASE, Policy(limits=DEFAULTS, are_defaults=True)).passed


def with_a_quiet_module(noise: float) -> Report:
    """Layer 2 holds a second, much weaker module of that noise: in the layer's sums it hardly counts."""
    report = model([1.0] * 6)
    site = report.sites[2]
    weak = [tally(0.3, noise / 200, 0.5)] * 2
    measured = measurement(total(weak), weak)
    extra = site.model_copy(update={"name": "model.layers.2.weak", "index": 9, "formats": {SPEC: measured}})
    return in_order(report.model_copy(update={"sites": [*report.sites, extra]}))


def test_a_module_does_not_hide_in_its_layer(tmp_path: Path, srdd: Run) -> None:
    base, new = with_a_quiet_module(1.0), with_a_quiet_module(2.0)
    assert check(new, base, LIMIT).passed  # 3 dB worse, and the layer's SQNR falls by 0.04 dB
    verdict = check(new, base, replace(LIMIT, by="module"))
    (case,) = verdict.cases
    assert case.checked == 7
    assert [failure.name for failure in case.failures] == ["model.layers.2.weak"]
    base.save(tmp_path / "base.json")
    new.save(tmp_path / "new.json")
    arguments = ("check", tmp_path / "new.json", "--baseline", tmp_path / "base.json", "--limit", "sqnr_db=-0.5")
    assert srdd(*arguments)[0] == 0
    code, shown, _ = srdd(*arguments, "--by", "module")
    assert code == 1
    assert "model.layers.2.weak" in shown
    assert srdd(*arguments, "--by", "head")[0] == 2


def test_percent_and_scope() -> None:
    new = model([1.0] * 6, error=0.32)
    for amount, passed in (("6%", False), ("7%", True), (0.019, False), (0.021, True)):
        policy = Policy(limits=(Limit(metric="relative_error", max_worse=amount),))
        assert check(new, BASE, policy).passed is passed
    worse = model([1.0, 1.0, 1.0, 1.0, 1.0, 4.0])
    for layers, passed in (("0-4", True), ("5", False)):
        policy = Policy(limits=(Limit(metric="sqnr_db", max_worse=0.5, layers=layers, site="output", quant="mxfp4"),))
        assert check(worse, BASE, policy).passed is passed


def test_floors_need_no_baseline() -> None:
    assert check(BASE, None, Policy(floors=(Floor(metric="sqnr_db", value=20),))).passed
    verdict = check(BASE, None, Policy(floors=(Floor(metric="sqnr_db", value=20.01),)))
    assert [len(case.failures) for case in verdict.cases] == [6]
    assert check(BASE, None, Policy(floors=(Floor(metric="relative_error", value="30.1%"),))).passed


def test_a_gain_too_good_passes_and_is_flagged() -> None:
    verdict = check(model([1.0, 0.2, 0.3, 1.0, 1.0, 1.0]), BASE, LIMIT)  # 7 and 5.2 dB better; the factor is 6 dB
    assert verdict.passed
    assert [finding.name for finding in verdict.cases[0].implausible] == ["layer 1"]


def test_what_was_measured_and_is_no_longer_fails() -> None:
    gone = make_report({"output": [[tally(0.3, 0.5, 50.0)] * 2] * 5 + [[Tally(), Tally()]]})
    verdict = check(gone, BASE, LIMIT)
    (failure,) = verdict.cases[0].failures
    assert (failure.name, math.isnan(failure.new)) == ("layer 5", True)
    assert "layer 5: sqnr_db not measured, baseline 20.00" in junit.render(verdict)


def test_what_is_not_measured_is_said_once_whatever_the_limits() -> None:
    gone = make_report({"output": [[tally(0.3, 0.5, 50.0)] * 2] * 4 + [[Tally(), Tally()]] * 2})
    policy = Policy(limits=(parse_limit("sqnr_db=-0.5", Scope()), parse_limit("relative_error=+5%", Scope())))
    cases = check(gone, BASE, policy).cases
    missing = "not measured, so no limit holds: sqnr_db, relative_error"
    assert gate_text.failures(cases, 2) == [f"output mxfp4:even layer {layer}: {missing}" for layer in (4, 5)]
    assert gate_text.failures(cases, 1) == [f"output mxfp4:even layer 4: {missing}", "and 1 more not measured"]


def test_what_the_baseline_lacks_is_held_to_nothing_and_said() -> None:
    gap = make_report({"output": [[tally(0.3, 0.5, 50.0)] * 2] * 5 + [[Tally(), Tally()]]})
    verdict = check(BASE, gap, LIMIT)
    assert [case.checked for case in verdict.cases] == [5]
    assert "not held to sqnr_db -0.5, the baseline has no sqnr_db: output mxfp4:even layer 5" in verdict.notes
    floored = check(gap, None, Policy(floors=(Floor(metric="sqnr_db", value=10),)))
    assert [case.checked for case in floored.cases] == [5]
    assert "this report has no sqnr_db: output mxfp4:even layer 5" in floored.notes[0]


def test_values_that_are_not_finite_fail() -> None:
    bad = BASE.model_copy(update={"warnings": [Note("ERROR: NaN or infinite values at 1 site(s): output x")]})
    verdict = check(bad, BASE, LIMIT)
    assert (verdict.passed, len(verdict.problems)) == (False, 1)
    assert ElementTree.fromstring(junit.render(verdict)).get("failures") == "1"


@pytest.mark.parametrize(
    ("new", "policy", "error", "words"),
    [
        (model([1.0] * 6, ("mxfp4:floor",)), LIMIT, ReportError, "scale rule differs"),
        (model([1.0] * 6, hashes=["x", "y"]), LIMIT, ReportError, "calibration differs"),
        (model([1.0] * 7), LIMIT, ReportError, "another model: layer_count differs"),
        (BASE, Policy(limits=(Limit(metric="sqnr_db", max_worse=1, site="weight"),)), ReportError, "has output"),
        (BASE, Policy(limits=(Limit(metric="sqnr_db", max_worse=1, layers="9"),)), ReportError, "matches nothing"),
        (BASE, Policy(limits=(Limit(metric="sqnr_db", max_worse=1, quant="nvfp4"),)), ReportError, "not nvfp4:nvidia"),
        (BASE, Policy(), SettingError, "policy: nothing was checked: give limits with baseline, or floors"),
    ],
)
def test_what_cannot_be_checked(new: Report, policy: Policy, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check(new, BASE, policy)


def test_limits_need_a_baseline() -> None:
    with pytest.raises(SettingError, match="baseline: missing; limits compare with it, a floor needs none"):
        check(BASE, None, LIMIT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sqnr_db", "not understood"),
        ("sqnr_db=+0.5", "is worse when it falls; expected sqnr_db=-0.5"),
        ("relative_error=-5%", r"is worse when it rises; expected relative_error=\+5%"),
        ("sqnr_db=-5%", "in percent means little"),
        ("crest=1", "cannot rank layers"),
        ("sqnr_db=-half", "is no number"),
        ("deadzone_ratio=+5", "is a ratio"),
    ],
)
def test_limits_that_make_no_sense(text: str, words: str) -> None:
    with pytest.raises(SettingError, match=f"limit={re.escape(text)}: .*{words}"):
        parse_limit(text, Scope())


def test_limits_and_floors_by_hand() -> None:
    assert parse_limit("sqnr_db=-0.5", Scope()).bound(19) == 18.5
    assert parse_limit("relative_error=+5%", Scope()).bound(0.1) == pytest.approx(0.105)
    assert parse_limit("deadzone_ratio=0.01", Scope()).bound(0.1) == pytest.approx(0.11)
    assert parse_floor("sqnr_db=15", Scope(site="output")).text == "sqnr_db >= 15 (output)"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[limit]]\nmetric = "sqnr"\nmax_worse = 1', "metric='sqnr': cannot rank layers"),
        ('[[limit]]\nmetric = "sqnr_db"\nmax_worse = 1\nlayer = 3', "unknown key 'layer'"),
        ('[[limit]]\nmetric = "sqnr_db"', "key 'max_worse' is missing"),
        ('[[limit]]\nmetric = "sqnr_db"\nmax_worse = true', "true is no number"),
        ('[[floor]]\nmetric = "sqnr_db"\nvalue = true', "true is no number"),
        ("[limits]", "unknown key 'limits'; known: limit, floor"),
        ("implausible_gain = 2.0", "neither a"),
        ("implausible_gain = 1", "expected a factor above 1"),
        ("limit = 3", "is no table"),
        ('[[floor]]\nmetric = "sqnr_db"\nvalue = 1\nsite = "outputs of it"', "expected weight, input, output"),
    ],
)
def test_damaged_policies_are_refused_in_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "srdd.toml"
    path.write_text(text)
    with pytest.raises(ReportError, match=words) as caught:
        load_policy(path)
    assert "\n" not in str(caught.value)


def test_a_policy_that_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "srdd.toml"
    for content, words in ((b"[[", "cannot read the policy"), (b"\xff", "is no policy: found bytes that are no UTF-8")):
        path.write_bytes(content)
        with pytest.raises(ReportError, match=words) as caught:
            load_policy(path)
        assert "\n" not in str(caught.value)


def test_every_value_has_its_unit_and_the_closest_its_distance() -> None:
    new = make_report({"output": [[tally(0.3, clipped=10)] * 2] * 2})
    base = make_report({"output": [[tally(0.3, clipped=9)] * 2] * 2})
    (case,) = check(new, base, Policy(limits=(parse_limit("saturation_ratio=+0.01", Scope()),))).cases
    said = "saturation_ratio 0.98 %, baseline 0.88 %, bound 1.88 % (saturation_ratio +0.01 as ratio)"
    assert gate_text.sentence(case, case.worst).endswith(said)
    assert gate_text.closest_text(case) == "layer 0: 0.98 %, bound 1.88 %"
    (share,) = check(new, base, Policy(limits=(parse_limit("relative_error=+5%", Scope()),))).cases
    assert gate_text.limit_text(share) == "relative_error +5%"


def test_tables_of_a_check_give_the_closest_value(files: dict[str, Path], tmp_path: Path, srdd: Run) -> None:
    markdown = tmp_path / "gate.md"
    arguments = ("check", files["base"], "--baseline", files["base"], "--limit", "sqnr_db=-0.5", "--summary", markdown)
    _, shown, _ = srdd(*arguments, "--verbose")
    for text in (shown, markdown.read_text()):
        assert "layer 0: 20.00 dB, bound 19.50 dB" in text


def test_the_first_line_is_the_verdict() -> None:
    def first(new: Report, policy: Policy | None = LIMIT) -> str:
        return gate_text.headline(check(new, BASE, policy))

    assert first(BASE) == "PASSED 6 checks"
    near = model([1.0, 1.0, 1.05, 1.1, 1.0, 1.0])  # 0.21 and 0.41 of 0.5 dB
    assert first(near) == (
        "PASSED 6 checks; closest: output mxfp4:even layer 3: sqnr_db 19.59 dB, baseline 20.00 dB, bound 19.50 dB "
        "(sqnr_db -0.5)"
    )
    worse = model([1.0, 2.0, 1.0, 4.0, 1.0, 1.0])
    assert first(worse).startswith("FAILED 2 of 6: output mxfp4:even layer 1: sqnr_db 16.99 dB"), "where it begins"
    broken = BASE.model_copy(update={"warnings": [Note.of("error", "NaN")]})
    assert first(broken) == "FAILED, though all of 6 checks hold: ERROR: NaN"


HOSTILE = "</failure>\x00<script>|&"


def test_documents_survive_hostile_names() -> None:
    verdict = check(model([4.0] * 6, model=HOSTILE), model([1.0] * 6, model=HOSTILE), LIMIT)
    root = ElementTree.fromstring(junit.render(verdict))
    assert (root.get("tests"), root.get("failures")) == ("1", "1")
    assert root[0].get("name") == "srdd check </failure>\ufffd<script>|&"
    failure = root[0][0].find("failure")
    assert failure is not None
    assert (failure.text or "").count("\n") == 5
    page = gate_markdown.render(verdict)
    assert "<script>" not in page
    assert "## srdd check FAILED" in page


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name, report in {
        "base": BASE,
        "worse": model([1.0, 1.0, 2.0, 1.0, 1.0, 1.0]),
        "rule": model([1.0] * 6, ("mxfp4:floor",)),
        "empty": make_report({}),
    }.items():
        found[name] = tmp_path / f"{name}.json"
        report.save(found[name])
    return found


def test_in_a_shell(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shell(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "srdd", "check", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, input=stdin)

    assert shell(files["base"], "--baseline", files["base"]).returncode == 0
    failed = shell(files["worse"], "--baseline", files["base"], "--limit", "sqnr_db=-0.5")
    assert (failed.returncode, failed.stderr) == (1, "")
    first = "FAILED 1 of 6: output mxfp4:even layer 2: sqnr_db 16.99 dB, baseline 20.00 dB, bound 19.50 dB"
    assert failed.stdout.startswith(first)
    other = shell(files["rule"], "--baseline", files["base"])
    assert other.returncode == 2
    assert "scale rule differs: mxfp4:even in the base and mxfp4:floor in the new report" in other.stderr
    assert shell("-", "--baseline", files["base"], stdin=files["worse"].read_text()).returncode == 1


def test_command(files: dict[str, Path], tmp_path: Path, srdd: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    page, xml, markdown = tmp_path / "page.md", tmp_path / "gate.xml", tmp_path / "gate.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    arguments = ("check", files["worse"], "--baseline", files["base"])
    code, printed, _ = srdd(*arguments, "--junit", xml, "--summary", markdown, "--json")
    verdict = json.loads(printed)
    assert (code, verdict["passed"], verdict["defaults"]) == (1, False, True)
    assert ElementTree.parse(xml).getroot().get("failures") == "1"
    assert page.read_text() == "before\n" + markdown.read_text()
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    code, _, shown = srdd(*arguments, "--junit", xml)
    assert code == 2
    assert "replace it with --force" in shown
    assert srdd(*arguments, "--junit", xml, "--force")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["base"], "--baseline: nothing to check; give it"),
        (["base", "--baseline", "base", "--verbose", "--json"], "--verbose has no effect with --json"),
        (["base", "--baseline", "base", "--floor", "sqnr_db=1"], "has no effect on floors"),
        (["base", "--baseline", "base", "--force"], "--force has no effect"),
        (["base", "--baseline", "empty"], "the report has no sites"),
        (["base", "--baseline", "base", "--limit", "sqnr_db=-1", "--layers", "x"], "not understood"),
        (["-", "--baseline", "-"], "cannot both be standard input"),
        (["missing.json", "--baseline", "base"], "no report at"),
        (["base", "--baseline", "base", "--policy", "gone.toml"], "no policy at gone.toml; write [[limit]] and"),
        (["base", "--baseline", "base", "--policy", "/"], "/ is a folder, expected the file of a policy"),
        (["base", "--baseline", "base", "--junit", "out", "--summary", "out"], "are the same file"),
    ],
)
def test_mistakes(files: dict[str, Path], arguments: list[str], words: str, srdd: Run) -> None:
    code, printed, shown = srdd("check", *(files.get(word, word) for word in arguments))
    assert (code, printed) == (2, "")
    assert words in shown.strip().splitlines()[-1]


def test_version_0_is_held_to_what_it_knows(tmp_path: Path, srdd: Run) -> None:
    paths = []
    for name, sqnr in (("a", 18.0), ("b", 15.0)):
        rows = [{"layer_id": i, "sqnr_db": sqnr if i == 1 else 18.0, "relative_error": 0.3} for i in range(4)]
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps({"report": {"per_layer": rows}}))
    code, shown, _ = srdd("check", paths[1], "--baseline", paths[0])
    assert code == 1
    assert "layer 1: sqnr_db 15.00 dB, baseline 18.00" in shown
    assert "version 0" in shown
    assert "the baseline has no saturation_ratio" in shown, "a built-in limit it cannot be held to"
    new = make_report({"output": [[tally(0.3)] * 2] * 4}, ("mxfp4:floor",))
    new.save(tmp_path / "new.json")
    arguments = ("check", tmp_path / "new.json", "--baseline", paths[0], "--limit", "saturation_ratio=+0.01")
    code, _, shown = srdd(*arguments)
    assert code == 2, "a limit that holds nothing must not pass"
    assert "matches nothing: saturation_ratio is not known for any layer or site of the baseline" in shown


def test_a_summary_page_that_cannot_be_written_changes_no_verdict(
    files: dict[str, Path], tmp_path: Path, srdd: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "nowhere" / "page.md"))
    code, _, shown = srdd("check", files["base"], "--baseline", files["base"])
    assert code == 0
    assert "GITHUB_STEP_SUMMARY not written" in shown
    assert srdd("check", files["worse"], "--baseline", files["base"])[0] == 1


def test_the_policy_of_the_examples_runs(tmp_path: Path, srdd: Run) -> None:
    policy = load_policy(EXAMPLES / "srdd.toml")
    assert (len(policy.limits), len(policy.floors)) == (3, 1)
    report = make_report({k: [[tally(0.3)] * (1 if k == "weight" else 2)] * 3 for k in ("weight", "input", "output")})
    report.save(tmp_path / "new.json")
    policy_path = EXAMPLES / "srdd.toml"
    assert srdd("check", tmp_path / "new.json", "--baseline", tmp_path / "new.json", "--policy", policy_path)[0] == 0


def test_light() -> None:
    code = "import srdd.analysis.comparison.changes, srdd.analysis.comparison.gate, srdd.analysis.comparison.policy; "
    code += "import srdd.exporters.check.junit, srdd.analysis.validation, sys; "
    code += "print([m for m in ('torch', 'numpy', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_built_in_limits_hold_modules_unless_layers_are_asked_for() -> None:
    def checked(by: Literal["layer", "module"] | None) -> int:
        verdict = check(base, base, Policy(are_defaults=True, by=by))
        return next(case.checked for case in verdict.cases if (case.kind, case.metric) == ("weight", "sqnr_db"))

    base = make_report({"weight": [[tally(0.3)]] * 3}, [SPEC])
    (one, *rest) = base.sites
    twin = one.model_copy(update={"name": f"{one.name}.twin"})
    base = in_order(base.model_copy(update={"sites": [one, twin, *rest]}))
    assert [checked(by) for by in (None, "module", "layer")] == [4, 4, 3]


@pytest.mark.parametrize(("kind", "factor"), [("weight", 2.0), ("input", 4.0), ("output", 4.0)])
def test_largest_values_that_were_cut_off_fail(kind: Kind, factor: float) -> None:
    def report(share: float) -> Report:
        rows = [replace(one, max_abs_x=share * one.max_abs_x) for one in [tally(0.3)] * (1 if kind == "weight" else 4)]
        return make_report({kind: [rows]})

    base = report(1.0)
    assert check(report(1.01 / factor), base).passed
    verdict = check(report(0.99 / factor), base)
    assert [(case.metric, case.limit) for case in verdict.cases if case.failures] == [
        ("crest", f"crest x{factor:g} ({kind})")
    ]
