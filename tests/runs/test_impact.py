"""Impact: against brute force on small models, controls that are exactly zero, planted faults that are found."""

import copy
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, T5Config, T5Model

import srdd as srdd_package
from srdd import kernels
from srdd.core.formats import parse
from srdd.documents.costs import Costs
from srdd.documents.report import Report
from srdd.errors import CalibrationError, NoEffectError, SettingError, SiteError
from srdd.models.fake import fake_quantize
from srdd.models.quantizer import Quantizer
from srdd.models.stack import LayerStack
from srdd.runs.divergence import ReferenceLogits, quantile
from srdd.runs.impact.fisher import Fisher
from srdd.runs.impact.rows import cost, ratio
from srdd.runs.impact.run import measure_impact
from srdd.runs.impact.scores import draw_labels
from srdd.runs.impact.sweep import Sweep, Variant

Run = Callable[..., tuple[int, str, str]]
IDS = torch.randint(0, 50, (3, 12), generator=torch.Generator().manual_seed(0))
FMT = parse("mxfp4")


@pytest.fixture
def llama(tiny_llama: Path) -> LlamaForCausalLM:
    model = LlamaForCausalLM.from_pretrained(tiny_llama).eval()
    with torch.no_grad():  # a head that is sure of something, so that KLs are not tiny
        model.lm_head.weight.mul_(20)
    return model


def impact(model: nn.Module, **options: object) -> Costs:
    costs = measure_impact(model, IDS, options.pop("formats", [FMT]), **options).costs  # type: ignore[arg-type]
    assert costs is not None
    return costs


