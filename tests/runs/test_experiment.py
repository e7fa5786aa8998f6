"""The AQN experiment: statistics against scipy, controls, training that restores, plain verdicts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_costs, make_report, tally
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from srdd.core.faults import Fault
from srdd.documents.experiment import Experiment, PairedTest
from srdd.documents.report import Report
from srdd.documents.rin import Schedule
from srdd.errors import (
    CalibrationError,
    NoEffectError,
    NoiseError,
    NonfiniteError,
    ReportError,
    SettingError,
)
from srdd.models.fake import fake_quantize
from srdd.models.fault_kinds import Draw, deadzone
from srdd.models.placement import refuse_nonfinite
from srdd.noise import Injector
from srdd.runs.experiments.aqn import run_aqn, verdict_of
from srdd.runs.experiments.arm_trial import Training
from srdd.runs.experiments.arms import PAIRS, make_arms
from srdd.runs.experiments.fault import planted
from srdd.runs.experiments.paired_tests import compare, holm
from srdd.runs.experiments.probe import measure_probe
from srdd.runs.impact.run import measure_impact

Run = Callable[..., tuple[int, str, str]]
IDS = torch.randint(0, 50, (12, 12), generator=torch.Generator().manual_seed(0))
CONSTANT = Schedule(kind="constant", sigma_start=0.2, sigma_end=0.2)
STAGED = Schedule(sigma_start=0.2, sigma_end=0.002, num_stages=3)
ERRORS = [0.3, 0.1, 0.2]


@pytest.fixture
def llama(tiny_llama: Path) -> LlamaForCausalLM:
    model = LlamaForCausalLM.from_pretrained(tiny_llama).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    return model


def run(model: Any, **options: Any) -> Experiment:
    given: dict[str, Any] = {"schedule": CONSTANT, "seeds": [0, 1, 2], "samples": 2, "worst": 1, "ranked_by": "test"}
    return run_aqn(model, IDS, "mxfp4", ERRORS, **{**given, **options})


def test_statistics_are_scipys() -> None:
    a, b = [3.1, 3.3, 3.2, 3.6], [3.0, 3.2, 3.2, 3.1]
    rows = compare({"a": a, "b": b, "c": [1.0, 1.0, 1.1, 1.2]}, [("a", "b"), ("c", "a")])
    want = stats.ttest_rel(a, b)
    interval = want.confidence_interval(0.95)
    assert rows[0].p == pytest.approx(want.pvalue)
    assert rows[0].interval == pytest.approx((interval.low, interval.high))
    assert rows[0].difference == pytest.approx(0.175)
    differences = torch.tensor([x - y for x, y in zip(a, b, strict=True)]).double()
    assert rows[0].effect_size == pytest.approx(float(differences.mean() / differences.std()))
    assert rows[0].verdict == "no difference shown"
    assert rows[1].verdict == "c is better than a"
    assert rows[1].p_holm == pytest.approx(2 * rows[1].p)


def test_what_cannot_be_tested_says_why() -> None:
    losses = {"a": [1.0, 2.0], "b": [1.0, None], "c": [1.0, 2.0], "d": [1.5, 2.5]}
    rows = compare(losses, [("a", "b"), ("a", "c"), ("d", "a")])
    assert [row.verdict for row in rows] == [
        "not tested: a collapse in 1 of 2 seeds",
        "not tested: no difference at all",
        "not tested: the same difference with every seed",
    ]
    assert all(row.p is None and row.p_holm is None for row in rows)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_against_its_definition(ps: list[float]) -> None:
    """Rejected at alpha by Holm's steps exactly when the corrected p is at most alpha."""
    corrected = holm(ps)
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, index in enumerate(order):
            if ps[index] * (len(ps) - rank) > alpha:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(corrected) if p is not None and p <= alpha} == rejected


