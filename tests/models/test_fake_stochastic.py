"""Stochastic rounding in a running model: new at every call, the same when a checkpoint runs a call again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

import srdd
from srdd.core.formats import parse
from srdd.errors import BusyError, NoEffectError
from srdd.kernels.seeds import generator_for
from srdd.models.calls import KEPT, Calls
from srdd.models.fake import fake_quantize
from srdd.models.quantizer import Quantizer

IDS = torch.randint(0, 50, (2, 16), generator=torch.Generator().manual_seed(0))
MODES = ["weight", "input", "both"]
SPECS = ["mxfp4_sr", "nvfp4_sr"]
FMT = parse("mxfp4_sr")


@pytest.fixture
def llama(tiny_llama: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tiny_llama).eval()


def linear(inputs: int = 64, outputs: int = 16) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=False)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def outputs(spec: str, mode: str, count: int, **settings: Any) -> list[Tensor]:
    model, x = nn.Sequential(linear()), normal(3, 64)
    with fake_quantize(model, spec, mode, **settings):  # type: ignore[arg-type]
        return [model(x) for _ in range(count)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spec", SPECS)
def test_every_call_draws_anew_and_the_seed_decides(spec: str, mode: str) -> None:
    first, second, third = outputs(spec, mode, 3)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    again = outputs(spec, mode, 3)
    assert all(torch.equal(a, b) for a, b in zip((first, second, third), again, strict=True))
    assert not torch.equal(first, outputs(spec, mode, 1, seed=1)[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spec", SPECS)
def test_frozen_draws_what_the_first_call_draws(spec: str, mode: str) -> None:
    first, *others = outputs(spec, mode, 3, fresh=False)
    assert all(torch.equal(first, other) for other in others)
    assert torch.equal(first, outputs(spec, mode, 1)[0])


def test_a_draw_by_hand() -> None:
    model, x = nn.Sequential(linear()), normal(2, 5, 64)
    with torch.no_grad(), fake_quantize(model, "mxfp4_sr", seed=7):
        model(x)
        got = model(x)

    def drawn(tensor: Tensor, name: str, part: int) -> Tensor:
        generator = generator_for((FMT,), tensor.device, 7, name, "draw 0", "call 1", f"part {part}")
        return srdd.quant_dequant(tensor, FMT, generator=generator)

    xq = torch.stack([drawn(part, "0", at) for at, part in enumerate(x)])
    assert torch.equal(got, nn.functional.linear(xq, drawn(model[0].weight.detach(), "0.weight", 0)))


def test_the_block_entered_again_goes_on_and_a_new_one_begins_anew() -> None:
    model, x = nn.Sequential(linear()), normal(3, 64)
    handle = fake_quantize(model, "mxfp4_sr")
    with torch.no_grad():
        with handle:
            first = model(x)
        with handle:
            second = model(x)
    assert torch.equal(first, outputs("mxfp4_sr", "both", 2)[0])
    assert torch.equal(second, outputs("mxfp4_sr", "both", 2)[1])


def test_the_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a = outputs("mxfp4_sr", "both", 1)  # torch.manual_seed(0) in it, for the weights
    state = torch.get_rng_state()
    torch.manual_seed(0)
    nn.Linear(64, 16, bias=False)
    assert torch.equal(torch.get_rng_state(), state), "only the weights were drawn"
    assert not torch.equal(state, before)
    assert torch.equal(a[0], outputs("mxfp4_sr", "both", 1)[0])


@torch.no_grad()
def errors_of_means(spec: str, mode: str) -> list[float]:
    """The error of the mean over n calls in units of a single call's, times sqrt(n): 1 for independent draws."""
    model, x = nn.Sequential(linear(256, 64)), normal(32, 256)
    exact, found = model(x).double(), []
    total = torch.zeros_like(exact)
    with fake_quantize(model, spec, mode):  # type: ignore[arg-type]
        for n in range(1, 201):
            total += model(x)
            found.append(float((total / n - exact).norm()) * n**0.5)
    return [error / found[0] for error in found]


@pytest.mark.parametrize("mode", MODES)
def test_the_mean_over_calls_goes_to_the_exact_product_as_one_over_the_root(mode: str) -> None:
    errors = errors_of_means("mxfp4_sr", mode)
    for n in (4, 16, 50, 100, 200):  # a frozen draw has sqrt(n), up to 14
        assert errors[n - 1] == pytest.approx(1, abs=0.1), n


@pytest.mark.parametrize("mode", MODES)
def test_scales_that_round_down_clip_and_leave_nvfp4_a_bias(mode: str) -> None:
    errors = errors_of_means("nvfp4_sr", mode)
    assert errors[15] == pytest.approx(1, abs=0.1)
    bias = (errors[199] ** 2 / 200 - 1 / 200) ** 0.5  # of one call's error
    assert 0.03 < bias < 0.1