def test_kl_loss_and_agreement_are_torchs() -> None:
    clean, changed = torch.randn(2, 7, 300) * 3, torch.randn(2, 7, 300) * 3
    ids = torch.randint(0, 300, (2, 7))
    reference = ReferenceLogits.of(clean, ids)
    got = reference.against(changed)
    p, q = (torch.log_softmax(x[:, :-1].double(), -1) for x in (clean, changed))
    want = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(got["kl"].double(), want, rtol=1e-5, atol=1e-6)
    loss = torch.nn.functional.cross_entropy(changed[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    torch.testing.assert_close(got["loss"].flatten(), loss)
    assert torch.equal(got["top1"], (p.argmax(-1) == q.argmax(-1)).float())
    torch.testing.assert_close(reference.own()["entropy"].double(), -(p.exp() * p).sum(-1), rtol=1e-5, atol=1e-5)
    assert torch.equal(reference.against(clean)["kl"], torch.zeros(2, 6))


def test_statistics_by_hand() -> None:
    found = cost([1.0, 3.0])
    assert (found.value, found.error, found.sequences) == (2, 1, [1, 3])
    assert cost([1.0]).error is None
    found = ratio([1, 3], [100, 100])
    assert (found.value, found.error) == pytest.approx((0.1414, 0.0366), abs=1e-4)
    assert (quantile([3, 1, 2], 0.5), quantile([0, 10], 0.9)) == (2, 9)


def test_the_identity_has_no_effect_at_all(llama: LlamaForCausalLM) -> None:
    found = impact(llama, formats=[None], how=("predicted", "layers"), noise=True, tokens_per_sequence=0)
    assert all(row.no_effect for row in found.whole)
    for row in found.whole:
        change = found.loss_change(row)
        assert change is not None
        assert (row.kl.value, row.kl_quantiles["1"], change.value, row.top1.value) == (0, 0, 0, 1)
    for layer in found.layers:
        costs = (
            layer.predicted_kl,
            layer.predicted_kl_own,
            layer.predicted_kl_linears,
            layer.measured_kl,
            layer.noise_kl,
        )
        assert [cost.value for cost in costs if cost is not None] == [0] * 5
        assert layer.isolated is not None
        assert layer.cumulative is not None
        assert (layer.isolated.value, layer.cumulative.value) == (0, 0)
    assert all(value.value == 0 for row in found.linears for value in row.output_error.values())


def test_layers_and_the_whole_against_brute_force(llama: LlamaForCausalLM) -> None:
    found = impact(llama, modes=("both",), how=("layers",), batch_size=2)
    (whole,) = found.whole
    assert not whole.no_effect
    with torch.no_grad():
        clean = llama(IDS, output_hidden_states=True)
        with fake_quantize(llama, "mxfp4", backend="eager"):
            quantized = llama(IDS, output_hidden_states=True)
        reference = ReferenceLogits.of(clean.logits, IDS)
        want = reference.against(quantized.logits)
        assert whole.kl.value == pytest.approx(want["kl"].mean().item(), rel=1e-5)
        assert whole.kl_quantiles["1"] == pytest.approx(want["kl"].max().item(), rel=1e-5)
        assert whole.loss.value == pytest.approx(want["loss"].mean().item(), rel=1e-6)
        assert found.clean is not None
        assert found.clean.loss.value == pytest.approx(llama(IDS, labels=IDS).loss.item(), rel=1e-6)
        for index, row in enumerate(found.layers[:-1]):  # the last hidden state has gone through the norm
            a, b = clean.hidden_states[index + 1].double(), quantized.hidden_states[index + 1].double()
            assert row.cumulative.value == pytest.approx(((b - a).norm() / a.norm()).item(), rel=1e-5)
        for index, row in enumerate(found.layers):
            with fake_quantize(llama, "mxfp4", modules=f"model.layers.{index}.*", backend="eager"):
                alone = llama(IDS, output_hidden_states=True)
            assert row.measured_kl is not None
            assert row.measured_kl.value == pytest.approx(reference.against(alone.logits)["kl"].mean().item(), rel=1e-4)
            if index + 1 < len(found.layers):
                a, b = clean.hidden_states[index + 1].double(), alone.hidden_states[index + 1].double()
                assert row.isolated.value == pytest.approx(((b - a).norm() / a.norm()).item(), rel=1e-5)
    swaps = [row.measured_kl.value for row in found.layers if row.measured_kl is not None]
    assert found.additivity(whole, measured=True) == pytest.approx(math.fsum(swaps) / whole.kl.value)


def test_fusion_groups_one_at_a_time_against_brute_force(llama: LlamaForCausalLM) -> None:
    found = impact(llama, modes=["both", "weight"], how=("predicted", "groups"))
    swaps = {row.name: row.measured_kl for row in found.groups}
    layers = len(llama.model.layers)
    names = [f"model.layers.{i}.{n}" for i in range(layers) for n in GROUPS]
    assert list(swaps) == names
    with torch.no_grad():
        clean = torch.log_softmax(llama(IDS).logits[:, :-1].double(), -1)
        for name, members in ((n, GROUPS[n.split(".", 3)[3]]) for n in names):
            parent = name.rpartition(".")[0]
            for mode in ("both", "weight"):
                with fake_quantize(llama, FMT, mode, modules=[f"{parent}.{m}" for m in members]):
                    changed = torch.log_softmax(llama(IDS).logits[:, :-1].double(), -1)
                kl = (clean.exp() * (clean - changed)).sum(-1).mean().item()
                assert swaps[name][mode].value == pytest.approx(kl, rel=1e-3, abs=1e-7)


GROUPS = {
    "self_attn.qkv": ("q_proj", "k_proj", "v_proj"),
    "self_attn.o_proj": ("o_proj",),
    "mlp.gate_up": ("gate_proj", "up_proj"),
    "mlp.down_proj": ("down_proj",),
}


def test_output_errors_of_linears_against_float64(llama: LlamaForCausalLM) -> None:
    found = {row.module: row for row in impact(llama, tokens_per_sequence=0).linears}
    inputs: dict[str, Tensor] = {}
    names = {name: m for name, m in llama.named_modules() if isinstance(m, nn.Linear) and name != "lm_head"}
    handles = [m.register_forward_pre_hook(lambda m, a, n=n: inputs.update({n: a[0]})) for n, m in names.items()]
    with torch.no_grad():
        llama(IDS)
    for handle in handles:
        handle.remove()
    assert found.keys() == names.keys()
    for name, module in names.items():
        x, w = inputs[name].detach().double(), module.weight.detach().double()
        xq = kernels.quant_dequant(inputs[name].detach(), FMT, backend="reference").double()
        wq = kernels.quant_dequant(module.weight.detach(), FMT, backend="reference").double()
        y = x @ w.T
        errors = {"weight": x @ wq.T - y, "input": xq @ w.T - y, "both": xq @ wq.T - y}
        for mode, error in errors.items():
            want = (error.norm() / y.norm()).item()
            assert found[name].output_error[mode].value == pytest.approx(want, rel=1e-4)  # type: ignore[index]
        squares = {mode: error.square().sum().item() for mode, error in errors.items()}
        want = (squares["both"] - squares["weight"] - squares["input"]) / squares["both"]
        assert found[name].interaction == pytest.approx(want, abs=1e-4)


def test_products_of_gradient_and_error_are_exact(llama: LlamaForCausalLM) -> None:
    """Backward's shortcuts against g and dY formed one by one, for the same labels."""
    names = [n for n, m in llama.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]
    quantizer, stack = Quantizer(FMT, "eager"), LayerStack(llama)
    fisher = Fisher(stack, names, [quantizer], seed=7)
    fisher.run(IDS, {})
    p = torch.softmax(llama(IDS).logits[:, :-1].detach(), -1)
    labels = draw_labels(p, torch.Generator().manual_seed(7))
    kept: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
            y.retain_grad()
            kept[name] = (args[0].detach(), y)

        return hook

    modules = dict(llama.named_modules())
    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    log_p = torch.log_softmax(llama(IDS).logits[:, :-1], -1)
    (-log_p.gather(2, labels[:, :, None]).sum()).backward()
    for handle in handles:
        handle.remove()
    layer_sum = torch.zeros(IDS.shape).double()
    for name in names:
        x, y = kept[name]
        w = modules[name].weight.detach()
        wq, xq = quantizer.weight(w, ""), quantizer.activation(x, "")
        assert y.grad is not None
        for mode, dy in {"weight": x @ (wq - w).T, "input": (xq - x) @ w.T, "both": xq @ wq.T - x @ w.T}.items():
            product = (y.grad * dy).sum(-1).double()
            score = fisher.scores.modules[quantizer.name, mode, name]
            assert score.diagonal == pytest.approx((product.square().sum(1) / 2).tolist(), rel=1e-3, abs=1e-9)
            assert score.sum == pytest.approx((product.sum(1).square() / 2).tolist(), rel=1e-2, abs=1e-7)
            if mode == "both" and name.startswith("model.layers.1."):
                layer_sum += product
    want = (layer_sum.square().sum(1) / 2).tolist()
    assert fisher.scores.layer_sums[quantizer.name, "both", 1].diagonal == pytest.approx(want, rel=1e-3)
    assert all(p.requires_grad for p in llama.parameters())


def test_small_errors_are_predicted(llama: LlamaForCausalLM) -> None:
    """`sum` is exact to second order; `diagonal` leaves out what errors at different positions have in common."""
    quantizer, stack = Quantizer(parse("mxfp8"), "eager"), LayerStack(llama)
    variant = Variant(quantizer, "weight")
    with torch.no_grad():
        swept = Sweep(stack, [variant], swap=True, keep_changes=True).run(IDS)
    measured = swept.swaps
    fisher = Fisher(stack, [], [quantizer], label_samples=1000)
    fisher.run(IDS, swept.changes)
    for index in range(len(stack)):
        want = measured[(*variant.key, index)].sum().item()
        score = fisher.scores.layers[(*variant.key, index)]
        assert sum(score.sum) == pytest.approx(want, rel=0.15)
        assert sum(score.diagonal) == pytest.approx(want, rel=0.6)


def test_a_planted_outlier_is_found(llama: LlamaForCausalLM) -> None:
    with torch.no_grad():
        weight = llama.model.layers[1].mlp.down_proj.weight
        weight[:, ::32] *= 100  # every block's scale now follows one value
    found = impact(llama, modes=("weight",), how=())
    isolated = [row.isolated.value for row in found.layers]
    assert isolated.index(max(isolated)) == 1
    cumulative = [row.cumulative.value for row in found.layers]
    growth = [above / below for below, above in itertools.pairwise(cumulative)]
    assert growth.index(max(growth)) == 0, "from layer 0 to layer 1"


def test_the_model_is_left_as_it_was(llama: LlamaForCausalLM) -> None:
    before = copy.deepcopy(llama.state_dict())
    llama.train()
    impact(llama, how=("predicted", "layers"), noise=True)
    assert llama.training
    assert all(p.requires_grad and p.grad is None for p in llama.parameters())
    assert all(torch.equal(before[name], value) for name, value in llama.state_dict().items())
    assert not any("forward" in m.__dict__ for m in llama.modules())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in llama.modules())


def test_formats_by_name(llama: LlamaForCausalLM) -> None:
    found = srdd_package.measure_impact(llama, IDS, ["mxfp4", "identity"], modes=("weight",), how=()).costs
    assert found is not None
    assert [row.no_effect for row in found.whole] == [False, True]


def test_gpt2_runs_and_gaussian_noise_stands_beside() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=64, n_layer=2, n_head=4, n_positions=32)).eval()
    found = impact(model, modes=("both",), how=("predicted", "layers"), noise=True)
    assert {row.role for row in found.linears} == {"c_attn", "c_proj", "c_fc"}
    assert all(row.noise_kl is not None and row.noise_kl.value > 0 for row in found.layers)