def test_arms_take_the_layers_they_name() -> None:
    errors = [0.5, 0.1, 0.9, 0.2, 0.3, 0.4]
    arms = {arm.name: arm for arm in make_arms(errors, 2, fault=False)}
    assert arms["targeted"].noisy_layers(0) == [0, 2]
    assert arms["healthy"].noisy_layers(0) == [1, 3]
    assert arms["global"].noisy_layers(0) == [0, 1, 2, 3, 4, 5]
    drawn = [tuple(arms["random"].noisy_layers(seed)) for seed in range(60)]
    assert all(len(set(layers)) == 2 for layers in drawn)
    assert len(set(drawn)) > 8
    assert arms["random"].noisy_layers(7) == list(drawn[7])
    for worst in (0, 4):
        with pytest.raises(SettingError, match="stay apart"):
            make_arms(errors, worst, fault=False)


def test_a_fault_acts_on_its_layer_and_goes(llama: LlamaForCausalLM) -> None:
    seen: list[torch.Tensor] = []
    llama.model.layers[2].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    clean = llama(IDS)
    with planted(llama, Fault(1, "deadzone", 0.3), 0.0, 0):
        faulty = llama(IDS)
    assert torch.equal(seen[1], deadzone(seen[0], 0.3, Draw(0)))
    assert not torch.equal(faulty.logits, clean.logits)
    assert torch.equal(llama(IDS).logits, clean.logits)


def test_inference_against_a_run_by_hand(llama: LlamaForCausalLM) -> None:
    before = {n: p.detach().clone() for n, p in llama.named_parameters()}
    found = run(llama)
    assert all(torch.equal(p, before[n]) for n, p in llama.named_parameters())

    def loss(seed: int, quantized: bool) -> float:
        ids = IDS[2 * seed : 2 * seed + 2]
        with torch.no_grad():
            if quantized:
                with fake_quantize(llama, "mxfp4", "both"):
                    return float(llama(ids, labels=ids).loss)
            return float(llama(ids, labels=ids).loss)

    for seed in range(3):
        assert found.arm("clean").losses[seed] == pytest.approx(loss(seed, False), rel=1e-5)
        assert found.arm("quantized").losses[seed] == pytest.approx(loss(seed, True), rel=1e-5)
        for name in ("global", "targeted", "healthy", "random"):
            layers = found.arm(name).layers[seed]
            config = _only(layers, outside=float(name == "global"))
            with Injector(llama, config, seed=seed, evaluation="allow").applied(0, 1):
                assert found.arm(name).losses[seed] == pytest.approx(loss(seed, True), rel=1e-5)
    assert found.arm("targeted").layers == [[0]] * 3
    assert found.arm("healthy").layers == [[1]] * 3
    assert {(row.a, row.b) for row in found.comparisons} == set(PAIRS)
    want = stats.ttest_rel(found.arm("targeted").losses, found.arm("global").losses)
    row = next(row for row in found.comparisons if (row.a, row.b) == ("targeted", "global"))
    assert row.p == pytest.approx(want.pvalue)


def _only(layers: list[int], outside: float) -> Any:
    from builders import make_rin

    return make_rin(
        {i: float(i in layers) for i in range(3)},
        outside_layers=outside,
        schedule=CONSTANT.model_dump(exclude_none=True),
    )


def test_training_moves_the_loss_restores_the_model_and_repeats(llama: LlamaForCausalLM) -> None:
    before = {n: p.detach().clone() for n, p in llama.named_parameters()}
    training = Training(steps=6, learning_rate=1e-2, batch_size=2)
    found = run(llama, kind="train", training=training, schedule=STAGED, seeds=[0, 1], samples=3)
    assert all(torch.equal(p, before[n]) for n, p in llama.named_parameters())
    assert all(p.grad is None for p in llama.parameters())
    untrained = run(llama, kind="inference", seeds=[0, 1], samples=3).arm("quantized").losses
    assert all(loss not in untrained for loss in found.arm("quantized").losses)
    assert found.arm("global").losses != found.arm("quantized").losses
    assert found.arm("global").noise_rms[0] == pytest.approx(0.2, rel=0.2)
    again = run(llama, kind="train", training=training, schedule=STAGED, seeds=[0, 1], samples=3)
    assert [arm.losses for arm in again.arms] == [arm.losses for arm in found.arms]
    assert found.settings.train is not None
    assert found.settings.train.pool == 9


