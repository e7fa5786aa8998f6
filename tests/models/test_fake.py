"""Fake quantization: the same numbers as by hand, gradients straight through, everything back bit for bit."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

import srdd
from srdd.core.formats import parse
from srdd.errors import BusyError, FormatError, SettingError, SiteError
from srdd.models.fake import fake_quantize
from srdd.models.quantizer import Quantizer

IDS = torch.randint(0, 50, (2, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def llama(tiny_llama: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tiny_llama).eval()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("spec", ["mxfp4:even", "nvfp4:nvidia", "mxfp8_e4m3:rceil"])
def test_linear_by_hand(spec: str) -> None:
    linear = nn.Linear(96, 40)
    x = torch.randn(3, 5, 96)
    xq = torch.stack([srdd.quant_dequant(part, spec) for part in x])  # each sequence has its own tensor scale
    wq = srdd.quant_dequant(linear.weight, spec)
    want = {
        "weight": nn.functional.linear(x, wq, linear.bias),
        "input": nn.functional.linear(xq, linear.weight, linear.bias),
        "both": nn.functional.linear(xq, wq, linear.bias),
    }
    for mode, value in want.items():
        with fake_quantize(nn.Sequential(linear), spec, mode):  # type: ignore[arg-type]
            assert torch.equal(linear(x), value)
    assert "forward" not in linear.__dict__


@pytest.mark.parametrize("spec", ["fp8", "fp8_channel", "fp8_block"])
def test_a_weight_has_tiles_of_its_own(spec: str) -> None:
    linear = nn.Linear(200, 150)
    x = torch.randn(3, 5, 200) * torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1)
    xq = torch.stack([srdd.quant_dequant(part, spec) for part in x])  # fp8 scales each sequence
    wq = srdd.quant_dequant(linear.weight, parse(spec).for_weights)
    with fake_quantize(nn.Sequential(linear), spec):
        assert torch.equal(linear(x), nn.functional.linear(xq, wq, linear.bias))
        linear(x).sum().backward()
    assert torch.allclose(linear.weight.grad, xq.sum((0, 1)).expand(150, 200), rtol=1e-4), "straight through"
    assert torch.equal(wq, srdd.quant_dequant(linear.weight, spec)) == (spec != "fp8_block")


def test_conv1d_blocks_run_along_the_input() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=64, n_layer=1, n_head=4, n_positions=32)).eval()
    conv = model.transformer.h[0].mlp.c_fc
    x = torch.randn(2, 4, 64)
    want = torch.addmm(conv.bias, x.view(-1, 64), srdd.quant_dequant(conv.weight.T, "mxfp4").T).view(2, 4, -1)
    with fake_quantize(model, "mxfp4", "weight", modules="*c_fc"):
        assert torch.equal(conv(x), want)


def test_experts_are_quantized_one_by_one() -> None:
    config = MixtralConfig(
        vocab_size=50,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    model = MixtralForCausalLM(config).eval()
    with torch.no_grad():
        clean = model(IDS).logits
        by_hand = MixtralForCausalLM(config).eval()
        by_hand.load_state_dict(model.state_dict())
        for name, parameter in by_hand.named_parameters():
            if parameter.dim() == 3:
                parameter.copy_(torch.stack([srdd.quant_dequant(p, "nvfp4") for p in parameter]))
            elif parameter.dim() == 2 and "proj" in name:
                parameter.copy_(srdd.quant_dequant(parameter, "nvfp4"))
        handle = fake_quantize(model, "nvfp4", "weight")
        with handle:
            got = model(IDS).logits
        assert torch.equal(got, by_hand(IDS).logits)
        assert torch.equal(model(IDS).logits, clean)
    assert handle.weights == 4 + 2  # q, k, v, o and two fused experts; the router is no Linear


@pytest.mark.parametrize("mode", ["weight", "input", "both"])
def test_restored_bit_for_bit_also_after_an_error(llama: LlamaForCausalLM, mode: str) -> None:
    before, names = state(llama), [name for name, _ in llama.named_parameters()]
    with torch.no_grad():
        clean = llama(IDS).logits
        with fake_quantize(llama, "mxfp4", mode):  # type: ignore[arg-type]
            assert not torch.equal(llama(IDS).logits, clean)
            assert same(state(llama), before), "parameters never move"
        assert torch.equal(llama(IDS).logits, clean)
        with pytest.raises(RuntimeError, match="stop"), fake_quantize(llama, "mxfp4", mode):  # type: ignore[arg-type]
            raise RuntimeError("stop")
        assert torch.equal(llama(IDS).logits, clean)
    assert [name for name, _ in llama.named_parameters()] == names
    assert same(state(llama), before)
    assert not any("forward" in m.__dict__ for m in llama.modules())


def test_identity_changes_nothing(llama: LlamaForCausalLM) -> None:
    with torch.no_grad():
        clean = llama(IDS).logits
        with fake_quantize(llama, Quantizer(None)):
            assert torch.equal(llama(IDS).logits, clean)


def test_what_was_touched_is_said(llama: LlamaForCausalLM) -> None:
    handle = fake_quantize(llama, "mxfp4")
    layers = llama.config.num_hidden_layers
    assert str(handle) == f"{7 * layers} modules: {7 * layers} weights, {7 * layers} inputs; left out: lm_head"
    with handle, torch.no_grad():
        llama(IDS)
    assert set(handle.calls.values()) == {1}
    everything = fake_quantize(llama, "mxfp4", "weight", default_exclude=())
    assert (everything.weights, everything.inputs, everything.left_out) == (7 * layers + 1, 0, ())
    assert fake_quantize(llama, "mxfp4", modules="*down_proj").weights == layers


def test_gradients_pass_straight_through() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 8)
    x = torch.randn(4, 64, requires_grad=True)
    out = torch.randn(4, 8)
    with fake_quantize(nn.Sequential(linear), "mxfp4"):
        linear(x).backward(out)
    xq, wq = srdd.quant_dequant(x, "mxfp4"), srdd.quant_dequant(linear.weight, "mxfp4")
    assert linear.weight.grad is not None
    assert x.grad is not None
    torch.testing.assert_close(linear.weight.grad, out.T @ xq, rtol=0, atol=1e-6)
    torch.testing.assert_close(x.grad, out @ wq, rtol=0, atol=1e-6)
    # numerically: the same product with operands shifted by constants, whose gradient is exact
    shift_x, shift_w = (xq - x).detach().double(), (wq - linear.weight).detach().double()
    assert torch.autograd.gradcheck(
        lambda a, w: (a + shift_x) @ (w + shift_w).T,
        (x.detach().double().requires_grad_(), linear.weight.detach().double().requires_grad_()),
    )


def test_training_inside_the_block_learns(llama: LlamaForCausalLM) -> None:
    optimizer = torch.optim.SGD(llama.parameters(), lr=0.5)
    losses = []
    with fake_quantize(llama, "mxfp8"):
        for _ in range(5):
            loss = llama(IDS, labels=IDS).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert len(set(losses)) == 5, "a stepped weight is quantized anew"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"modules": "*q_porj"}, SiteError, "matches none of the 22 Linears of LlamaForCausalLM"),
        ({"modules": "lm_head"}, SiteError, "left out by exclude: lm_head"),
        ({"mode": "w4a4"}, SettingError, "expected one of weight, input, both"),
        ({"spec": "mxfp5"}, FormatError, "mxfp5"),
    ],
)
def test_mistakes(llama: LlamaForCausalLM, arguments: dict[str, str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fake_quantize(llama, **{"spec": "mxfp4", **arguments})  # type: ignore[arg-type]


def test_not_entered_twice(llama: LlamaForCausalLM) -> None:
    handle = fake_quantize(llama, "mxfp4")
    with handle, pytest.raises(BusyError, match="already active"):
        handle.__enter__()
    assert not any("forward" in m.__dict__ for m in llama.modules())


@pytest.mark.parametrize("mode", ["weight", "input", "both"])
def test_the_same_under_inference_mode(llama: LlamaForCausalLM, mode: str) -> None:
    with torch.no_grad(), fake_quantize(llama, "mxfp4", mode):  # type: ignore[arg-type]
        want = llama(IDS).logits
    with torch.inference_mode(), fake_quantize(llama, "mxfp4", mode):  # type: ignore[arg-type]
        assert torch.equal(llama(IDS).logits, want)


@pytest.mark.parametrize("shape", [(32, 64), (3, 5)])  # the second is no whole number of 64-bit words
def test_weights_written_past_the_version_counter_are_quantized_anew(shape: tuple[int, int]) -> None:
    linear = nn.Linear(shape[1], shape[0])
    model, x, bias = nn.Sequential(linear), torch.randn(2, shape[1]), linear.bias.detach().clone()
    with torch.no_grad(), fake_quantize(model, "mxfp4"):
        model(x)
        linear.weight.data.mul_(3)  # as optimizers do that keep no version
        want = linear.weight.detach().clone()
        got = model(x)
        assert model.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
        model.float()
    xq, wq = srdd.quant_dequant(x, "mxfp4"), srdd.quant_dequant(want, "mxfp4")
    assert torch.equal(got, nn.functional.linear(xq, wq, bias))


def test_an_inner_block_must_end_first(llama: LlamaForCausalLM) -> None:
    outer, inner = fake_quantize(llama, "mxfp8", "input"), fake_quantize(llama, "mxfp4", "weight")
    with pytest.raises(BusyError, match="not active"):
        outer.__exit__(None, None, None)
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(BusyError, match="leave the inner block first"):
        outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    outer.__exit__(None, None, None)
    assert not [name for name, module in llama.named_modules() if "forward" in module.__dict__]


def test_a_copy_inside_the_block_is_refused(llama: LlamaForCausalLM) -> None:
    with fake_quantize(llama, "mxfp4"), pytest.raises(BusyError, match="copy it outside the block"):
        copy.deepcopy(llama)


def test_exclude_is_a_pattern_or_several_and_must_match(llama: LlamaForCausalLM) -> None:
    down = tuple(f"model.layers.{i}.mlp.down_proj" for i in range(3))
    assert fake_quantize(llama, "mxfp4", exclude="*down_proj").left_out == (*down, "lm_head"), "added to the defaults"
    assert fake_quantize(llama, "mxfp4", exclude=["*down_proj"], default_exclude=()).left_out == down
    assert fake_quantize(llama, "mxfp4", exclude=()).left_out == ("lm_head",)
    with pytest.raises(SiteError, match=r"exclude='\*dwon_proj' matches none"):
        fake_quantize(llama, "mxfp4", exclude="*dwon_proj")
