"""Faults are found and named in models of several architectures, and healthy ones give no alarm."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

import srdd
from srdd.core.faults import KINDS, Fault
from srdd.documents.fault import Faults, Finding
from srdd.errors import ReportError, SettingError
from srdd.models.faults import plant
from srdd.runs.faults.self_test import self_tested

IDS = torch.randint(2, 64, (2, 24), generator=torch.Generator().manual_seed(0))
_SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
}  # fmt: skip
_FEW_KEYS = {**_SIZES, "num_key_value_heads": 2}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_SIZES)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=64, n_layer=4, n_head=4)),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**_FEW_KEYS, num_local_experts=4)),
    "qwen3_moe": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**_FEW_KEYS, moe_intermediate_size=32, num_experts=8, num_experts_per_tok=2, head_dim=16)
    ),
    "bert": lambda: BertModel(BertConfig(**_SIZES)),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(vocab_size=64, hidden_size=64, ffn_dim=96, num_hidden_layers=4, num_attention_heads=4,
                  word_embed_proj_dim=64)
    ),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**_FEW_KEYS, head_dim=16)),
}  # fmt: skip


def made(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[name]().eval()


def searched(model: nn.Module, **options: Any) -> Faults:
    return srdd.find_faults(model, IDS, **{"spec": None, "backend": "eager", **options})


def named(found: Faults) -> list[tuple[str, int, str, str]]:
    return [(f.kind, f.layer, f.module, f.at) for f in found.findings]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(MODELS))
def test_healthy_models_give_no_alarm(name: str, dtype: torch.dtype) -> None:
    for seed in range(3):
        assert named(searched(made(name, seed).to(dtype))) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dead_head"])
@pytest.mark.parametrize(
    ("name", "module"),
    [("llama", None), ("llama", "mlp.down_proj"), ("gpt2", None), ("gpt2", "attn.c_attn"), ("mixtral", None),
     ("bert", "output.dense"), ("llama", "self_attn")],
)  # fmt: skip
def test_every_kind_at_an_output_is_named_with_its_place_and_size(name: str, module: str | None, kind: str) -> None:
    size = KINDS[kind].trial_sizes[2 if kind == "deadzone" else 1]
    with plant(model := made(name), Fault(2, kind, size, module)):
        found = searched(model)
    if (
        kind == "absolute_noise" and found.findings[0].confidence == 0.5
    ):  # tokens of one size: it is said not to be known
        assert named(found) == [("noise", 2, module or "", "output")]
        return
    assert named(found) == [(kind, 2, module or "", "output")]
    if kind not in ("stuck", "bit_flip", "deadzone"):  # whose size is a share of places, or a bound of what is seen
        assert found.findings[0].size == pytest.approx(size, rel=0.1)
    assert found.findings[0].confidence > 0.5


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "noise" not in kind])
@pytest.mark.parametrize("module", [None, "self_attn.q_proj", "mlp.down_proj", "mlp"])
def test_every_kind_at_an_input(kind: str, module: str | None) -> None:
    if kind == "dead_head":
        module = "self_attn.o_proj"
    size = KINDS[kind].trial_sizes[-2]
    with plant(model := made("llama"), Fault(1, kind, size, module, "input")):
        assert named(searched(model)) == [(kind, 1, module or "", "input")]


@pytest.mark.parametrize("kind", ["deadzone", "saturation", "bias", "stuck", "dead_channel"])
def test_weights_are_held_against_those_of_other_layers(kind: str) -> None:
    size = {"deadzone": 0.01, "saturation": 0.6, "bias": 0.3, "stuck": 0.1, "dead_channel": 1}[kind]
    with plant(model := made("llama"), Fault(3, kind, size, "mlp.down_proj", "weight")):
        assert (kind, 3, "mlp.down_proj", "weight") in named(searched(model))


@pytest.mark.parametrize("kind", ["noise", "bit_flip", "deadzone", "dead_channel"])
def test_a_reference_shows_what_no_neighbour_does(kind: str) -> None:
    model = made("llama")
    healthy = searched(model)
    assert named(searched(model, reference=healthy)) == []
    size = KINDS[kind].trial_sizes[-1]
    with plant(model, Fault(1, kind, size, "self_attn.v_proj", "weight")):
        found = searched(model, reference=healthy)
    first = found.findings[0]
    assert (first.layer, first.module, first.at) == (1, "self_attn.v_proj", "weight")
    assert first.kind in (kind, "changed")


def test_a_scan_report_as_reference() -> None:
    model = made("llama")
    report = srdd.scan(model, IDS, "mxfp4", "weight", backend="eager")
    assert named(searched(model, reference=report)) == []
    with plant(model, Fault(2, "noise", 0.05, "mlp.up_proj", "weight")):
        assert named(searched(model, reference=report)) == [("changed", 2, "mlp.up_proj", "weight")]


def test_a_reference_that_nothing_can_be_compared_with_is_refused() -> None:
    model = made("llama")
    outputs = srdd.scan(model, IDS, "mxfp4", "output", backend="eager")
    with pytest.raises(ReportError, match="the report holds no weights of these modules; scan with sites=weight"):
        searched(model, reference=outputs)
    other_text = srdd.find_faults(model, IDS.flip(0, 1), depth="layer", spec=None, backend="eager")
    with pytest.raises(ReportError, match="ran another text, type or device; run both with depth=linear"):
        searched(model, reference=other_text, depth="layer")


def test_how_little_is_compared_is_said() -> None:
    model = made("llama")
    other_text = srdd.find_faults(model, IDS.flip(0, 1), spec=None, backend="eager")
    said = "the reference ran another text, type or device: only weights are compared with the reference"
    assert searched(model, reference=other_text).warnings == [said]
    assert searched(model, reference=searched(model)).warnings == []
    report = srdd.scan(model, IDS, "mxfp4", "weight", backend="eager")
    assert searched(model, reference=report).warnings == ["only weights are compared with the reference"]


def test_another_models_reference_is_refused() -> None:
    with pytest.raises(ReportError, match="of another model: its architecture is GPT2LMHeadModel"):
        searched(made("llama"), reference=searched(made("gpt2")))


def test_another_device_agrees_but_for_the_broken_layer() -> None:
    model = made("llama")
    other = copy.deepcopy(model)
    healthy = searched(model, against=other)
    assert [row.agreement for row in healthy.modules if not row.module] == [0.0] * 4
    with plant(model, "layer=2,bias=0.01"):
        broken = searched(model, against=other)
    off = [row.agreement for row in broken.modules if not row.module]
    assert off[2] == pytest.approx(0.01, rel=0.05)
    assert off[:2] + off[3:] == [0.0] * 3


def test_a_norm_that_other_hardware_breaks_is_seen_against_another_device() -> None:
    model = made("llama")
    other = copy.deepcopy(model)
    with plant(model, "layer=1,module=post_attention_layernorm,bias=0.1"):
        assert named(searched(model, against=other)) == [("disagreement", 1, "", "output")]


def test_hooks_of_others_are_seen() -> None:
    model = made("llama")
    model.model.layers[1].register_forward_hook(lambda m, args, y: torch.where(y.abs() < 1e-3, 0.0, y))
    assert named(searched(model)) == [("deadzone", 1, "", "output")]
    model = made("llama")
    model.model.layers[3].mlp.register_forward_hook(lambda m, args, y: y * float("nan"))
    assert named(searched(model))[0] == ("nonfinite", 3, "mlp", "output")


def test_two_faults() -> None:
    with plant(model := made("gpt2"), "layer=0,noise=0.01", "layer=3,module=mlp.c_proj,saturation=0.5"):
        found = named(searched(model))
    assert found == [("noise", 0, "", "output"), ("saturation", 3, "mlp.c_proj", "output")]


def test_gains_break_where_a_deadzone_begins() -> None:
    model = made("llama")
    row = next(row for row in searched(model).modules if row.kind == "linear")
    assert max(row.gains) / min(row.gains) < 1.001
    with plant(model, "layer=0,deadzone=0.9,module=self_attn.q_proj"):
        row = next(row for row in searched(model).modules if row.module == "self_attn.q_proj")
    assert max(row.gains) / min(row.gains) > 1.01


def test_the_studys_criterion_stands_beside() -> None:
    with plant(model := made("llama"), "layer=2,deadzone=0.01"):
        found = searched(model, spec="mxfp4")
    assert found.criterion is not None
    assert found.criterion.format == "mxfp4:even"
    assert 2 in {*found.criterion.flagged, *found.criterion.missed}
    assert searched(model).criterion is None


def test_depth_layer_looks_at_layers_and_their_parts() -> None:
    with plant(model := made("llama"), "layer=2,bias=0.1"):
        found = searched(model, depth="layer")
    assert named(found) == [("bias", 2, "", "output")]
    assert all(not row.gains for row in found.modules if row.module)
    with pytest.raises(SettingError, match="expected layer or linear"):
        searched(model, depth="deep")


def test_the_document_is_read_again_and_the_model_is_as_before() -> None:
    model = made("llama").train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    found = searched(model)
    assert Faults.from_tree(found.model_dump(mode="json"), "x") == found
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    again = searched(model)
    assert again.modules == found.modules


def test_the_self_test_finds_what_it_plants() -> None:
    trials = self_tested(made("llama"), IDS)
    assert (trials[0].planted, trials[0].found) == ("none", "")
    assert {t.planted for t in trials} == {"none", *KINDS}
    located = [t for t in trials[1:] if t.is_located]
    assert len(located) >= 0.9 * (len(trials) - 1)
    assert Finding.model_fields.keys() >= {"kind", "layer", "module", "size", "confidence"}
