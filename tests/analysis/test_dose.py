"""How much noise: sigmas by hand from sensitivities and probes, breaks, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest
from builders import make_costs, make_probe
from priced_reports import KLS, PLAIN, SPEC, report

from srdd.analysis.breaks import refuse_breaking
from srdd.analysis.dose import Amount, Course, noise_at_one
from srdd.analysis.multipliers import find_multipliers
from srdd.analysis.series import noise_series
from srdd.analysis.strategies import StrategyOptions
from srdd.documents.costs import Clean, Cost
from srdd.documents.probe import Probe
from srdd.documents.report import Report
from srdd.documents.rin import load_rin
from srdd.errors import NoEffectError, ReportError, SettingError

Run = Callable[..., tuple[int, str, str]]
TRACES = [4.0] * 6 + [16.0] * 6
NOISY = report(make_costs({SPEC: KLS}, traces=TRACES))
PROBE = make_probe(NOISY.model, {"w16a16": 0.04, "w4a4": 0.03})


def saved(tmp_path: Path, document: Report | Probe, name: str) -> Path:
    path = tmp_path / name
    path.write_text(document.model_dump_json())
    return path


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    return saved(tmp_path, NOISY, "report.json")


def test_equal_damage_costs_the_same_in_every_layer() -> None:
    config, series = find_multipliers(NOISY, strategy="equal-damage")
    # 1 / 2 and 1 / 4, over the root of their mean square sqrt((1/4 + 1/16) / 2) = sqrt(5/32)
    assert config.layer_multipliers == pytest.approx(
        {**dict.fromkeys(range(6), 0.5 / math.sqrt(5 / 32))}
        | {layer: 0.25 / math.sqrt(5 / 32) for layer in range(6, 12)},
        abs=1e-6,
    )
    damage = [trace * config.layer_multipliers[layer] ** 2 for layer, trace in enumerate(TRACES)]
    assert damage == pytest.approx([damage[0]] * 12, rel=1e-5)
    assert fmean(m * m for m in config.layer_multipliers.values()) == pytest.approx(1, rel=1e-5)
    assert (series.metric.name, series.values) == ("noise_sensitivity", pytest.approx(TRACES))
    assert series.standard_errors == pytest.approx([0.05 * trace for trace in TRACES])
    assert (config.provenance.normalize, config.provenance.clamp) == ("rms", None)
    assert config.outside_layers == 1
    clamped = find_multipliers(NOISY, strategy="equal-damage", options=StrategyOptions(clamp=(0.7, 2)))[0]
    assert min(clamped.layer_multipliers.values()) == 0.7
    assert "clamped to 0.7 to 2: layer(s) 6-11; the rms is no longer 1" in clamped.provenance.notes


def test_sigma_is_what_may_be_spent_and_the_break_is_a_tenth_of_the_loss() -> None:
    config = find_multipliers(NOISY, strategy="global")[0]
    total = sum(TRACES) + 1  # the final norm gets noise too
    assert noise_at_one(NOISY, config).value == pytest.approx(total / 2)
    assert config.schedule.sigma_start == pytest.approx(math.sqrt(2 * 0.05 / total), rel=0.01)
    assert config.schedule.sigma_start <= math.sqrt(2 * 0.05 / total)
    assert config.schedule.sigma_end == pytest.approx(config.schedule.sigma_start / 100)
    dose = config.dose
    assert dose is not None
    assert dose.predicted_kl is not None
    assert dose.predicted_kl.value == pytest.approx(0.05, rel=0.02)
    assert dose.predicted_kl.error == pytest.approx(0.05 * 0.05, rel=0.02)
    assert dose.break_sigma == pytest.approx(math.sqrt(2 * 0.1 * 3.0 / total))
    assert dose.break_interval == pytest.approx((dose.break_sigma, dose.break_sigma))  # loss and traces vary alike
    # 24 norms of rms 0.5 and one of 2, alike in size
    assert dose.rms_share == pytest.approx(config.schedule.sigma_start / math.sqrt((24 * 0.25 + 4) / 25))
    more = find_multipliers(NOISY, strategy="global", amount=Amount(noise_kl=0.2))[0]
    assert more.schedule.sigma_start == pytest.approx(2 * config.schedule.sigma_start, rel=0.01)


def test_by_default_no_more_than_half_of_the_break() -> None:
    """A model that is sure of its text breaks at a KL that others hardly feel."""
    assert NOISY.costs is not None
    sure = NOISY.costs.model_copy(update={"clean": Clean(loss=Cost.of([0.3, 0.3]), entropy=Cost.of([0.3, 0.3]))})
    config = find_multipliers(report(sure), strategy="global")[0]
    broken = math.sqrt(2 * 0.1 * 0.3 / (sum(TRACES) + 1))
    assert config.schedule.sigma_start == pytest.approx(broken / 2, rel=0.01)
    assert config.schedule.sigma_start <= broken / 2
    assert any("sigma_start is 0.5 of the predicted break" in note for note in config.provenance.notes)
    refuse_breaking(config)
    with pytest.raises(SettingError, match="more than half of the sigma at which the model breaks"):
        refuse_breaking(find_multipliers(report(sure), strategy="global", amount=Amount(noise_kl=0.05))[0])


def test_relative_noise_counts_in_units_of_the_weights() -> None:
    config = find_multipliers(NOISY, strategy="global", relative=True)[0]
    assert noise_at_one(NOISY, config).value == pytest.approx((sum(TRACES) * 0.25 + 4) / 2)
    series = noise_series(NOISY, relative=True)
    assert series.values == pytest.approx([trace * 0.25 for trace in TRACES])


def test_multipliers_of_norms_count_by_what_the_norm_feeds() -> None:
    config = find_multipliers(NOISY, strategy="global")[0]
    config = config.model_copy(
        update={"norm_multipliers": {"attention": dict.fromkeys(range(12), 2.0), "mlp": dict.fromkeys(range(12), 0.0)}}
    )
    assert noise_at_one(NOISY, config).value == pytest.approx((sum(TRACES) / 4 * 4 + 1) / 2)


def test_a_share_of_the_break_that_a_probe_found() -> None:
    config = find_multipliers(NOISY, strategy="equal-damage", amount=Amount(probe=PROBE))[0]
    assert config.schedule.sigma_start == pytest.approx(0.015)
    assert config.dose is not None
    assert (config.dose.break_sigma, config.dose.break_source) == (pytest.approx(0.03), "W4A4")
    assert config.dose.break_interval == pytest.approx((0.027, 0.033))
    clean = find_multipliers(NOISY, mode="w16a16", amount=Amount(probe=PROBE, safety=0.25), strategy="equal-damage")[0]
    assert clean.schedule.sigma_start == pytest.approx(0.01)
    # louder than uniform noise: the break comes earlier; fewer layers: not later
    loud = find_multipliers(NOISY, strategy="inverse", amount=Amount(probe=PROBE))[0]
    loudness = math.sqrt(fmean(m * m for m in loud.layer_multipliers.values()))
    assert loud.dose is not None
    assert loud.dose.break_sigma == pytest.approx(0.03 / loudness)
    assert loud.schedule.sigma_start <= 0.015 / loudness
    few = find_multipliers(NOISY, strategy="targeted", amount=Amount(probe=PROBE))[0]
    assert few.schedule.sigma_start == pytest.approx(0.015)


def test_the_mode_of_a_probe_is_that_of_the_costs_where_they_know_it() -> None:
    probe = make_probe(NOISY.model, {"w16a16": 0.04, "W4A16": 0.05})
    by_weights = find_multipliers(NOISY, mode="w4a16", amount=Amount(probe=probe))
    assert by_weights[1].mode == "weight"
    assert by_weights[0].dose is not None
    assert by_weights[0].dose.break_source == "W4A16"
    assert find_multipliers(NOISY, mode="weight", amount=Amount(probe=probe))[1].mode == "weight"
    unquantized = find_multipliers(NOISY, mode="w16a16", amount=Amount(probe=probe))
    assert unquantized[1].mode == "both"
    assert find_multipliers(NOISY, amount=Amount(probe=probe))[0].dose.break_source == "W4A16"  # type: ignore[union-attr]


def test_without_anything_known_the_schedule_is_that_of_the_training_scripts() -> None:
    config = find_multipliers(PLAIN)[0]
    assert (config.schedule.sigma_start, config.schedule.sigma_end, config.schedule.num_stages) == (0.01, 0.0001, 10)
    assert config.dose is not None
    assert (config.dose.chosen_by, config.dose.predicted_kl, config.dose.break_sigma) == ("default", None, None)
    refuse_breaking(config)


def test_the_default_strategy_spares_what_costs() -> None:
    config = find_multipliers(NOISY)[0]
    assert config.provenance.strategy == "inverse"
    assert min(config.layer_multipliers, key=config.layer_multipliers.__getitem__) == KLS.index(max(KLS))
    assert find_multipliers(PLAIN)[0].provenance.strategy == "variable"
    assert find_multipliers(NOISY, metric="relative_error")[0].provenance.strategy == "variable"
    assert find_multipliers(NOISY, metric="noise_sensitivity")[0].provenance.strategy == "inverse"


def test_one_line_says_what_the_ranking_is_worth_here() -> None:
    def line(document: Report, **wanted: str) -> list[str]:
        return [note for note in find_multipliers(document, **wanted)[0].provenance.notes if " against " in note]  # type: ignore[arg-type]

    assert line(NOISY) == ["predicted_kl against measured KL: Spearman 0.91 on SmolLM2"]
    (errors,) = line(NOISY, metric="relative_error")
    assert errors.startswith("relative_error against the predicted KL of single layers here: Spearman -0.")
    assert line(PLAIN) == []  # every command warns of it anyway


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sigma-start", "0.05"], "more than half of the sigma at which the model breaks (0.0699, predicted"),
        (["--noise-kl", "0.5"], "more than half of the sigma at which the model breaks"),
        (["--noise-kl", "0"], "--noise-kl 0: expected nats a token, above 0"),
        (["--noise-kl", "nan"], "expected nats a token, above 0"),
        (["--noise-kl", "0.1", "--sigma-start", "0.01"], "exclude each other"),
        (["--safety", "0.5"], "--safety has no effect without --probe"),
        (["--strategy", "equal-damage", "--metric", "sqnr_db"], "--metric has no effect on equal-damage"),
        (["--strategy", "equal-damage", "--site", "output"], "--site has no effect on equal-damage"),
        (["--strategy", "equal-damge"], "did you mean equal-damage?"),
        (["--strategy", "equal-damage", "--target", "linear"], "no noise sensitivity of linears in this report"),
        (["--target", "both", "--noise-kl", "0.1"], "scan again with costs and --noise-on both"),
        (["--metric", "noise_sensitivity", "--mode", "w4a4"], "--mode has no effect on noise_sensitivity"),
    ],
)
def test_bad_doses(noisy: Path, tmp_path: Path, srdd: Run, arguments: list[str], words: str) -> None:
    out = tmp_path / "rin.yaml"
    code, printed, said = srdd("multipliers", noisy, *arguments, "--out", out)
    assert (code, printed, out.exists()) == (2, "", False)
    assert words in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("probe", "arguments", "words"),
    [
        (
            make_probe(NOISY.model.model_copy(update={"layer_count": 3}), {"w4a4": 0.03}),
            [],
            "the probe is of another model",
        ),
        (make_probe(NOISY.model, {"w4a4": 0.03}, "nvfp4:nvidia"), [], "it is of nvfp4:nvidia, and the multipliers of"),
        (PROBE, ["--mode", "w4a16"], "--mode w4a16: the probe has w16a16, w4a4"),
        (PROBE, ["--safety", "0"], "--safety 0: expected a share of the break"),
        (PROBE, ["--safety", "0.6"], "more than half of the sigma at which the model breaks (0.03, measured in W4A4)"),
        (PROBE, ["--noise-kl", "0.1"], "exclude each other"),
        (PROBE, ["--sigma-start", "0.1"], "exclude each other"),
        (PROBE, ["--target", "linear"], "its noise is on rmsnorm, not on linear"),
        (PROBE, ["--relative"], "its sigmas are absolute"),
        (make_probe(NOISY.model, {"w4a4": None}), [], "the probe found no break of w4a4: not reached"),
    ],
)
def test_bad_probes(probe: Probe, arguments: list[str], words: str, noisy: Path, tmp_path: Path, srdd: Run) -> None:
    path, out = saved(tmp_path, probe, "probe.json"), tmp_path / "rin.yaml"
    code, printed, said = srdd("multipliers", noisy, "--strategy", "global", "--probe", path, *arguments, "--out", out)
    assert (code, printed, out.exists()) == (2, "", False)
    assert words in said.splitlines()[-1]


def test_force_takes_it_all_the_same(noisy: Path, tmp_path: Path, srdd: Run) -> None:
    out = tmp_path / "rin.yaml"
    code, shown, _ = srdd(
        "multipliers", noisy, "--sigma-start", "0.05", "--strategy", "global", "--force", "--out", out
    )
    assert code == 0
    assert load_rin(out).schedule.sigma_start == 0.05
    assert "the model breaks at sigma 0.0704" in " ".join(shown.split())
    code, _, said = srdd("multipliers", noisy, "--force")
    assert (code, "--force has no effect without --out" in said) == (2, True)


def test_what_the_noise_costs_is_shown_and_kept(noisy: Path, tmp_path: Path, srdd: Run) -> None:
    out = tmp_path / "rin.yaml"
    code, shown, _ = srdd("multipliers", noisy, "--strategy", "equal-damage", "--out", out)
    shown = " ".join(shown.split())
    assert code == 0
    assert "it costs 0.0499 ± 0.0025 nats a token" in shown
    assert "% of that of the weights" in shown
    assert "predicted for the model as it is: 0.41 of it" in shown
    tree = json.loads(srdd("multipliers", noisy, "--strategy", "equal-damage", "--json")[1])
    assert tree["dose"]["chosen_by"] == "noise_kl"
    assert load_rin(out).dose is not None


def test_zones_of_noise(noisy: Path, srdd: Run) -> None:
    code, printed, _ = srdd("zones", noisy, "--metric", "noise_sensitivity", "--json")
    assert code == 0
    assert [zone["layers"] for zone in json.loads(printed)["zones"]] == [list(range(6)), list(range(6, 12))]


def test_sensitivities_that_are_missing_are_named() -> None:
    with pytest.raises(ReportError, match="no noise sensitivity of norms in this report; scan again with costs"):
        find_multipliers(PLAIN, strategy="equal-damage")
    with pytest.raises(NoEffectError, match="mode has no effect on noise_sensitivity"):
        find_multipliers(NOISY, metric="noise_sensitivity", mode="both")
    with pytest.raises(SettingError, match="expected one of"):
        find_multipliers(NOISY, strategy="")
    assert Course("linear").starting(0.02).sigma_end == 0.0002
    assert Course("constant").starting(0.02).sigma_end == 0.02
