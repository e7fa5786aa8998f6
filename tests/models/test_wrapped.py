"""Models inside PEFT: sites, costs and fake quantization are those of the model, and adapters stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_adapters import IDS, tiny_model, with_adapter
from torch import nn
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

import srdd
from srdd.analysis import compare
from srdd.core.formats import parse
from srdd.errors import SiteError
from srdd.kernels import quant_dequant
from srdd.models.fake import fake_quantize
from srdd.models.sites import find_sites
from srdd.models.wrapped import bare, named_modules

KINDS_OF_ADAPTERS: list[dict[str, Any]] = [
    {},
    {"use_dora": True},
    {"target_modules": "all-linear", "bias": "all"},
    {"target_modules": ["q_proj", "embed_tokens"]},
    {"modules_to_save": ["lm_head", "norm"]},
    {"trainable_token_indices": [3, 4]},
]


@pytest.mark.parametrize("config", KINDS_OF_ADAPTERS, ids=lambda config: ",".join(config) or "plain")
def test_sites_are_those_of_the_model(config: dict[str, Any]) -> None:
    model = tiny_model()
    wrapped = with_adapter(model, **config)
    base, found = find_sites(model), find_sites(wrapped)
    assert found.sites == base.sites, "names, roles, layers, fusion groups, sizes and places"
    assert found.parameters == sum(p.numel() for p in wrapped.parameters())
    assert found.parameters - found.beside == base.parameters
    beside = [row for row in found.skipped if row.reason.startswith(("adapter:", "replaced by"))]
    assert sum(row.parameters for row in beside) == found.beside > 0
    rest = [row for row in found.skipped if row not in beside]
    assert {row.name: row.reason for row in rest} == {row.name: row.reason for row in base.skipped}


def test_names_of_a_model_without_adapters_are_its_own() -> None:
    model = tiny_model()
    assert list(named_modules(model)) == list(model.named_modules())
    assert bare(model) is model


def test_of_a_module_trained_whole_the_copy_in_use_is_measured() -> None:
    wrapped = with_adapter(tiny_model(), modules_to_save=["lm_head"])
    with torch.no_grad():
        wrapped.base_model.model.lm_head.modules_to_save["default"].weight.zero_()
    copy = dict(named_modules(wrapped))["lm_head"]
    assert isinstance(copy, nn.Linear)
    assert not copy.weight.any()
    with wrapped.disable_adapter():
        original = dict(named_modules(wrapped))["lm_head"]
        assert isinstance(original, nn.Linear)
        assert original.weight.any()


@pytest.mark.parametrize("mode", ["weight", "both"])
def test_adapters_stay_as_they_are(mode: Any) -> None:
    """Q(W) Q(x) + s B A x, computed by hand for one Linear."""
    wrapped = with_adapter(tiny_model())
    layer = wrapped.base_model.model.model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x = torch.randn(2, 5, 64)
    fmt = parse("mxfp4")
    q, qx = quant_dequant(layer.base_layer.weight.detach(), fmt), quant_dequant(x, fmt)
    wanted = (qx if mode == "both" else x) @ q.T + 2.0 * (x @ a.T @ b.T)  # alpha / r = 8 / 4
    with fake_quantize(wrapped, "mxfp4", mode) as handle, torch.no_grad():
        assert torch.allclose(layer(x), wanted, atol=1e-5)
    assert "model.layers.0.self_attn.q_proj" in handle.modules
    assert not [name for name in (*handle.modules, *handle.left_out) if "lora" in name or "base_" in name]
    assert handle.left_out == ("lm_head",)


def test_an_adapter_that_adds_nothing_costs_nothing() -> None:
    """B is zero, as PEFT starts: report and costs are the model's, and the two compare."""
    model = tiny_model()
    wrapped = with_adapter(model, init_lora_weights=True)
    base, new = (srdd.scan(m, IDS, "mxfp4", costs="predicted", backend="eager") for m in (model, wrapped))
    assert base.costs is not None
    assert new.costs is not None
    assert new.sites == base.sites
    for table in ("layers", "groups", "linears", "whole", "sensitivities"):
        assert getattr(new.costs, table) == getattr(base.costs, table), table
    assert (new.model.architecture, new.model.parameter_count) == (base.model.architecture, base.model.parameter_count)
    assert all(row.change == 0 for row in compare(base, new, "weight", "mxfp4:even", "sqnr_db").layers)


def test_measured_costs_of_a_model_with_adapters() -> None:
    wrapped = with_adapter(tiny_model(), use_dora=True)
    costs = srdd.measure_impact(wrapped, IDS, "mxfp4", "both", how=("predicted", "layers", "groups")).costs
    assert costs is not None
    assert [row.layer for row in costs.layers] == [0, 1]
    assert all(row.measured_kl is not None and row.measured_kl.value > 0 for row in costs.layers)
    assert {row.module for row in costs.linears} == {s.name for s in find_sites(tiny_model()).of("weight")} - {
        "lm_head"
    }


def test_experts_with_an_adapter_of_their_own_are_refused() -> None:
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **heads, num_hidden_layers=2, decoder_sparse_step=1))
    wrapped = with_adapter(model, target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"])
    assert find_sites(wrapped).sites == find_sites(model).sites
    line = r"model\.layers\.0\.mlp\.experts: PEFT adds the adapter .* \(target_parameters\).* merge the adapter first"
    with pytest.raises(SiteError, match=line):
        fake_quantize(wrapped, "mxfp4")
    assert fake_quantize(wrapped, "mxfp4", exclude="*experts").weights == 8
