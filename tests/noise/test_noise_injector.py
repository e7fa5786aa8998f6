"""Noise in live models: size, sameness, exact restore, and every way to lose it turned into an error."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from builders import make_rin
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    Qwen3Config,
)

from srdd.errors import NoiseError, NoiseWarning
from srdd.noise import Injector, NoisyStream
from srdd.noise.draw import canonical, changed_share, normal
from srdd.noise.targets import find_targets, unit_offset

SMALL = {
    "vocab_size": 64,
    "hidden_size": 512,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 256,
}


def llama(**settings: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(LlamaConfig(**{**SMALL, **settings})).train()


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(p, before[name]) for name, p in model.named_parameters())


CONSTANT = {"schedule": {"kind": "constant", "sigma_start": 0.05, "sigma_end": 0.05}}


def test_the_size_of_the_noise_is_sigma_times_the_multiplier() -> None:
    model = llama(hidden_size=8192, intermediate_size=16, head_dim=16)
    before = state(model)
    injector = Injector(model, make_rin({0: 1.0, 1: 1.6}, outside_layers=0.5, **CONSTANT), seed=3)
    expected = {0: 0.05, 1: 0.08, None: 0.025}
    with injector.applied(4, 10) as injection:
        assert len(injection.touched) == 5
        assert injection.layers == (0, 1)
        for row in injection.touched:
            noise = model.get_parameter(row.name).detach().double() - before[row.name].double()
            sigma = expected[row.layer]
            assert row.sigma == pytest.approx(sigma, rel=1e-12)
            assert float(noise.std()) == pytest.approx(sigma, rel=4 / math.sqrt(2 * 8192))
            assert abs(float(noise.mean())) < 4 * sigma / math.sqrt(8192)
            assert row.std == pytest.approx(float(noise.square().mean().sqrt()), rel=1e-6)
            assert row.changed == row.values == 8192
        untouched = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
        assert untouched == [n for n in before if "norm" not in n]
    assert same(model, before)


def test_silent_steps_touch_nothing_and_say_so() -> None:
    model = llama()
    before = state(model)
    with Injector(model, make_rin({0: 1.0, 1: 1.0})).applied(2, 29) as injection:
        assert same(model, before)
        assert injection.sigma == 0
        assert "silent stage" in str(injection)


def test_restored_bit_for_bit_after_an_exception() -> None:
    model = llama().to(torch.bfloat16)
    before = state(model)
    injector = Injector(model, make_rin({0: 1.0, 1: 1.0}, target="both", **CONSTANT))

    def fail() -> None:
        with injector.applied(3, 10):
            assert not same(model, before)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert same(model, before)
    assert not injector.active
    with injector.applied(3, 10):
        pass
    assert same(model, before)


def test_twice_without_restore_is_an_error_also_from_another_injector() -> None:
    model = llama()
    before = state(model)
    config = make_rin({0: 1.0, 1: 1.0}, **CONSTANT)
    first, second = Injector(model, config), Injector(model, config, seed=1)
    first.apply(0, 5)
    with pytest.raises(NoiseError, match="already applied"):
        first.apply(1, 5)
    with pytest.raises(NoiseError, match="noise of another injector"):
        second.apply(1, 5)
    first.restore()
    assert same(model, before)
    with pytest.raises(NoiseError, match="no noise is applied"):
        first.restore()
    with second.applied(1, 5):
        pass
    assert same(model, before)


def test_an_optimizer_step_on_noisy_weights_is_an_error() -> None:
    model = llama()
    before = state(model)
    injector = Injector(model, make_rin({0: 1.0, 1: 1.0}, **CONSTANT))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    injector.apply(0, 5)
    model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    with pytest.raises(NoiseError, match="changed while noise was on"):
        injector.restore()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if "norm" in n)


def test_gradients_of_a_noisy_step_arrive_and_the_clean_weights_step() -> None:
    model = llama()
    injector = Injector(model, make_rin({0: 1.0, 1: 1.0}, **CONSTANT))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    clean = state(model)
    with injector.applied(0, 5):
        model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    for name, p in model.named_parameters():
        assert p.grad is not None
        assert torch.equal(p, torch.add(clean[name], p.grad, alpha=-0.5))


def test_numbers_depend_on_seed_step_and_name_alone() -> None:
    draws = {
        (seed, step, name): normal(seed, step, name, (64,))
        for seed in (0, 1)
        for step in (1, 11)
        for name in ("a.weight", "b.weight")
    }
    keys = list(draws)
    for i, a in enumerate(keys):
        for b in keys[i + 1 :]:
            assert not torch.equal(draws[a], draws[b])
    state_before = torch.random.get_rng_state()
    assert torch.equal(draws[keys[0]], normal(0, 1, "a.weight", (64,)))
    assert torch.equal(state_before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "name",
    [
        "module.model.layers.0.input_layernorm.weight",
        "_orig_mod.model.layers.0.input_layernorm.weight",
        "module._orig_mod.model.layers.0._fsdp_wrapped_module.input_layernorm.weight",
        "base_model.model.model.layers.0.input_layernorm.weight",
        "base_model.model.model.layers.0.input_layernorm.original_module.weight",
        "base_model.model.model.layers.0.input_layernorm.modules_to_save.default.weight",
    ],
)
def test_wrappers_do_not_change_names(name: str) -> None:
    assert canonical(name) == "model.layers.0.input_layernorm.weight"


def test_replicas_and_wrapped_models_draw_the_same() -> None:
    config = make_rin({0: 1.0, 1: 1.3}, **CONSTANT)
    plain, wrapped = llama(), nn.DataParallel(llama())
    for model in (plain, wrapped):
        Injector(model, config, seed=5).apply(2, 9)
    for a, b in zip(plain.parameters(), wrapped.parameters(), strict=True):
        assert torch.equal(a, b)


def test_evaluation_is_refused_unless_asked_for() -> None:
    model = llama().eval()
    config = make_rin({0: 1.0, 1: 1.0}, **CONSTANT)
    with pytest.raises(NoiseError, match="evaluation mode"):
        Injector(model, config).apply(0, 5)
    with Injector(model, config, evaluation="allow").applied(0, 5) as injection:
        assert injection.layers == (0, 1)


@pytest.mark.parametrize(
    ("layers", "settings", "words"),
    [
        ({0: 1.0, 1: 1.0, 2: 1.0}, {}, r"has 2, so the multipliers of layer\(s\) \[2\] would be lost"),
        ({0: 1.0}, {}, r"has 2, and layer\(s\) \[1\] have no multiplier"),
        ({0: 1.0, 1: 1.0}, {"target_classes": ["*LayerNorm*"]}, r"no module of class \*LayerNorm\* gets noise"),
        ({0: 1.0, 1: 1.0}, {"target_classes": ["*RMSNorm*", "RmsNorm"]}, "no module of class RmsNorm"),
        ({0: 1.0, 1: 1.0}, {"exclude": ["*layers.1.*norm"]}, r"layer\(s\) \[1\] reach no weight"),
        ({0: 1.0, 1: 1.0}, {"exclude": ["*q_norm*"]}, r"exclude '\*q_norm\*' matches no module"),
        ({0: 1.0, 1: 1.0}, {"exclude": ["*"]}, r"no module of class \*RMSNorm\* or \*LayerNorm\*"),
        (
            {0: 1.0, 1: 1.0},
            {"norm_multipliers": {"mlp": {0: 1.0, 1: 2.0}}, "exclude": ["*layers.1.post*"]},
            r"norm_multipliers.mlp: layer\(s\) \[1\] have no mlp norm",
        ),
        ({0: 1.0, 1: 1.0}, {"target": "both", "target_classes": ["*RMSNorm*"]}, None),
        ({0: 1.0, 1: 1.0}, {"target_classes": ["*RMSNorm", "LayerNorm"]}, None),
    ],
)
def test_what_would_be_lost_is_an_error(layers: dict[int, float], settings: Any, words: str | None) -> None:
    config = make_rin(layers, **settings)
    if words is None:
        assert len(find_targets(llama(), config)) == 5
        return
    with pytest.raises(NoiseError, match=words):
        Injector(llama(), config)


def test_a_model_without_layers() -> None:
    with pytest.raises(NoiseError, match="no decoder layers were found in Linear"):
        Injector(nn.Linear(4, 4), make_rin({0: 1.0}))


def test_overflow_leaves_every_weight_as_it_was() -> None:
    model = llama().half()
    before = state(model)
    huge = {"schedule": {"kind": "constant", "sigma_start": 1e6, "sigma_end": 1e6}}
    injector = Injector(model, make_rin({0: 0.0, 1: 1.0}, **huge))
    with pytest.raises(NoiseError, match=r"layers.1.input_layernorm.weight: its noise overflows at step 1"):
        injector.apply(1, 5)
    assert same(model, before)
    assert not injector.active


def test_packed_and_absent_weights() -> None:
    model = llama()
    injector = Injector(model, make_rin({0: 1.0, 1: 1.0}, **CONSTANT))
    model.model.norm.weight = nn.Parameter(torch.ones(512, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(NoiseError, match=r"model.norm.weight is torch.uint8"):
        injector.apply(0, 5)
    assert not injector.active


def test_rounding_is_foreseen() -> None:
    weights = torch.cat([torch.full((20_000,), v) for v in (0.03, 0.9, 1.5)]).bfloat16()
    generator = torch.Generator().manual_seed(1)
    for sigma in (0.0005, 0.003, 0.05):
        noise = torch.randn(weights.shape, generator=generator) * sigma
        moved = ((weights.float() + noise).bfloat16() != weights).float().mean()
        assert changed_share(weights, sigma) == pytest.approx(float(moved), abs=0.01)
    assert changed_share(weights, 0.0) == 0


def test_noise_that_rounding_removes_is_told() -> None:
    layers = {0: 1.0, 1: 1.0}
    with pytest.warns(NoiseWarning, match=r"at sigma 0.0005 noise moves 0.0% of the bfloat16 weights"):
        Injector(llama().bfloat16(), make_rin(layers))
    with pytest.raises(NoiseError, match="this is the largest sigma"):
        Injector(llama().bfloat16(), make_rin(layers, schedule={**SCHEDULE, "sigma_start": 0.0005}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Injector(llama(), make_rin(layers))


SCHEDULE = {"sigma_end": 0.0005, "num_stages": 10}


@pytest.mark.parametrize(
    ("config", "offset"),
    [
        (LlamaConfig(**SMALL), 0.0),
        (GemmaConfig(**SMALL), 1.0),
        (Gemma2Config(**SMALL), 1.0),
        (Qwen3Config(**SMALL), 0.0),
        (MixtralConfig(**SMALL, num_local_experts=2), 0.0),
        (GPT2Config(vocab_size=64, n_embd=64, n_layer=2, n_head=2), 0.0),
    ],
)
def test_relative_noise_on_every_kind_of_norm(config: Any, offset: float) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).train()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".norm" in name or "norm." in name or "ln_" in name:
                p.copy_(0.3 * torch.randn_like(p) + 0.5)
    noise = make_rin({0: 1.0, 1: 2.0}, relative=True, **CONSTANT)
    before = state(model)
    injector = Injector(model, noise)
    assert all(unit_offset(target.module) == offset for target in injector.targets)
    with injector.applied(0, 3) as injection:
        assert {row.layer for row in injection.touched} == {None, 0, 1}
        for row in injection.touched:
            rms = float((before[row.name].double() + offset).square().mean().sqrt())
            factor = {None: 1.0, 0: 1.0, 1: 2.0}[row.layer]
            assert row.sigma == pytest.approx(0.05 * factor * rms, rel=1e-9)
            assert row.std == pytest.approx(row.sigma, rel=4 / math.sqrt(2 * row.values))
    assert same(model, before)


def test_each_norm_gets_its_own_multiplier() -> None:
    config = make_rin(
        {0: 1.0, 1: 1.0}, norm_multipliers={"attention": {0: 0.5, 1: 0.25}, "mlp": {0: 2.0, 1: 3.0}}, **CONSTANT
    )
    with Injector(llama(), config).applied(0, 2) as injection:
        sizes = {row.name.removeprefix("model.").removesuffix(".weight"): row.sigma / 0.05 for row in injection.touched}
    assert sizes == pytest.approx(
        {
            "layers.0.input_layernorm": 0.5,
            "layers.0.post_attention_layernorm": 2,
            "layers.1.input_layernorm": 0.25,
            "layers.1.post_attention_layernorm": 3,
            "norm": 1,
        }
    )


def test_relative_noise_of_a_model_without_values() -> None:
    with torch.device("meta"):
        model = llama()
    targets = find_targets(model, make_rin({0: 1.0, 1: 1.0}, relative=True))
    assert {unit_offset(target.module) for target in targets} == {0.0}


def test_sandwich_norms_after_attention_feed_nothing() -> None:
    model = AutoModelForCausalLM.from_config(Gemma2Config(**SMALL))
    norms = {t.path.split(".")[-2]: t.norm for t in find_targets(model, make_rin({0: 1.0, 1: 1.0}))}
    assert norms == {
        "input_layernorm": "attention",
        "post_attention_layernorm": None,
        "pre_feedforward_layernorm": "mlp",
        "post_feedforward_layernorm": None,
        "norm": None,
    }


@pytest.mark.parametrize(
    "make", [llama, lambda: AutoModelForCausalLM.from_config(GPT2Config(n_layer=2, n_embd=64, n_head=2))]
)
def test_linear_weights_get_noise_and_the_head_does_not(make: Callable[[], Any]) -> None:
    model = make().train()
    before = state(model)
    with Injector(model, make_rin({0: 1.0, 1: 1.0}, target="linear", **CONSTANT)).applied(0, 2):
        changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    kinds = ("_proj.weight", "c_attn.weight", "c_proj.weight", "c_fc.weight")
    assert changed == {n for n in before if n.endswith(kinds)}


def test_a_stream_changes_copies_only_and_equals_the_injector() -> None:
    model, config = llama(), make_rin({0: 1.0, 1: 1.3}, **CONSTANT)
    before = state(model)
    pushed = dict(NoisyStream(model, config, seed=4).wrap(model.named_parameters(), 3, 9))
    assert same(model, before)
    with Injector(model, config, seed=4).applied(3, 9):
        assert same(model, {name: p.detach() for name, p in pushed.items()})
    assert not torch.equal(pushed["model.norm.weight"], before["model.norm.weight"])


def test_a_stream_without_the_targets_is_an_error() -> None:
    model = llama()
    stream = NoisyStream(model, make_rin({0: 1.0, 1: 1.0}, **CONSTANT))
    adapters = [("model.layers.0.self_attn.q_proj.lora_A.weight", torch.ones(2, 2))]
    with pytest.raises(NoiseError, match="5 of 5 weights that should carry noise were not in the stream"):
        list(stream.wrap(adapters, 3, 9))


class Saved(nn.Module):
    """As PEFT wraps a module of `modules_to_save`: the adapter's copy computes, the original is kept beside it."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original_module = original
        self.modules_to_save = nn.ModuleDict({"default": copy.deepcopy(original), "other": copy.deepcopy(original)})
        self.active_adapter, self.disable_adapters = ["default"], False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.modules_to_save["default"](x)