def test_dropout_is_the_same_in_every_arm_and_run() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=3, n_head=2, resid_pdrop=0.5)).train()
    options: dict[str, Any] = {"kind": "train", "training": Training(2, 1e-2, 2), "schedule": STAGED, "seeds": [0, 1]}
    first = run(model, **options, samples=3)
    torch.rand(7)  # the caller's random numbers do not matter, and are not touched
    before = torch.random.get_rng_state()
    again = run(model, **options, samples=3)
    assert [arm.losses for arm in again.arms] == [arm.losses for arm in first.arms]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_collapse_is_recorded_and_the_run_goes_on(llama: LlamaForCausalLM) -> None:
    found = run(llama, kind="train", training=Training(3, 1e30, 2), schedule=STAGED, seeds=[0, 1], samples=3)
    assert found.arm("quantized").collapses == 2
    assert found.arm("quantized").mean is None
    assert all(row.verdict.startswith("not tested: a collapse in 2 of 2") for row in found.comparisons)
    assert "no gain from noise is shown" in found.verdict
    assert all(torch.isfinite(p).all() for p in llama.parameters())


def test_a_planted_fault_has_its_dither_arm(llama: LlamaForCausalLM) -> None:
    found, without = run(llama, fault=Fault(1, "deadzone", 0.5)), run(llama)
    assert found.arm("clean").losses == without.arm("clean").losses
    assert found.arm("quantized").losses != without.arm("quantized").losses
    assert found.arm("dither").losses != found.arm("quantized").losses
    assert [row.a for row in found.comparisons][-1] == "dither"


def _row(a: str, b: str, verdict: str) -> PairedTest:
    return PairedTest(a=a, b=b, difference=0, interval=None, effect_size=None, p=0, p_holm=0, verdict=verdict)


