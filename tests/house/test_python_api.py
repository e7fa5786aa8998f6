"""The Python interface as notebooks use it: whatever mode it is called in, the numbers are the same, the model and
torch's defaults are as they were, and a mistake is one line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_report, make_rin, tally
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import srdd
from srdd import kernels
from srdd.analysis import advise, check, compare, drift
from srdd.core.formats import parse, parse_list
from srdd.core.metrics import any_metric
from srdd.core.tally import WIDTH
from srdd.documents.rin import Schedule, load_rin
from srdd.documents.saving import save
from srdd.documents.schedule import sigma
from srdd.errors import (
    BusyError,
    CalibrationError,
    FormatError,
    NoiseError,
    OptionError,
    ReportError,
    SiteError,
    TensorError,
)
from srdd.kernels import measure_each, measure_many
from srdd.noise.draw import normal
from srdd.runs.experiments.arm_trial import Training

IDS = torch.randint(0, 50, (4, 8), generator=torch.Generator().manual_seed(0))
SCHEDULE = Schedule(sigma_start=0.05, sigma_end=0.0005, num_stages=3)


@pytest.fixture
def model() -> LlamaForCausalLM:
    """In training mode, with one frozen layer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).train()
    model.model.layers[1].eval()
    return model


def modes(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def aqn(model: nn.Module, **options: Any) -> Any:
    return srdd.run_aqn(
        model, IDS, "mxfp4", [1, 2, 3, 4], ranked_by="x", schedule=SCHEDULE, seeds=(0, 1), samples=2, **options
    )


def interrupt(stage: str, done: int, total: int) -> None:
    if stage != "weights":
        raise KeyboardInterrupt


RUNS: dict[str, Callable[..., Any]] = {
    "scan": lambda model, **o: srdd.scan(model, IDS, **o),
    "impact": lambda model, **o: srdd.measure_impact(model, IDS, "mxfp4", ("both",), **o),
    "probe": lambda model, **o: srdd.measure_probe(model, IDS, "mxfp4", "w4a4", sigmas=[0.1, 0.4], seeds=[0], **o),
    "aqn": aqn,
}


@pytest.mark.parametrize("name", RUNS)
def test_every_module_keeps_its_own_mode(name: str, model: LlamaForCausalLM) -> None:
    before = modes(model)
    RUNS[name](model)
    assert modes(model) == before
    with pytest.raises(KeyboardInterrupt):
        RUNS[name](model, progress=interrupt)
    assert modes(model) == before


@pytest.mark.parametrize("name", RUNS)
def test_inference_mode_changes_no_number(name: str, model: LlamaForCausalLM) -> None:
    want = RUNS[name](model)
    with torch.inference_mode():
        got = RUNS[name](model)
    assert got.model_copy(update={"provenance": {}}) == want.model_copy(update={"provenance": {}})


def test_training_experiment_returns_gradients_and_runs_under_no_grad(model: LlamaForCausalLM) -> None:
    model(IDS, labels=IDS).loss.backward()
    before = {name: p.grad for name, p in model.named_parameters()}
    with torch.no_grad():
        aqn(model, kind="train", training=Training(steps=2, learning_rate=1e-3, batch_size=1))
    assert all(p.grad is before[name] for name, p in model.named_parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_default_dtype_changes_no_tally(dtype: torch.dtype) -> None:
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    want = kernels.measure(x, "nvfp4", backend="eager")
    torch.set_default_dtype(dtype)
    try:
        got = kernels.measure(x, "nvfp4", backend="eager")
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(got, want)


def test_default_device_changes_no_number(model: LlamaForCausalLM) -> None:
    from srdd.kernels import selfcheck

    selfcheck.tallies_differ.cache_clear()
    want = srdd.measure_impact(model, IDS, "mxfp4", ("both",), noise=True)
    draw = normal(0, 1, "w", (3,))
    selfcheck.tallies_differ.cache_clear()
    with torch.device("meta"):  # as set_default_device("cuda") does, every new tensor goes elsewhere
        got = srdd.measure_impact(model, IDS, "mxfp4", ("both",), noise=True)
        assert torch.equal(normal(0, 1, "w", (3,)), draw)
    assert got.costs == want.costs


def test_formats_may_be_one_text() -> None:
    x = torch.randn(4, 32)
    assert torch.equal(measure_many(x, "mxfp4,nvfp4"), measure_many(x, ["mxfp4", "nvfp4"]))
    assert torch.equal(measure_each(x, "mxfp4"), measure_each(x, ["mxfp4"]))
    assert parse_list("mxfp4,nvfp4") == parse_list(["mxfp4", "nvfp4"])


X = torch.ones(2, 32)
TALLY = torch.zeros(WIDTH)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: srdd.quant_dequant([1.0], "mxfp4"), TensorError, "found list"),
        (lambda: srdd.quant_dequant(X.numpy(), "mxfp4"), TensorError, "found ndarray"),
        (lambda: srdd.quant_dequant(X.to_sparse(), "mxfp4"), TensorError, "to_dense"),
        (lambda: srdd.measure(X.to("meta"), "mxfp4"), TensorError, "holds no values"),
        (lambda: srdd.quant_dequant(X, "mxfp4_sr", generator=1), TensorError, "found int"),
        (lambda: srdd.quant_dequant(X, "nvfp4", global_amax=torch.ones(2)), TensorError, "one number"),
        (lambda: srdd.quant_dequant(X, "nvfp4", global_amax="4"), TensorError, "one number"),
        (lambda: kernels.merge(TALLY, TALLY[:3]), TensorError, "(3,)"),
        (lambda: kernels.merge(TALLY, None), TensorError, "found NoneType"),
        (lambda: srdd.merge(TALLY, TALLY), ReportError, "srdd.kernels.merge"),
        (lambda: parse(None), FormatError, "expected a text"),
        (lambda: parse_list(4), FormatError, "expected a text"),
        (lambda: sigma(SCHEDULE, 1.5, 9), NoiseError, "two integers"),
        (lambda: sigma(SCHEDULE, 1, None), NoiseError, "two integers"),
        (lambda: load_rin({}), OptionError, "found dict"),
    ],
)
def test_a_mistake_is_one_line(call: Callable[[], object], error: type[Exception], said: str) -> None:
    with pytest.raises(error) as problem:
        call()
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"sequences": IDS.tolist()}, CalibrationError, "found list"),
        ({"sequences": IDS + 20}, CalibrationError, "this model has 0 to 49"),
        ({"sequences": IDS - 50}, CalibrationError, "this model has 0 to 49"),
        ({"batch_size": "4"}, OptionError, "batch_size='4': expected an integer"),
        ({"thresholds": {"sqnr": 1.0}}, OptionError, "'sqnr' is no metric"),
        ({"thresholds": {"sqnr_db": "x"}}, OptionError, "finite number"),
        ({"model": "smollm2"}, SiteError, "found str"),
    ],
)
def test_scan_says_what_is_wrong(
    options: dict[str, Any], error: type[Exception], said: str, model: LlamaForCausalLM
) -> None:
    with pytest.raises(error, match=said):
        srdd.scan(**{"model": model, "sequences": IDS, **options})