def test_of_pefts_copies_the_one_in_use_gets_the_noise() -> None:
    model = llama()
    layer = model.model.layers[0]
    layer.input_layernorm = Saved(layer.input_layernorm)
    layer.self_attn.q_proj.lora_A = nn.ModuleDict({"default": nn.Linear(512, 4)})
    config = make_rin({0: 1.0, 1: 1.0}, target="both", **CONSTANT)
    paths = [target.path for target in find_targets(model, config)]
    assert "model.layers.0.input_layernorm.modules_to_save.default.weight" in paths
    assert not [path for path in paths if "original_module" in path or "other" in path or "lora" in path]
    plain = {target.name for target in find_targets(llama(), config)}
    assert {target.name for target in find_targets(model, config)} == plain
    layer.input_layernorm.disable_adapters = True
    paths = [target.path for target in find_targets(model, config)]
    assert "model.layers.0.input_layernorm.original_module.weight" in paths


def test_the_copies_that_peft_trains_keep_their_own_multipliers() -> None:
    model, bare = llama(), llama()
    for layer in model.model.layers:
        layer.input_layernorm = Saved(layer.input_layernorm)
    config = make_rin({0: 1.0, 1: 1.0}, norm_multipliers={"attention": {0: 0.5, 1: 2.0}}, **CONSTANT)
    tokens = torch.arange(8)[None]
    with Injector(model, config).applied(0, 3) as injection, Injector(bare, config).applied(0, 3):
        assert sorted(row.sigma for row in injection.touched) == pytest.approx([0.025, 0.05, 0.05, 0.05, 0.1])
        assert torch.equal(model(tokens).logits, bare(tokens).logits)


def test_norms_inside_wrappers_are_known_by_their_place() -> None:
    class Fsdp(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self._fsdp_wrapped_module = module

    model = llama()
    first, second = model.model.layers
    first.input_layernorm = Fsdp(first.input_layernorm)
    second.post_attention_layernorm = Saved(second.post_attention_layernorm)
    found = {t.name: t.norm for t in find_targets(model, make_rin({0: 1.0, 1: 1.0}))}
    assert found == {t.name: t.norm for t in find_targets(llama(), make_rin({0: 1.0, 1: 1.0}))}
    assert found["model.layers.0.input_layernorm.weight"] == "attention"
    assert found["model.layers.1.post_attention_layernorm.weight"] == "mlp"