@pytest.mark.parametrize("spec", SPECS)
def test_two_sequences_of_a_batch_draw_for_themselves_and_batches_of_any_size_draw_the_same(spec: str) -> None:
    model, x = nn.Sequential(linear()), normal(1, 5, 64).expand(3, 5, 64).contiguous()
    with torch.no_grad(), fake_quantize(model, spec, "input", fresh=False):
        three, one = model(x), model(x[:1])
    assert not torch.equal(three[0], three[1])
    assert not torch.equal(three[1], three[2])
    torch.testing.assert_close(three[:1], one)
    named = Quantizer(parse(spec), sequences=["a", "b", "c"])
    whole = named.activation(x, "0")
    for at, name in enumerate("abc"):
        named.sequences[:] = [name]
        assert torch.equal(named.activation(x[at : at + 1], "0")[0], whole[at])
        assert torch.equal(named.activation(x[at], "0"), whole[at]), "without an axis of sequences too"


def test_experts_draw_for_themselves() -> None:
    weight = normal(64, 64).expand(4, 64, 64).contiguous()
    q = Quantizer(FMT).weight(weight, "experts")
    assert not any(torch.equal(q[a], q[b]) for a in range(4) for b in range(a))


def test_modules_that_read_one_tensor_draw_by_their_own_names(llama: LlamaForCausalLM) -> None:
    attention, x = llama.model.layers[0].self_attn, normal(1, 4, llama.config.hidden_size)
    with torch.no_grad():
        attention.v_proj.weight.copy_(attention.k_proj.weight)
        with fake_quantize(llama, "mxfp4_sr", "input"):
            k, v = attention.k_proj(x), attention.v_proj(x)
        with fake_quantize(llama, "mxfp4_sr", "input"):
            alone = attention.v_proj(x)
    assert not torch.equal(k, v)
    assert torch.equal(v, alone)


# What follows compares gradients with and without a checkpoint: they agree only if what runs again draws what it drew.


def checkpointed(reentrant: bool | None, **settings: Any) -> Callable[..., Any]:
    """`checkpoint` in one of its variants; None: none at all."""
    if reentrant is None:
        return lambda function, *args: function(*args)
    return lambda function, *args: checkpoint(function, *args, use_reentrant=reentrant, **settings)


def gradients(model: nn.Module, step: Callable[[], Tensor], spec: str = "mxfp4_sr", mode: str = "both") -> list[Tensor]:
    for parameter in model.parameters():
        parameter.grad = None
    with fake_quantize(model, spec, mode):  # type: ignore[arg-type]
        step().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def agree(a: list[Tensor], b: list[Tensor], within: float = 0.0) -> bool:
    """`within`: where a shared weight's gradients are added in another order."""
    return len(a) == len(b) > 0 and all(torch.allclose(x, y, rtol=0, atol=within) for x, y in zip(a, b, strict=True))


def enable(model: nn.Module, **settings: bool) -> None:
    """Gradient checkpointing of transformers, by the name that its version has for it."""
    older = model.gradient_checkpointing_enable
    getattr(model, "activation_checkpointing_enable", older)(settings)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("training", [True, False])
def test_gradient_checkpointing_of_transformers(
    llama: LlamaForCausalLM, reentrant: bool, mode: str, training: bool
) -> None:
    def step() -> Tensor:
        return llama(IDS, labels=IDS).loss + llama(IDS.flip(1), labels=IDS).loss

    llama.train(training)
    want = gradients(llama, step, mode=mode)
    enable(llama, use_reentrant=reentrant)
    assert agree(gradients(llama, step, mode=mode), want)
    assert not agree(gradients(llama, lambda: llama(IDS, labels=IDS).loss + step() * 0, mode=mode), want)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("preserve", [True, False])
def test_the_same_batch_twice_before_one_backward(llama: LlamaForCausalLM, reentrant: bool, preserve: bool) -> None:
    def step() -> Tensor:
        return llama(IDS, labels=IDS).loss + 2 * llama(IDS, labels=IDS).loss  # the weight tells them apart

    want = gradients(llama.train(), step)
    enable(llama, use_reentrant=reentrant, preserve_rng_state=preserve)
    assert agree(gradients(llama, step), want)