def test_weights_made_in_inference_mode_refuse_noise(model: LlamaForCausalLM) -> None:
    from srdd.noise import Injector

    with torch.inference_mode():
        model.model.norm.weight = nn.Parameter(torch.ones(32), requires_grad=False)
    injector = Injector(model, make_rin(dict.fromkeys(range(4), 1.0)))
    before: dict[str, Tensor] = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(NoiseError, match="inference_mode"):
        injector.apply(4, 9)
    assert not injector.active
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_readme_block_on_reports_runs(
    model: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(from srdd\.analysis import.*?)```", readme, re.S)
    monkeypatch.chdir(tmp_path)
    report = srdd.scan(model, IDS)
    names: dict[str, Any] = {"report": report, "base": report}
    exec(block, names)
    assert load_rin("rin.yaml") == names["config"]
    assert len(names["zones"]) >= 1


REPORT = make_report({"weight": [[tally(0.2)], [tally(0.3)]]})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: advise(REPORT, "weights", "mxfp4"), "expected weight, input, output"),
        (lambda: advise(REPORT, "weight", "mxfp4", "x"), "format or classic"),
        (lambda: advise(REPORT, "weight", "nvfp4"), "the report has mxfp4:even"),
        (lambda: compare(REPORT, REPORT, "weight", "nvfp4", "sqnr_db"), "the report has mxfp4:even"),
        (lambda: compare(REPORT, REPORT, "output", "mxfp4", "sqnr_db"), "the report has weight"),
        (lambda: compare(REPORT, REPORT, "weight", "mxfp4", "sqnr"), "metric='sqnr': unknown metric"),
        (lambda: drift([REPORT], "weight", "mxfp4", "sqnr_db"), "needs two or more"),
        (lambda: check(REPORT, None), "baseline: missing; limits compare with it"),
        (lambda: REPORT.layers[0].formats["mxfp4:even"].value("sqnr"), "metric='sqnr': unknown metric"),
        (lambda: REPORT.layers[0].formats["mxfp4:even"].error("sqnr"), "metric='sqnr': unknown metric"),
        (lambda: save(REPORT, "report.csv"), "cannot tell the format"),
    ],
)
def test_a_mistake_with_reports_is_one_line(call: Callable[[], object], said: str) -> None:
    with pytest.raises(OptionError) as problem:
        call()
    assert said in str(problem.value)


def test_formats_and_metrics_of_reports_by_their_short_names() -> None:
    short = compare(REPORT, REPORT, "weight", "mxfp4", "relative_error")
    whole = compare(REPORT, REPORT, "weight", "mxfp4:even", any_metric("relative_error"))
    assert short.model_dump_json() == whole.model_dump_json()
    assert advise(REPORT, "weight", "mxfp4").rule == advise(REPORT, "weight", "mxfp4:even").rule
    assert check(REPORT, REPORT).passed


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: srdd.measure_impact(m, IDS, "mxfp4", how=("grad",)), "how='grad'"),
        (lambda m: srdd.measure_impact(m, IDS, "mxfp4", "w4a4"), "modes='w4a4'"),
        (lambda m: srdd.measure_impact(m, IDS, []), "no format given"),
        (lambda m: srdd.measure_probe(m, IDS, "mxfp4", seeds=3), "seeds=3"),
        (lambda m: srdd.measure_probe(m, IDS, "mxfp4", multipliers="no.yaml"), "no rin document at no.yaml"),
        (lambda m: aqn(m, kind="trian"), "measured='trian'"),
        (lambda m: srdd.run_aqn(m, IDS, "mxfp4", REPORT, ranked_by="x", schedule=SCHEDULE), "one finite number"),
    ],
)
def test_choices_are_refused_before_the_run_and_not_after_it(
    call: Callable[[nn.Module], object], said: str, model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises(ReportError if "no rin document" in said else OptionError) as problem:
        call(model)
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)


def test_single_names_need_no_list(model: LlamaForCausalLM) -> None:
    one = srdd.measure_impact(model, IDS, parse("mxfp4"), "both", how="predicted")
    assert one.costs is not None
    assert (one.costs.settings.modes, one.costs.settings.how) == (["both"], ["predicted"])


def test_two_scans_of_one_model_at_once_are_refused(model: LlamaForCausalLM) -> None:
    said: list[str] = []

    def again(stage: str, done: int, total: int) -> None:
        if stage == "activations" and not said:
            with pytest.raises(BusyError) as problem:
                srdd.scan(model, IDS)
            said.append(str(problem.value))

    report = srdd.scan(model, IDS, progress=again)
    assert "another scan of this model" in said[0]
    assert report.sites == srdd.scan(model, IDS).sites


def test_a_scan_that_is_interrupted_at_its_start_leaves_the_model_free(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("srdd.runs.scans.tap.Tap._output_hook", interrupted)
        with pytest.raises(KeyboardInterrupt):
            srdd.scan(model, IDS)
    assert all(not m._forward_pre_hooks and not m._forward_hooks for m in model.modules())
    assert srdd.scan(model, IDS).layers


def test_the_schedule_in_python_is_that_of_the_command(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:  # the fixture has the package's name
    from srdd.analysis import find_multipliers

    REPORT.save(tmp_path / "report.json")
    command = request.getfixturevalue("srdd")
    code, _, err = command("multipliers", tmp_path / "report.json", "--out", tmp_path / "rin.yaml")
    assert code == 0, err
    made = find_multipliers(REPORT)[0]
    assert load_rin(tmp_path / "rin.yaml").schedule == made.schedule
    assert (made.schedule.sigma_start, made.schedule.sigma_end, made.schedule.num_stages) == (0.01, 0.0001, 10)


def test_public_names_are_listed_for_completion() -> None:
    import srdd.noise

    assert set(srdd.__all__) <= set(dir(srdd))
    assert set(srdd.noise.__all__) <= set(dir(srdd.noise))


def test_layer_rates_need_a_trainer(model: LlamaForCausalLM) -> None:
    from srdd.noise import set_layer_rates

    with pytest.raises(NoiseError, match="is no transformers Trainer"):
        set_layer_rates(model, make_rin(dict.fromkeys(range(4), 1.0)))


def test_a_report_shows_itself_in_one_line() -> None:
    assert repr(REPORT) == str(REPORT)
    assert repr(REPORT).startswith("<Report of toy: mxfp4:even; sites: 2 weight;")
    assert "\n" not in repr(REPORT)
