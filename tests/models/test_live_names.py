"""A checkpoint's files and the model that is opened from them: the same names, layers, shapes and sums."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    NemotronHConfig,
    NemotronHForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

import srdd
from srdd.analysis import find_multipliers
from srdd.analysis.comparison.gate import check
from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.live_names import live_sites, model_without_memory
from srdd.models.source import open_model
from srdd.noise import Injector

SMALL: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
FORMATS = ["mxfp4", "nvfp4", "mxfp4_2d"]


def nemotron_h() -> nn.Module:
    mamba = {"mamba_num_heads": 4, "mamba_head_dim": 32, "ssm_state_size": 16, "n_groups": 1, "chunk_size": 8}
    return NemotronHForCausalLM(NemotronHConfig(**SMALL, hybrid_override_pattern="M*", **mamba))


def qwen3_vl() -> nn.Module:
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    vision = {"depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
    ids = {"image_token_id": 120, "video_token_id": 121, "vision_start_token_id": 122, "vision_end_token_id": 123}
    vision |= {"patch_size": 8, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
    text = {**SMALL, "rope_scaling": rope}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **ids))


def deepseek() -> nn.Module:
    ranks = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
    routing = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_group": 1}
    config = {**SMALL, "num_key_value_heads": 4, "first_k_dense_replace": 1, "topk_group": 1, **ranks, **routing}
    return DeepseekV3ForCausalLM(DeepseekV3Config(**config))


def gemma3() -> nn.Module:
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    pictures = {**vision, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=SMALL, vision_config=pictures, mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config)


def qwen3_next() -> nn.Module:
    heads = {f"linear_{name}": 2 for name in ("num_key_heads", "num_value_heads")}
    heads |= {f"linear_{name}": 16 for name in ("key_head_dim", "value_head_dim")}
    shared = {"shared_expert_intermediate_size": 32, "decoder_sparse_step": 1}
    return Qwen3NextForCausalLM(Qwen3NextConfig(**SMALL, **EXPERTS, **heads, **shared))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "llama, tied": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=True)),
    "qwen3_moe": lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**SMALL, **EXPERTS)),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=4)),
    "gpt_oss": lambda: GptOssForCausalLM(GptOssConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_embd=64, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    ),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=64, d_model=64, d_kv=16, d_ff=64, num_layers=2, num_heads=4)
    ),
    "nemotron_h": nemotron_h,
    "qwen3_vl": qwen3_vl,
    "deepseek_v3": deepseek,
    "gemma3": gemma3,
    "qwen3_next": qwen3_next,
}


@pytest.mark.parametrize("name", MODELS)
def test_files_and_model_are_the_same_rows(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    MODELS[name]().bfloat16().save_pretrained(tmp_path)
    stored = srdd.scan_checkpoint(open_checkpoint(str(tmp_path)), FORMATS, backend="eager")
    opened = open_model(str(tmp_path))
    live = srdd.scan(opened.model, formats=FORMATS, sites="weight", backend="eager", identity=opened.identity)
    assert [site.name for site in stored.sites] == [site.name for site in live.sites]
    for file, model in zip(stored.sites, live.sites, strict=True):
        for fact in ("layer", "role", "group", "index", "shape", "transposed", "notes", "beside_text"):
            assert getattr(file, fact) == getattr(model, fact), (file.name, fact)
        assert file.order_sum == pytest.approx(model.order_sum, rel=1e-5, abs=1e-5)
        for spec, measured in file.formats.items():
            other = model.formats[spec]
            # experts that are stored apart are read in other pieces, which sums are added by
            assert measured.tally == pytest.approx(other.tally, rel=1e-9), (file.name, spec)
            assert measured.blocks == other.blocks, (file.name, spec)
    for fact in ("architecture", "layer_count", "parameter_count", "weights_hash"):
        assert getattr(stored.model, fact) == getattr(live.model, fact)
    verdict = check(live, stored)
    assert verdict.passed
    assert verdict.problems == []


@pytest.mark.parametrize("place", ["model.layers.2", "mtp.layers.0"])
def test_heads_that_predict_further_stand_beside_the_layers(place: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).bfloat16()
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    further = {k.replace("model.layers.1", place): v.clone() for k, v in tensors.items() if ".layers.1." in k}
    further[f"{place}.eh_proj.weight"] = torch.randn(64, 128).bfloat16()
    save_file({**tensors, **further}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    stored = srdd.scan_checkpoint(open_checkpoint(str(tmp_path)), "mxfp4", backend="eager")
    beside = [site for site in stored.sites if site.beside_text]
    assert {site.name.removeprefix(f"{place}.") for site in beside} == {
        *(f"self_attn.{role}_proj" for role in "qkvo"),
        *(f"mlp.{role}_proj" for role in ("gate", "up", "down")),
        "eh_proj",
    }
    assert {site.layer for site in beside} == {None}
    assert stored.model.layer_count == 2
    opened = open_model(str(tmp_path))
    live = srdd.scan(opened.model, formats="mxfp4", sites="weight", backend="eager", identity=opened.identity)
    verdict = check(live, stored)
    assert verdict.passed
    assert f"8 weight site(s) beside the text model are in one report only: {place}.eh_proj ..." in verdict.notes
    config, _ = find_multipliers(stored, kind="weight")
    assert Injector(LlamaForCausalLM(LlamaConfig(**SMALL)).train(), config, seed=0)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "nobody_knows"},
        {"model_type": "llama", "hidden_size": "wide"},
        {"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "modeling.Llama"}},
        {"model_type": ["llama"]},
    ],
)
def test_what_no_model_can_be_built_of(config: dict[str, Any]) -> None:
    assert model_without_memory(config) is None


def test_of_another_size_the_names_are_those_of_the_files(tmp_path: Path) -> None:
    Qwen3MoeForCausalLM(Qwen3MoeConfig(**SMALL, **EXPERTS)).save_pretrained(tmp_path)
    assert live_sites(open_checkpoint(str(tmp_path))) is not None
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "moe_intermediate_size": 64}))
    assert live_sites(open_checkpoint(str(tmp_path))) is None
    report = srdd.scan_checkpoint(open_checkpoint(str(tmp_path)), "mxfp4", backend="eager")
    assert any(site.name == "model.layers.0.mlp.experts.0.gate_proj" for site in report.sites)
    assert any(note.startswith("names and layer numbers are those of the files") for note in report.warnings)