@pytest.mark.parametrize("reentrant", [True, False])
def test_accumulated_micro_batches_and_steps_of_an_optimizer(llama: LlamaForCausalLM, reentrant: bool) -> None:
    def trained(checkpoints: bool) -> list[Tensor]:
        model = LlamaForCausalLM(llama.config).train()
        model.load_state_dict(llama.state_dict())
        if checkpoints:
            enable(model, use_reentrant=reentrant)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with fake_quantize(model, "mxfp4_sr"):
            for _ in range(3):
                for ids in (IDS, IDS.flip(0)):
                    model(ids, labels=ids).loss.backward()
                model.eval()
                with torch.no_grad():
                    model(IDS)  # an evaluation between steps
                model.train()
                optimizer.step()
                optimizer.zero_grad()
        return [p.detach() for p in model.parameters()]

    assert agree(trained(True), trained(False))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_shared_module_in_one_part_and_in_several(reentrant: bool) -> None:
    m, x = linear(64, 64), normal(4, 64).requires_grad_()

    def step(run: Callable[..., Any]) -> Tensor:
        inner = run(lambda t: m(t) - 2 * m(t), x)  # twice on the very same tensor
        chained = run(lambda t: m(torch.tanh(m(t))), inner)  # one after the other
        again = run(lambda t: m(t), chained)
        return (again * normal(4, 64, seed=5)).sum()

    plain = gradients(m, lambda: step(checkpointed(None)))
    assert agree(gradients(m, lambda: step(checkpointed(reentrant))), plain, within=1e-5)
    assert not agree(gradients(m, lambda: 0 * m(x).sum() + step(checkpointed(None))), plain, within=0.1)
    with torch.no_grad(), fake_quantize(m, "mxfp4_sr"):
        assert not torch.equal(m(x), m(x))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_inside_a_checkpoint(reentrant: bool) -> None:
    model = nn.ModuleList([linear(64, 64) for _ in range(3)])
    x = normal(4, 64).requires_grad_()

    def step(run: Callable[..., Any]) -> Tensor:
        def outer(t: Tensor) -> Tensor:
            result: Tensor = model[2](torch.tanh(run(lambda u: model[1](torch.tanh(model[0](u))), t)))
            return result

        return (run(outer, x) * normal(4, 64, seed=5)).sum() + (run(outer, x + 1) ** 2).sum()

    plain = gradients(model, lambda: step(checkpointed(None)))
    assert agree(gradients(model, lambda: step(checkpointed(reentrant))), plain)


def test_backward_twice_with_a_kept_graph() -> None:
    model, x = nn.Sequential(linear(64, 64), nn.Tanh()), normal(4, 64).requires_grad_()
    with fake_quantize(model, "mxfp4_sr"):
        loss = checkpoint(model, x, use_reentrant=False).square().sum()
        once = torch.autograd.grad(loss, [x, *model.parameters()], retain_graph=True)
        twice = torch.autograd.grad(loss, [x, *model.parameters()])
    assert agree(list(once), list(twice))


@pytest.mark.parametrize("reentrant", [True, False])
def test_experts_under_a_checkpoint(reentrant: bool) -> None:
    torch.manual_seed(0)
    model = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=50,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=4,
        )
    ).train()
    want = gradients(model, lambda: model(IDS, labels=IDS).loss)
    enable(model, use_reentrant=reentrant)
    assert agree(gradients(model, lambda: model(IDS, labels=IDS).loss), want)


def test_what_backward_runs_and_nobody_ran_before_is_refused() -> None:
    model, x = nn.Sequential(linear(64, 64)), normal(4, 64).requires_grad_()
    loss = checkpoint(model, x, use_reentrant=True).sum()
    with fake_quantize(model, "mxfp4_sr"), pytest.raises(BusyError, match="0 is run again by a backward pass"):
        loss.backward()
    assert "forward" not in model[0].__dict__


def test_an_input_that_comes_out_otherwise_is_told_by_its_shape() -> None:
    calls, x = Calls(), normal(4, 64)
    assert [calls.number("a", x), calls.number("a", x + 1), calls.number("a", normal(5, 64))] == [0, 1, 2]
    seen: list[int] = []
    y = torch.ones(1, requires_grad=True) * 1
    y.register_hook(lambda g: seen.extend(calls.number("a", x + 2) for _ in range(2)))
    y.backward()
    assert seen == [1, 0], "the latest first, and each once"


def test_calls_are_forgotten_in_time() -> None:
    calls, x = Calls(), normal(1, 4)
    numbers = [calls.number("a", x + n) for n in range(KEPT + 2)]
    assert numbers == list(range(KEPT + 2))
    seen: list[int] = []
    y = torch.ones(1, requires_grad=True) * 1
    y.register_hook(lambda g: seen.append(calls.number("a", x + 2)))
    y.backward()
    assert seen == [2]


@pytest.mark.parametrize("fresh", [True, False])
def test_fresh_where_nothing_is_drawn_is_refused(fresh: bool) -> None:
    with pytest.raises(NoEffectError, match="fresh has no effect with mxfp4:even, which rounds to nearest; leave it"):
        fake_quantize(nn.Sequential(linear()), "mxfp4", fresh=fresh)
    with pytest.raises(NoEffectError, match="fresh has no effect with a Quantizer"):
        fake_quantize(nn.Sequential(linear()), Quantizer(FMT), fresh=fresh)
