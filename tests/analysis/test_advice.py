"""Advice: each line of the rule table, causes from sums, what-ifs from measured formats, nothing invented."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from builders import N, make_costs, make_probe, make_report, tally
from priced_reports import KLS, PRICED, report

from srdd.analysis.advice import advise
from srdd.analysis.causes import cause, noise_shares
from srdd.analysis.error_advice import limits_for
from srdd.analysis.layer_costs import WITHOUT_COSTS
from srdd.core.gaussian import gaussian_metrics
from srdd.core.tally import Tally
from srdd.documents.advice import Advice
from srdd.documents.report import Report, in_order
from srdd.documents.schema import Site, measurement
from srdd.errors import ReportError, SettingError

Run = Callable[..., tuple[int, str, str]]
SPEC = "mxfp4:even"
GOOD, BAD = tally(0.22, 1.0), tally(0.22, 4.0)  # 20 and 14 dB; the limit is 18.03


# the classic rules, with thresholds under which GOOD passes
PASSING = {"sqnr_db": 18.0, "relative_error": 0.5}


def model(bad: int, layers: int = 20) -> Report:
    return of([4.0 if i < bad else 1.0 for i in range(layers)])


def of(noises: list[float]) -> Report:
    report = make_report({"weight": [[tally(0.22, noise)] for noise in noises]})
    return report.model_copy(update={"settings": report.settings.model_copy(update={"thresholds": PASSING})})


@pytest.mark.parametrize(
    ("bad", "verdict", "actions"),
    [
        (0, "no_action", {}),
        (1, "higher_precision", {"higher precision": 1}),
        (2, "mixed_approach", {"higher precision": 1, "noise in training": 1}),
        (6, "mixed_approach", {"higher precision": 3, "noise in training": 3}),
        (7, "reconsider_format", {"another format": 7}),
    ],
)
def test_the_rule_table(bad: int, verdict: str, actions: dict[str, int]) -> None:
    advice = advise(model(bad), "weight", SPEC, "classic")
    assert advice.verdict == verdict
    assert f"{bad} of 20 layers" in advice.rule
    counts: dict[str, int] = {}
    for row in advice.flagged:
        counts[row.action] = counts.get(row.action, 0) + 1
        assert row.beyond == pytest.approx({"sqnr_db": 13.979}, abs=1e-3)
    assert counts == actions


def test_the_worse_half_is_kept_in_higher_precision() -> None:
    advice = advise(of([2.0, 8.0, 4.0, 2.5, *[1.0] * 16]), "weight", SPEC, "classic")
    assert [(row.layer, row.action) for row in advice.flagged] == [
        (1, "higher precision"),
        (2, "higher precision"),
        (3, "noise in training"),
        (0, "noise in training"),
    ]
    assert advice.flagged[0].severity == pytest.approx(0.08**0.5 / 10 ** (-18 / 20))


@pytest.mark.parametrize(
    ("noises", "verdict", "flagged", "words"),
    [
        ([1.0] * 20, "no_action", [], "0 of 20 layers (0%) are beyond what the format gives on Gaussian data: no"),
        ([*[1.0] * 18, 4.0, 1.1], "higher_precision", [18], "1 of 20 layers (5%)"),
        ([4.0] * 20, "reconsider_format", [], "none of them stands out of the model; that is above 30%"),
        ([*[4.0] * 18, 9.0, 12.0], "reconsider_format", [19, 18], "2 of them stand out of the model"),
        ([*[1.5] * 15, *[1.6] * 5], "no_action", [], "5 of 20 layers (25%) are beyond"),
    ],
)  # fmt: skip
def test_flagged_is_what_stands_out_of_the_format_and_of_the_model(
    noises: list[float], verdict: str, flagged: list[int], words: str
) -> None:
    advice = advise(of(noises), "weight", SPEC)
    assert (advice.verdict, [row.layer for row in advice.flagged]) == (verdict, flagged)
    assert words in advice.rule


def test_limits() -> None:
    baseline = gaussian_metrics(SPEC)
    assert baseline is not None
    limits = limits_for(SPEC, "format", {})
    assert limits["sqnr_db"] == baseline["sqnr_db"] - 1
    assert limits["relative_error"] == 1.5 * baseline["relative_error"]
    assert limits["saturation_ratio"] == baseline["saturation_ratio"] + 0.01
    assert limits_for("mxfp4:rceil", "format", {})["saturation_ratio"] == 0.01
    assert limits_for(SPEC, "classic", {"sqnr_db": 15.0}) == {
        "sqnr_db": 15.0,
        "relative_error": 0.1,
        "deadzone_ratio": 0.05,
        "saturation_ratio": 0.01,
    }
    with pytest.raises(SettingError, match="no Gaussian baseline for mxfp5:even; use against=classic"):
        limits_for("mxfp5:even", "format", {})


def several() -> Report:
    """mxfp4 bad everywhere, nvfp4 bad in half, mxfp8 good: 14, 14 or 21, 32 dB."""
    report = make_report({"weight": [[BAD]] * 10}, [SPEC, "nvfp4:nvidia", "mxfp8_e4m3:rceil", "mxint8:floor"])
    sites = []
    for site in report.sites:
        noise = {"nvfp4:nvidia": 4.0 if (site.layer or 0) % 2 else 0.8, "mxfp8_e4m3:rceil": 0.06, "mxint8:floor": 0.001}
        formats = {s: measurement(tally(0.02, noise[s])) if s in noise else m for s, m in site.formats.items()}
        sites.append(site.model_copy(update={"formats": formats}))
    return in_order(report.model_copy(update={"sites": sites}))


def test_the_next_format_is_the_smallest_that_passes() -> None:
    advice = advise(several(), "weight", SPEC)
    assert advice.verdict == "reconsider_format"
    assert [(c.format, c.bits_per_value, c.flagged, c.passes) for c in advice.formats] == [
        (SPEC, 4.25, 10, False),
        ("nvfp4:nvidia", 4.5, 5, False),
        ("mxfp8_e4m3:rceil", 8.25, 0, True),
        ("mxint8:floor", 8.25, 0, True),
    ]
    assert advice.next_format == "mxint8:floor"  # as many bits as mxfp8, less noise
    assert advice.flagged == []  # every layer is as bad: none stands out
    what_if = advise(several(), "weight", SPEC, "classic").flagged[0].what_if
    assert [w.format for w in what_if] == ["mxint8:floor", "mxfp8_e4m3:rceil", "nvfp4:nvidia"]
    assert what_if[1].gain_db == pytest.approx(18.239, abs=1e-3)  # 10 log10(4 / 0.06)
    assert advise(model(10), "weight", SPEC).next_format is None


def test_causes_stand_out_against_gaussian_data() -> None:
    plain = replace(tally(0.2, 10.0), sum_e2_clipped=0.15, sum_e2_deadzone=0.43)
    assert noise_shares(measurement(plain)) == pytest.approx({"clipping": 0.015, "underflow": 0.043, "rounding": 0.942})
    assert cause(SPEC, measurement(replace(plain, sum_e2_deadzone=2.0))).startswith("underflow 20% of the noise (Gau")
    assert cause(SPEC, measurement(replace(plain, sum_e2_clipped=2.0))).startswith("clipping 20% of the noise")
    assert cause(SPEC, measurement(plain)) == "rounding as on Gaussian data"
    heavy = replace(plain, sum_x4=50 * plain.sum_x2**2 / N)
    assert cause(SPEC, measurement(heavy)).endswith("; massive values, kurtosis 50.00")
    assert noise_shares(measurement(tally(0.0, 0.0))) == {"clipping": 0, "underflow": 0, "rounding": 0}


def test_errors_name_no_sigma() -> None:
    assert advise(several(), "weight", SPEC).noise is None
    assert advise(PRICED).noise is None


def test_a_sigma_comes_from_sensitivities_or_from_a_probe() -> None:
    noisy = report(make_costs({SPEC: KLS}, traces=[4.0] * 12))
    noise = advise(noisy).noise
    assert noise is not None
    assert (noise.strategy, noise.target, noise.dose.chosen_by) == ("equal-damage", "rmsnorm", "noise_kl")
    assert noise.sigma_start == pytest.approx((2 * 0.05 / 49) ** 0.5, rel=0.01)
    probe = make_probe(noisy.model, {"w4a4": 0.03})
    assert advise(noisy, "weight", probe=probe).noise.sigma_start == pytest.approx(0.015)  # type: ignore[union-attr]
    by_probe = advise(PRICED, probe=make_probe(PRICED.model, {"w4a4": 0.02})).noise
    assert by_probe is not None
    assert (by_probe.strategy, by_probe.sigma_start, by_probe.dose.break_sigma) == ("global", 0.01, 0.02)
    with pytest.raises(ReportError, match="the probe is of another model"):
        advise(noisy, probe=make_probe(noisy.model.model_copy(update={"layer_count": 3}), {"w4a4": 0.03}))


def test_groups_that_carry_half_with_what_is_to_blame_and_what_others_save() -> None:
    costs = make_costs({SPEC: [0.8, 0.1], "mxfp8_e4m3:rceil": [0.008, 0.001]}, modes=("weight", "both"))
    heavy = replace(tally(0.2, 10.0), sum_e2_clipped=0.15, sum_e2_deadzone=3.0, sum_x4=90 * 100.0**2 / N)
    qkv = [f"model.layers.0.self_attn.{role}" for role in ("q_proj", "k_proj", "v_proj")]
    site = Site(kind="input", name=qkv[0], role="q_proj", layer=0, members=qkv, formats={SPEC: measurement(heavy)})
    advice = advise(report(costs, sites=[site]))
    first = advice.groups[0]
    assert (first.name, first.blame, first.share) == ("model.layers.0.self_attn.qkv", "inputs", pytest.approx(4 / 9))
    assert first.cause.startswith("underflow 30% of the noise (Gaussian 4%); massive values, kurtosis ")
    assert [(w.format, w.predicted_kl) for w in first.what_if] == [("mxfp8_e4m3:rceil", pytest.approx(0.004))]
    assert [g.name for g in advice.groups] == ["model.layers.0.self_attn.qkv", "model.layers.0.mlp.down_proj"]
    assert advice.groups[1].cause == ""  # no site of it in this report
    throughout = advice.remedies[-1]
    assert (throughout.higher, throughout.base, throughout.word) == (None, "mxfp8_e4m3:rceil", "free")
    assert advice.remedies[0].keep[0].name == "model.layers.0.mlp.down_proj"  # half of qkv on a third of its bits


def test_the_weight_of_the_costliest_linear_tells_why() -> None:
    costs = make_costs({SPEC: [0.8, 0.1]}, modes=("weight",))
    weight = Site(
        kind="weight", name="model.layers.0.self_attn.q_proj.weight", role="q_proj", layer=0,
        formats={SPEC: measurement(replace(tally(0.2, 10.0), sum_e2_clipped=3.0))},
    )  # fmt: skip
    first = advise(report(costs, sites=[weight])).groups[0]
    assert (first.blame, first.cause) == ("", "clipping 30% of the noise (Gaussian 2%)")


def test_what_is_to_be_done_on_the_terminal(tmp_path: Path, srdd: Run) -> None:
    path = tmp_path / "report.json"
    specs = {SPEC: [0.8, 0.1, 0.1], "mxfp8_e4m3:rceil": [0.008, 0.001, 0.001]}
    report(make_costs(specs, traces=[4.0] * 3)).save(path)
    code, shown, said = srdd("advise", path)
    shown = " ".join(shown.split())
    assert (code, said) == (0, "")
    assert "0.attn.qkv" in shown
    assert "layers that carry half of the cost, dearest first: 0" in shown
    assert "mxfp8 throughout" in shown
    assert "start at sigma 0.0877 with `srdd multipliers --strategy equal-damage`" in shown
    code, printed, _ = srdd("advise", path, "--json")
    assert Advice.model_validate_json(printed).noise is not None
    (tmp_path / "probe.json").write_text("{}")
    code, printed, said = srdd("advise", path, "--probe", tmp_path / "probe.json")
    assert (code, printed, said.count("\n")) == (2, "", 1)


def test_command(tmp_path: Path, srdd: Run) -> None:
    path = tmp_path / "report.json"
    several().save(path)
    code, shown, said = srdd("advise", path)
    assert (code, said) == (0, ""), "the advice is what a file gets"
    assert "next format that passes: mxint8:floor, 8.25 bits a value instead of 4.25" in shown
    assert "an error of a tensor is not yet a loss of the model" in shown
    code, printed, _ = srdd("advise", path, "--quant", "mxfp8", "--json")
    assert code == 0
    assert Advice.model_validate_json(printed).verdict == "no_action"
    for arguments, words in (
        (["--against", "gaussian"], "expected cost, format or classic"),
        (["--site", "output"], "the report has weight"),
        (["--quant", "mxfp6_e2m3"], "the report has mxfp4:even"),
    ):
        code, _, shown = srdd("advise", path, *arguments)
        assert code == 2
        assert words in shown


def test_version_0_has_a_verdict_and_no_invented_cause(tmp_path: Path, srdd: Run) -> None:
    rows = [{"layer_id": i, "relative_error": 0.4, "sqnr_db": 16.0, "deadzone_ratio": 0.2} for i in range(4)]
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"config": {"quant_type": "mxfp4"}, "report": {"per_layer": rows}}))
    code, printed, _ = srdd("advise", old, "--json")
    advice = Advice.model_validate_json(printed)
    assert (code, advice.verdict, advice.next_format) == (0, "reconsider_format", None)
    assert "near the maximum" in advice.notes[0]
    advice = Advice.model_validate_json(srdd("advise", old, "--against", "classic", "--json")[1])
    assert advice.flagged[0].cause == "not measured: the report holds metrics without sums"
    assert advice.flagged[0].noise_shares == {}
    assert "saturation_ratio" not in advice.flagged[0].beyond


def test_nothing_to_judge() -> None:
    with pytest.raises(ReportError, match="scan with sites=output"):
        advise(model(1), "output", SPEC)
    partly = advise(make_report({"weight": [[GOOD], [Tally()], [GOOD]]}), "weight", SPEC)
    assert partly.notes == ["layer(s) 1 hold no finite metric and are not judged", WITHOUT_COSTS]
    assert (partly.layers, partly.formats[0].layers) == (2, 2)  # what was not judged did not pass
    assert partly.rule.startswith("0 of 2 layers")
    with pytest.raises(ReportError, match="advice needs a report of `srdd scan`"):
        advise(make_report({"weight": [[Tally()]] * 4}), "weight", SPEC)