def test_no_head_no_kl_and_why() -> None:
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    report = measure_impact(BertModel(config).eval(), IDS, [FMT], modes=("both",), how=("predicted", "layers"))
    found = report.costs
    assert found is not None
    assert (found.clean, found.whole) == (None, [])
    assert "BertModel has no language-model head" in report.warnings[0]
    assert all(row.isolated.value > 0 and row.predicted_kl is None for row in found.layers)
    assert found.layers[-1].measured_error == found.layers[-1].isolated, "of the last layer nothing lies above"
    assert found.layers[0].measured_error is not None
    assert found.settings.how == ["layers"]


def test_swaps_of_groups_need_a_head_too() -> None:
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    with pytest.raises(SettingError, match="no language-model head to measure swaps of groups"):
        impact(BertModel(config).eval(), how=("groups",))


def test_mistakes(llama: LlamaForCausalLM) -> None:
    with pytest.raises(CalibrationError, match="at least 2 tokens"):
        measure_impact(llama, IDS[:, :1], [FMT])
    with pytest.raises(SettingError, match="label_samples=0: expected at least 1"):
        impact(llama, label_samples=0)
    with pytest.raises(SettingError, match="batch_size=0: expected at least 1"):
        impact(llama, batch_size=0)
    with pytest.raises(SettingError, match=r"tokens_per_sequence=-1: expected 0 \(all\) or more"):
        impact(llama, tokens_per_sequence=-1)
    with pytest.raises(NoEffectError, match="label_samples has no effect without how=predicted"):
        impact(llama, label_samples=2, how=("layers",))
    bert = BertModel(
        BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    )
    with pytest.raises(SettingError, match=r"noise: BertModel has no .* the noise control compares KLs"):
        impact(bert, noise=True)
    with pytest.raises(SiteError, match=r"no decoder layers found; looked for an nn\.ModuleList"):
        impact(nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(SiteError, match=r"2 stacks of layers \(decoder.block, encoder.block\)"):
        impact(T5Model(T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)))
    with pytest.raises(SiteError, match="left out by exclude"):
        impact(llama, exclude=("*",))


