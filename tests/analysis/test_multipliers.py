"""Sigma multipliers: the known case, every strategy by hand, nothing refused silently, documents that load back."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml
from builders import make_costs, make_report, tally
from hydra.core.override_parser.overrides_parser import OverridesParser
from known_layers import KNOWN, MEAN, weights
from omegaconf import OmegaConf
from priced_reports import report

from srdd.analysis.dose import Course
from srdd.analysis.multipliers import find_multipliers
from srdd.analysis.strategies import STRATEGIES, StrategyOptions, apply_strategy
from srdd.core.roles import norm_of
from srdd.documents import saving as structured
from srdd.documents.report import Report, in_order
from srdd.documents.rin import Phase, RinConfig, Schedule, load_rin
from srdd.documents.schema import Site, measurement
from srdd.errors import OptionError, ReportError
from srdd.exporters.rin import hydra, verl_fork

Run = Callable[..., tuple[int, str, str]]
COURSE = Course(sigma_start=0.05)


def values(errors: list[float], strategy: str, **choices: Any) -> list[float]:
    return list(apply_strategy(weights(errors), strategy, StrategyOptions(**choices)).layer_multipliers.values())


def made(errors: list[float], strategy: str, **choices: Any) -> RinConfig:
    report = make_report({"weight": [[tally(e)] for e in errors]})
    return find_multipliers(
        report, "0" * 64, "0", strategy=strategy, options=StrategyOptions(**choices), course=COURSE
    )[0]


def test_variable_gives_the_known_case_back() -> None:
    # the inputs are multiples of a mean, rounded to two decimals: their own mean is 1.0004
    got = values([m * MEAN for m in KNOWN], "variable")
    assert fmean(got) == pytest.approx(1, abs=1e-9)
    assert [round(value, 2) for value in got] == [round(m / fmean(KNOWN), 2) for m in KNOWN] == KNOWN


def test_by_hand() -> None:
    assert values([0.2, 0.4], "global") == [1, 1]
    assert values([0.2, 0.4], "variable") == pytest.approx([2 / 3, 4 / 3])
    assert values([0.2, 0.4], "variable", normalize="max") == pytest.approx([0.5, 1])
    assert values([0.3, 0.4], "variable", normalize="rms") == pytest.approx([0.3 / 0.125**0.5, 0.4 / 0.125**0.5])
    assert values([0.2, 0.4], "inverse") == pytest.approx([4 / 3, 2 / 3])
    assert values([0.2, 0.4], "ceiling") == [0.5, 1]
    assert values([0.1, 0.2, 0.6], "variable", clamp=(0.5, 1.5)) == pytest.approx([0.5, 2 / 3, 1.5])
    assert values([0.1, 0.4, 0.3, 0.2], "targeted", worst=2) == [0, 1, 1, 0]
    assert values([0.1, 0.4, 0.3, 0.2], "targeted", above=0.3) == [0, 1, 0, 0]
    assert values([0.3, 0.3, 0.3, 0.3], "targeted") == [1, 0, 0, 0]  # a quarter; ties go to the first
    errors = [0.1] * 6 + [0.2] * 6 + [0.9] * 6
    assert values(errors, "tiered") == [1.0] * 12 + [1.5] * 6
    assert values(errors, "tiered", factors={"high": 2, "zone 1": 0}) == [0.0] * 6 + [1.0] * 6 + [2.0] * 6


def test_phased_spares_the_middle_from_half_way() -> None:
    got = apply_strategy(weights([0.3] * 28), "phased", StrategyOptions())
    assert set(got.layer_multipliers.values()) == {1.0}
    (late,) = got.phases
    assert late.from_share == 0.5
    assert [late.layer_factors[layer] for layer in (0, 5, 6, 22, 23, 27)] == [1, 1, 0.5, 0.5, 1, 1]
    (late,) = apply_strategy(
        weights([0.1] * 6 + [0.9] * 6), "phased", StrategyOptions(scheme="auto", phase_at=0.25)
    ).phases
    assert (late.from_share, late.layer_factors[0], late.layer_factors[6]) == (0.25, 1.0, 0.5)


def test_lr_leaves_the_noise_uniform() -> None:
    got = apply_strategy(weights([0.1] * 6 + [0.9] * 6), "lr", StrategyOptions())
    assert set(got.layer_multipliers.values()) == {1.0}
    assert got.lr_multipliers == {**dict.fromkeys(range(6), 1.0), **dict.fromkeys(range(6, 12), 1.2)}


@pytest.mark.parametrize(
    ("strategy", "choices", "words"),
    [
        ("random", {}, "strategy=random: expected one of: global, variable"),
        (
            "global",
            {"clamp": (0, 1)},
            r"clamp has no effect on global \(only on variable, inverse, ",
        ),
        ("ceiling", {"normalize": "max"}, "normalize has no effect on ceiling"),
        ("variable", {"factors": {"high": 2.0}}, "factors has no effect on variable"),
        ("variable", {"normalize": "median"}, "expected one of mean, max, rms"),
        ("variable", {"clamp": (2, 1)}, "expected 0 <= lo < hi"),
        ("targeted", {"worst": 12}, "for every layer use global"),
        ("targeted", {"worst": 0}, "worst=0: expected 1 to "),
        ("targeted", {"worst": 1, "above": 0.1}, "exclude each other"),
        (
            "targeted",
            {"above": 0.9},
            r"above=0.9: that is no layer \(relative_error is 10.00 to 90.00 % over the layers\)",
        ),
        ("targeted", {"above": 0.01}, "every layer"),
        ("tiered", {"scheme": "0-11"}, "scheme=0-11: every layer gets the same factor"),
        ("tiered", {"factors": {"edges": 2.0}}, "factors=edges: there is no such zone"),
        ("tiered", {"factors": {"high": -1.0}}, "expected 0 or more"),
        ("phased", {"phase_at": 1.0}, "between 0 and 1"),
        ("phased", {"factors": {"middle": 1.0}}, "it would change nothing"),
        ("lr", {"factors": {"high": 1.0}}, "every learning rate would stay"),
    ],
)
def test_what_would_have_no_effect_is_refused(strategy: str, choices: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        values([0.1] * 6 + [0.9] * 6, strategy, **choices)


def test_an_exact_layer_has_no_inverse() -> None:
    with pytest.raises(ReportError, match=r"layer\(s\) 1 have an error of 0"):
        values([0.1, 0.0], "inverse")
    with pytest.raises(ReportError, match="every layer has an error of 0"):
        values([0.0, 0.0], "variable")


@pytest.mark.parametrize(
    ("start", "end", "stages", "words"),
    [
        (0.05, 0.0, 10, "never reaches 0"),
        (0.05, 0.06, 10, "noise must not grow"),
        (0.0, 0.0, 10, "sigma_start=0"),
        (0.05, 0.0005, 2, "expected 3 or more"),
        (float("nan"), 0.0005, 10, "finite"),
    ],
)
def test_impossible_schedules(start: float, end: float, stages: int, words: str) -> None:
    with pytest.raises((OptionError, ValueError), match=words):
        Schedule(sigma_start=start, sigma_end=end, num_stages=stages)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_document_loads_back_as_the_same_object(strategy: str, form: str, tmp_path: Path) -> None:
    if strategy == "equal-damage":
        config = find_multipliers(
            report(make_costs({"mxfp4:even": [0.1] * 3}, traces=[1.0, 2.0, 3.0])), strategy=strategy
        )[0]
    else:
        config = made([0.1] * 6 + [0.2] * 6 + [0.9] * 6, strategy)
    path = tmp_path / f"rin.{form}"
    path.write_text(structured.render(config, form))
    assert load_rin(path) == config
    assert RinConfig.model_validate(OmegaConf.to_container(OmegaConf.load(path))) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(sigma=1), "unknown key 'sigma'; leave it out"),
        (lambda d: d.update(layer_multiplier=d.pop("layer_multipliers")), "'layer_multiplier'; missing: layer_mult"),
        (lambda d: d["schedule"].update(sigma_end=0), "never reaches 0"),
        (lambda d: d["schedule"].update(warmup=1), "unknown key 'schedule.warmup'"),
        (lambda d: d.update(layer_multipliers={}), "no noise would be injected"),
        (lambda d: d.update(layer_multipliers={0: 0, 1: 0}), "no noise would be injected"),
        (lambda d: d["layer_multipliers"].update({1: -1.0}), "finite values from 0"),
        (lambda d: d["layer_multipliers"].update({1: float("inf")}), "layer_multipliers.1"),
        (lambda d: d["layer_multipliers"].update({"first": 1.0}), "layer_multipliers.first"),
        (lambda d: d.update(lr_multipliers={7: 1.0}), r"layer\(s\) \[7\] have no layer multiplier"),
        (lambda d: d.update(phases=[{"from_share": 0.5, "layer_factors": {0: 1, 1: 1}}] * 2), "from_share must rise"),
        (lambda d: d.update(phases=[{"from_share": 0.5, "layer_factors": {0: 1}}]), r"layer\(s\) \[1\] are missing"),
        (lambda d: d.update(lr_multipliers={0: 1.2}), r"lr_multipliers: layer\(s\) \[1\] are missing"),
        (lambda d: d.update(outside_layers=-1.0), "outside_layers"),
        (lambda d: d["schedule"].update(kind="linear"), "num_stages has no effect on a linear schedule"),
        (lambda d: d["schedule"].update(kind="constant", num_stages=None), "a constant schedule keeps 0.05"),
        (lambda d: d["schedule"].update(kind="linear", num_stages=None, sigma_end=-1), "expected 0 or above"),
        (lambda d: d["schedule"].update(kind="cosine"), "schedule.kind"),
        (lambda d: d["schedule"].update(warmup_share=1.0), "warmup_share"),
        (lambda d: d.update(schema_version=2), "schema_version"),
        (lambda d: d.update(document="srdd-zones"), "is no rin document"),
    ],
)
def test_damaged_documents_are_refused_in_one_line(change: Callable[[Any], None], words: str, tmp_path: Path) -> None:
    tree = made([0.2, 0.4], "variable").model_dump(exclude_none=True)
    change(tree)
    path = tmp_path / "rin.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ReportError, match=words) as caught:
        load_rin(path)
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="write one with `srdd multipliers`"):
        load_rin(tmp_path / "rin.yaml")
    for text, words in (("a: 1\nb: [", "at line 2, column 5: "), ("a: \x00", ": special characters")):
        (tmp_path / "rin.yaml").write_text(text)
        with pytest.raises(ReportError, match="is no YAML") as caught:
            load_rin(tmp_path / "rin.yaml")
        assert words in str(caught.value)
        assert "unicode string" not in str(caught.value)
        assert "\n" not in str(caught.value)


def inputs(errors: dict[str, list[float]]) -> Report:
    """A report of Linear inputs: `errors[role]` by layer."""
    report = make_report({"input": [[tally(0.5)]]})
    sites = [
        Site(
            kind="input",
            name=f"model.layers.{layer}.{'mlp' if 'gate' in role or 'down' in role else 'self_attn'}.{role}",
            role=role,
            layer=layer,
            members=[f"x.{role}", "x.k_proj"] if role == "q_proj" else [],
            formats={"mxfp4:even": measurement(tally(error))},
        )
        for role, row in errors.items()
        for layer, error in enumerate(row)
    ]
    return in_order(report.model_copy(update={"sites": sites}))


def test_noise_on_norms_follows_the_inputs_that_norms_feed() -> None:
    report = inputs({"q_proj": [0.1, 0.1], "o_proj": [0.9, 0.1], "gate_proj": [0.3, 0.3], "down_proj": [0.1, 0.8]})
    config, series = find_multipliers(report, "", "0", kind="input", course=COURSE)
    assert config.norm_multipliers == {"attention": {0: 0.5, 1: 0.5}, "mlp": {0: 1.5, 1: 1.5}}
    assert config.layer_multipliers == {0: 1.0, 1: 1.0}
    assert config.feeds is not None
    assert config.feeds.model_dump() == {
        "attention": ["q_proj", "k_proj"],
        "mlp": ["gate_proj"],
        "unfed": ["down_proj", "o_proj"],
    }
    assert series.values == pytest.approx([0.2, 0.2])
    linear, _ = find_multipliers(report, "", "0", kind="input", course=COURSE, target="linear")
    assert linear.norm_multipliers is None
    assert linear.layer_multipliers == pytest.approx({0: 0.35 / 0.3375, 1: 0.325 / 0.3375}, abs=1e-6)
    with pytest.raises(ReportError, match=r"known to be fed by a norm \(roles: o_proj\); use kind=output"):
        find_multipliers(inputs({"o_proj": [0.1, 0.2]}), "", "0", kind="input", course=COURSE)


def test_roles_of_common_architectures() -> None:
    assert norm_of("c_attn", "transformer.h.0.attn.c_attn") == "attention"
    assert norm_of("c_fc", "transformer.h.0.mlp.c_fc") == "mlp"
    assert norm_of("c_proj", "transformer.h.0.mlp.c_proj") is None
    assert norm_of("experts", "model.layers.0.mlp.experts") == "mlp"
    assert norm_of("gate", "model.layers.0.self_attn.gate") is None


def test_hydra_overrides_carry_both_families() -> None:
    lines = hydra.render(made([0.2, 0.4], "variable")).splitlines()
    assert lines[0].startswith("# the published fork")
    assert "'++trainer.noise_injection.layer_multipliers={0:0.666667,1:1.33333}'" in lines
    assert "'++trainer.noise_injection.layer_sigma_config.layer_multipliers={0:0.666667,1:1.33333}'" in lines
    assert "'++trainer.noise_injection.sigma_end=0.0005'" in lines
    assert "'++trainer.noise_injection.num_stages=10'" in lines


def test_hydra_names_only_layers_that_get_noise_and_what_is_left_out() -> None:
    lines = hydra.render(made([0.1, 0.4, 0.3, 0.2], "targeted", worst=2)).splitlines()
    assert "'++trainer.noise_injection.target_layers=[1,2]'" in lines
    assert """'++trainer.noise_injection.exclude_patterns=["lm_head","embed"]'""" in lines
    parsed = OverridesParser.create().parse_overrides([line.strip("'") for line in lines[1:]])
    values = {override.key_or_group: override.value() for override in parsed}
    assert [str(part) for part in values["trainer.noise_injection.exclude_patterns"]] == ["lm_head", "embed"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"exclude": ["*layers.[0-3].*"]}, "excludes by parts of names"),
        ({"exclude": ["lm_head"]}, "excludes by parts of names"),
        ({"exclude": ["**"]}, "excludes by parts of names"),
        ({"norm_multipliers": {"attention": {0: 1.0, 1: 2.0}}}, "one multiplier a layer and none for single norms"),
        ({"target_classes": ["MyNorm"]}, "no other target_classes"),
        ({"relative": True}, "absolute sigmas only"),
    ],
)
def test_what_the_fork_cannot_say_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ReportError, match=words):
        hydra.render(made([0.2, 0.4], "variable").model_copy(update=change))


def test_hydra_overrides_are_understood_by_hydra() -> None:
    lines = [line.strip("'") for line in hydra.render(made([0.3] * 28, "phased")).splitlines()[1:]]
    parsed = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(lines)}
    assert parsed["trainer.noise_injection.layer_multipliers"] == dict.fromkeys(range(28), 1)
    assert parsed["trainer.noise_injection.layer_sigma_config.zone_schedule.edge_layers"] == [*range(6), *range(23, 28)]


def test_the_fork_file() -> None:
    tree = json.loads(verl_fork.render(made([0.3] * 28, "phased")))
    assert tree["layer_multipliers"]["27"] == 1.0
    assert tree["zone_schedule"]["middle_layers"] == list(range(6, 23))
    assert (tree["zone_schedule"]["phase_boundary_ratio"], tree["zone_schedule"]["late_middle_mult"]) == (0.5, 0.5)
    with pytest.raises(ReportError, match="no keys for learning rates"):
        verl_fork.render(made([0.1] * 6 + [0.9] * 6, "lr"))
    two = made([0.3] * 28, "phased")
    two.phases.append(Phase(from_share=0.75, layer_factors=dict.fromkeys(range(28), 0.1)))
    with pytest.raises(ReportError, match="one phase boundary"):
        hydra.render(two)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    make_report({"output": [[tally(m * MEAN), tally(m * MEAN)] for m in KNOWN]}, ["mxfp4:floor"]).save(path)
    return path


def test_command(path: Path, tmp_path: Path, srdd: Run) -> None:
    out = tmp_path / "rin.yaml"
    code, shown, said = srdd("multipliers", path, "--out", out)
    assert (code, said.split()[-2:]) == (0, ["yaml:", str(out)])
    assert said.startswith("warning: no costs in this report")
    assert "1.168" in shown
    assert "how much noise the model bears is not known here" in shown
    config = load_rin(out)
    assert config.provenance.quant == "mxfp4:floor"
    assert config.layer_multipliers[15] == pytest.approx(1.17, abs=0.005)
    code, printed, _ = srdd("multipliers", path, "--json")
    assert (code, RinConfig.model_validate_json(printed)) == (0, config)
    code, printed, shown = srdd("multipliers", path, "--format", "hydra")
    assert code == 0
    assert printed.count("++trainer.noise_injection.") >= 10
    assert "never copies per-layer multipliers" in shown
    assert srdd("multipliers", path, "--out", out)[0] == 2
    assert srdd("multipliers", path, "--out", out, "--strategy", "phased", "--force")[0] == 0
    assert len(load_rin(out).phases) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sigma-end", "0"], "a geometric decay never reaches 0"),
        (["--sigma-start", "nan"], "--sigma-start nan: Input should be a finite number"),
        (["--clamp", "1"], "expected two numbers LO,HI"),
        (["--strategy", "tiered", "--factor", "high"], "expected ZONE=NUMBER"),
        (["--target", "norm"], "expected one of rmsnorm, linear, both"),
        (["--format", "toml"], "expected one of yaml, json, hydra, verl-fork"),
        (["--json", "--format", "yaml"], "both write to stdout"),
        (["--out", "rin"], "a name without suffix"),
        (["--metric", "kurtosis"], "cannot rank layers"),
        (["--metric", "predicted_kl"], "--metric predicted_kl: no costs in this report; scan again with costs"),
        (["--metric", ""], "cannot rank layers"),
        (["--strategy", "global", "--metric", "sqnr_db"], "--metric has no effect on global"),
    ],
)
def test_bad_options(path: Path, srdd: Run, arguments: list[str], words: str) -> None:
    code, printed, shown = srdd("multipliers", path, *arguments)
    assert (code, printed) == (2, "")
    assert words in shown.splitlines()[-1]


def test_layers_without_a_number_are_named(tmp_path: Path, srdd: Run) -> None:
    rows = [{"layer_id": i, "relative_error": 0.3} for i in range(4)]
    rows[2] = {"layer_id": 2, "sqnr_db": 17.0}
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"report": {"per_layer": rows}}))
    code, _, shown = srdd("multipliers", old)
    assert code == 2
    assert "relative_error of output under mxfp4:floor is not in this report for layer(s) 2" in shown