def test_the_verdict_is_plain() -> None:
    none = [_row(a, b, "no difference shown") for a, b in PAIRS]
    assert verdict_of(none) == (
        "targeted noise is not shown to differ from global, random, healthy; no gain from noise is shown"
    )
    untested = [_row(a, b, "not tested: a collapse in 1 of 2 seeds" if b == "global" else "x") for a, b in PAIRS]
    assert verdict_of(untested).startswith(
        "targeted noise is not tested against global; not shown to differ from random"
    )
    all_won = [_row(a, b, f"{a} is better than {b}") for a, b in PAIRS]
    assert verdict_of(all_won).endswith("the guidance helps here")
    mixed = [_row(a, b, f"{b} is better than {a}" if b == "random" else v) for a, b in PAIRS for v in ["x"]]
    assert "worse than random" in verdict_of(mixed)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"seeds": [0]}, SettingError, "one seed shows nothing"),
        ({"seeds": [0, 0]}, SettingError, "each once"),
        ({"worst": 2}, SettingError, "worst=2: .* stay apart"),
        ({"samples": 5}, CalibrationError, "need 15 of them, found 12"),
        ({"samples": 0}, SettingError, "samples=0"),
        ({"kind": "train"}, SettingError, "training: kind=train needs its steps and learning rate"),
        ({"training": Training(1, 1e-3, 1)}, NoEffectError, "training has no effect with kind=inference"),
        ({"kind": "train", "training": Training(0, 1e-3, 1)}, SettingError, "steps and batch_size of 1 or more"),
        ({"kind": "train", "training": Training(1, 1e-3, 8), "samples": 6}, CalibrationError, "6 held out"),
        ({"mode": "w16a16"}, SettingError, "one mode that quantizes"),
        ({"fault": Fault(3, "deadzone", 0.1)}, SettingError, "fault=layer=3: the model has layers 0 to 2"),
        ({"batch_size": 0}, SettingError, "batch_size=0: expected at least 1"),
        ({"schedule": Schedule(kind="constant", sigma_start=1e39, sigma_end=1e39)}, NoiseError, "overflows"),
    ],
)
def test_mistakes(llama: LlamaForCausalLM, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        run(llama, **options)


def test_a_report_of_another_model(llama: LlamaForCausalLM) -> None:
    with pytest.raises(ReportError, match="the report ranks 2 layers, the model has 3"):
        run_aqn(llama, IDS, "mxfp4", [0.1, 0.2], schedule=CONSTANT, ranked_by="")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    made = make_report({"output": [[tally(e)] for e in ERRORS]})
    model = made.model.model_copy(update={"parameter_count": 0})  # not known, so not another model's
    made.model_copy(update={"model": model}).save(path)
    return path


def test_a_report_of_another_size_or_other_weights(
    tiny_llama: Path, text: Path, tmp_path: Path, report: Path, srdd: Run
) -> None:
    given = ("experiment", "aqn", "--model", tiny_llama, "--quant", "mxfp4", "--data", text, "--seq-len", "16")
    given = (*given, "--seeds", "2", "--worst", "1", "--out", tmp_path / "e.json", "--report")
    document = Report.load(report)
    for changes, code, words in (
        ({"architecture": "BertModel"}, 2, "of another model: architecture is BertModel, here it is LlamaForCausalLM"),
        ({"parameter_count": 5}, 2, "parameter_count is 5, here it is"),
        ({"weights_hash": "0" * 64}, 0, "ranked by a scan of other weights"),
    ):
        path = tmp_path / "other.json"
        document.model_copy(update={"model": document.model.model_copy(update=changes)}).save(path)
        found, tables, said = srdd(*given, path)
        shown = said if code else tables
        assert (found, words in " ".join(shown.split())) == (code, True), shown


def test_a_broken_model_has_no_costs(tiny_llama: Path) -> None:
    broken = LlamaForCausalLM.from_pretrained(tiny_llama)
    torch.nn.init.constant_(broken.model.layers[1].mlp.down_proj.weight, math.nan)
    named = r"model\.layers\.1\.mlp\.down_proj\.weight holds NaN"
    with pytest.raises(NonfiniteError, match=named):
        run(broken)
    with pytest.raises(NonfiniteError, match=named):
        measure_probe(broken, IDS, "mxfp4")
    with pytest.raises(NonfiniteError, match=named):
        measure_impact(broken, IDS, "mxfp4")


def test_weights_in_8_bits_are_looked_at_too() -> None:
    layer = torch.nn.Linear(4, 4, bias=False)
    layer.weight = torch.nn.Parameter(torch.ones(4, 4).to(torch.float8_e4m3fn), requires_grad=False)
    refuse_nonfinite(layer)
    layer.weight.data[2, 1] = math.nan
    with pytest.raises(NonfiniteError, match="weight holds NaN"):
        refuse_nonfinite(layer)


def test_costs_that_overflow_are_refused_in_one_line(tiny_llama: Path) -> None:
    hot = LlamaForCausalLM.from_pretrained(tiny_llama)
    torch.nn.init.constant_(hot.lm_head.weight, 3e38)
    with pytest.raises(NonfiniteError, match="NaN or infinite: the model overflows in its type"):
        measure_impact(hot, IDS[:2], "mxfp4", how=("layers",))


def test_costs_rank_the_layers_where_they_are_known(
    tiny_llama: Path, text: Path, tmp_path: Path, report: Path, srdd: Run
) -> None:
    scanned = Report.load(report)
    kls = [0.1] * (scanned.model.layer_count or 0)
    kls[0] = 0.9
    scanned.model_copy(update={"costs": make_costs({"mxfp4:even": kls})}).save(tmp_path / "priced.json")
    out = tmp_path / "experiment.json"
    given = (
        "--model",
        tiny_llama,
        "--quant",
        "mxfp4",
        "--data",
        text,
        "--seq-len",
        "16",
        "--worst",
        "1",
        "--seeds",
        "2",
    )
    code, _, shown = srdd("experiment", "aqn", *given, "--report", tmp_path / "priced.json", "--out", out)
    assert code == 0, shown
    document = Experiment.model_validate_json(out.read_text())
    assert document.settings.ranked_by == "predicted_kl of layers under mxfp4:even W4A4"
    assert document.arm("targeted").layers[0] == [0]
    assert "predict damage poorly" not in shown


def test_command(tiny_llama: Path, text: Path, tmp_path: Path, report: Path, srdd: Run) -> None:
    out = tmp_path / "experiment.json"
    given = ("--model", tiny_llama, "--quant", "mxfp4", "--data", text, "--report", report, "--seq-len", "16")
    given = (*given, "--worst", "1", "--seeds", "2", "--out", out)
    code, shown, said = srdd("experiment", "aqn", *given, "--fault", "layer=1,deadzone=0.1", "--sigma-start", "0.1")
    assert code == 0, said
    for words in ("targeted - global", "(Holm)", "planted fault: deadzone 0.1", "2 seeds show large effects only"):
        assert words in shown
    assert math.isfinite(Experiment.model_validate_json(out.read_text()).arm("dither").losses[0] or math.nan)
    train = ("--kind", "train", "--steps", "3", "--samples", "2", "--train-batch", "1")
    code, printed, shown = srdd("experiment", "aqn", *given, *train, "--force", "--json")
    assert code == 0, shown
    assert json.loads(printed)["settings"]["train"]["steps"] == 3
    code, again, _ = srdd("show", out)
    assert code == 0
    assert "training: 3 steps of 1 sequences" in again
    code, _, shown = srdd("multipliers", out)
    assert code == 2
    assert "the document of a experiment" in shown


def test_faults_of_the_whole_run_are_named(
    tiny_llama: Path, text: Path, tmp_path: Path, report: Path, srdd: Run
) -> None:
    out = tmp_path / "experiment.json"
    given = ("--model", tiny_llama, "--quant", "mxfp4", "--data", text, "--report", report, "--seq-len", "16")
    more = ("--worst", "1", "--seeds", "2", "--plant", "layer=1,bias=0.1", "--plant", "layer=2,deadzone=0.1")
    code, _, said = srdd("experiment", "aqn", *given, *more, "--out", out)
    assert code == 0, said
    warnings = Experiment.model_validate_json(out.read_text()).warnings
    assert [w.split(";")[0] for w in warnings if w.startswith("PLANTED")] == [
        "PLANTED FAULT: bias 0.1 at the output of layer 1",
        "PLANTED FAULT: deadzone 0.1 at the output of layer 2",
    ]


def test_a_weight_that_trains_would_heal(llama: LlamaForCausalLM) -> None:
    fault = Fault(1, "deadzone", 0.1, "mlp.down_proj", "weight")
    with pytest.raises(SettingError, match="would heal"):
        run(llama, kind="train", training=Training(1, 1e-4, 1), fault=fault)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kind", "both"], "expected inference or train"),
        (["--steps", "4"], "--steps has no effect on --kind inference"),
        (["--fault", "10"], "--fault '10'"),
        (["--metric", "quality"], "quality"),
        (["--metric", "predicted_kl"], "--metric predicted_kl: no costs in this report; scan again with costs"),
        (["--target", "norms"], "norms"),
        (["--seeds", "1"], "--seeds 1: expected 2 or more; one seed shows nothing"),
        (["--fault", "layer=9,deadzone=0.01"], "--fault layer=9: "),
        (["--worst", "2"], "--worst 2: expected 1 to 1 of 3 layers"),
        (["--mode", "w8a8"], "mxfp4:even has 4 bits"),
        (["--kind", "train", "--steps", "0"], "--steps 0: expected above 0"),
        (["--kind", "train", "--train-batch", "0"], "--train-batch 0: expected above 0"),
        (["--kind", "train", "--learning-rate", "0"], "--learning-rate 0: expected above 0"),
    ],
)
def test_bad_options(
    arguments: list[str],
    words: str,
    tiny_llama: Path,
    text: Path,
    tmp_path: Path,
    report: Path,
    srdd: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("srdd.models.source.open_model", lambda *_, **__: pytest.fail("a model was opened"))
    out = tmp_path / "e.json"
    given = ("--model", tiny_llama, "--quant", "mxfp4", "--data", text, "--report", report, "--seq-len", "16")
    code, printed, shown = srdd("experiment", "aqn", *given, "--worst", "1", "--out", out, *arguments)
    assert (code, printed, out.exists()) == (2, "", False), shown
    assert words in shown.strip().splitlines()[-1]