def test_command(tiny_llama: Path, text: Path, tmp_path: Path, srdd: Run) -> None:
    out = tmp_path / "impact.json"
    arguments = ("--model", tiny_llama, "--data", text, "--samples", "3", "--seq-len", "16", "--out", out)
    code, shown, said = srdd(
        "impact", *arguments, "--quant", "mxfp4,identity", "--attribute", "gradient,swap,swap-groups"
    )
    assert code == 0, said
    for words in (
        "left as they are: lm_head",
        "no effect: identity, W+A changed nothing",
        "measured (swap)",
        "Fusion groups",
    ):
        assert words in shown
    report = Report.load(out)
    document = report.costs
    assert document is not None
    assert (report.sites, report.settings.kinds) == ([], [])
    assert document.settings.formats == report.settings.formats == ["mxfp4:even", "identity"]
    assert document.layers[0].scores["output relative_error"] > 0
    code, printed, shown = srdd("zones", out, "--metric", "measured_kl", "--quant", "mxfp4:even", "--json")
    assert code == 0, shown
    rows = [row for row in document.layers if (row.format, row.mode) == ("mxfp4:even", "both")]
    means = [row.measured_kl.value for row in rows if row.measured_kl]
    zone = json.loads(printed)["zones"][0]
    assert zone["metrics"]["measured_kl"]["max"] == pytest.approx(max(means))
    assert srdd("multipliers", out, "--metric", "predicted_kl", "--quant", "mxfp4:even")[0] == 0
    code, again, _ = srdd("show", out, "--stats")
    assert code == 0
    assert "measured (swap)" in again
    assert srdd("show", out, "--layer", "1")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--quant", "mxfp4", "--modes", "w,b"], "expected each of w, a, wa at most once"),
        (["--quant", "mxfp4", "--attribute", "magic"], "expected gradient, swap, swap-groups, or both"),
        (["--quant", "mxfp4,mxfp4"], "mxfp4"),
        (["--quant", "mxfp4", "--rows", "-1"], "--rows -1: expected 0 (all) or more"),
        (["--quant", "mxfp4", "--label-samples", "0"], "--label-samples 0: expected 1 or more"),
        (
            ["--quant", "mxfp4", "--attribute", "swap", "--label-samples", "3"],
            "--label-samples has no effect without --attribute gradient",
        ),
        (["--quant", "mxfp4", "--seq-len", "1"], ""),
        (["--quant", "mxfp4", "--exclude", "*"], "left out by --exclude"),
    ],
)
def test_bad_options_are_found_before_the_model_is_opened(
    arguments: list[str],
    words: str,
    tiny_llama: Path,
    text: Path,
    tmp_path: Path,
    srdd: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "--exclude" not in arguments:  # which is held against the names of the model
        monkeypatch.setattr("srdd.models.source.open_model", lambda *_, **__: pytest.fail("a model was opened"))
    out = tmp_path / "impact.json"
    given = ("--model", tiny_llama, "--data", text, "--out", out, "--samples", "2", "--seq-len", "16")
    code, printed, shown = srdd("impact", *given, *arguments)
    assert (code, printed, out.exists()) == (2, "", False), shown
    assert words in shown.strip().splitlines()[-1]


def test_labels_follow_the_probabilities_and_stay_where_these_hardly_change() -> None:
    torch.manual_seed(0)
    p = torch.tensor([0.5, 0.25, 0.2, 0.05, 0.0]).expand(1, 20_000, 5)
    labels = draw_labels(p, torch.Generator().manual_seed(1))
    shares = torch.bincount(labels.flatten(), minlength=5) / 20_000
    assert shares[4] == 0
    assert (shares - p[0, 0]).abs().max() < 4 * (0.25 / 20_000) ** 0.5
    wide = torch.softmax(3 * torch.randn(1, 500, 5_000), -1)
    nearly = wide * (1 + 1e-5 * torch.randn(wide.shape))
    one, other = (draw_labels(x, torch.Generator().manual_seed(2)) for x in (wide, nearly / nearly.sum(-1, True)))
    assert (one != other).sum() <= 1, "about 500 * 1e-5 are near a tie"
    both = draw_labels(wide.expand(2, -1, -1), torch.Generator().manual_seed(2))
    assert torch.equal(both[0], one[0]), "the first of two sequences draws as if it were alone"
    assert not torch.equal(both[1], one[0])
