"""LoRA adapters from folders that PEFT wrote, against what PEFT itself computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_adapters import IDS, saved, tiny_model, with_adapter
from torch import nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel

import srdd
from srdd.documents.report import Report
from srdd.errors import SourceError
from srdd.models.adapted_files import adapted_files
from srdd.models.checkpoint_sites import checkpoint_sites
from srdd.models.fake import fake_quantize
from srdd.models.files.adapter import open_adapter
from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.source import open_model


def llama() -> nn.Module:
    return tiny_model()


def llama_in_16_bit() -> nn.Module:
    return tiny_model(torch.bfloat16)


def gpt2() -> nn.Module:
    """Its Linears are Conv1Ds, stored [in, out]."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()


def gemma() -> nn.Module:
    """Its embeddings are scaled inside, and tied to its head."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return Gemma3ForCausalLM(Gemma3TextConfig(**sizes, **heads)).eval()


PATTERNS = {"rank_pattern": {"q_proj": 8, r"layers\.1\..*down_proj": 2}, "alpha_pattern": {"v_proj": 32}}
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "plain": (llama, {}),
    "16 bit": (llama_in_16_bit, {}),
    "dora": (llama, {"use_dora": True}),
    "dora in 16 bit": (llama_in_16_bit, {"use_dora": True}),
    "rslora and patterns": (llama, {"use_rslora": True, **PATTERNS}),
    "trained whole": (llama, {"modules_to_save": ["lm_head", "norm"]}),
    "head": (llama, {"target_modules": ["lm_head", "o_proj"]}),
    "Conv1D": (gpt2, {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "Conv1D, dora": (gpt2, {"target_modules": ["c_attn"], "use_dora": True, "fan_in_fan_out": True}),
    "Conv1D, biases": (gpt2, {"target_modules": ["c_attn"], "bias": "all", "fan_in_fan_out": True}),
    "bias of B": (gpt2, {"target_modules": ["c_attn"], "lora_bias": True, "fan_in_fan_out": True}),
    "embedding": (llama, {"target_modules": ["embed_tokens", "q_proj"]}),
    "scaled embedding": (gemma, {"target_modules": ["embed_tokens", "q_proj"]}),
}
TIED = {"scaled embedding"}  # an adapter of a weight that two modules share cannot be merged


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Path, Any]:
    """Name, the base's folder, the adapter's, and the model inside PEFT. Adapters add about a tenth of a weight."""
    build, config = CASES[request.param]
    model = build()
    model.save_pretrained(tmp_path / "base")  # type: ignore[operator]
    wrapped = with_adapter(model, **config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name or "lora_embedding_B" in name:
                parameter.mul_(0.1)
            elif "magnitude" in name:
                parameter.mul_(1.25)
            elif "modules_to_save" in name:
                parameter.add_(0.01)
    return request.param, tmp_path / "base", saved(wrapped, tmp_path / "adapter", tmp_path / "base"), wrapped


def scanned(base: Path, adapter: Path, form: Any) -> Report:
    checkpoint = open_checkpoint(str(base))
    on_it = adapted_files(checkpoint, checkpoint_sites(checkpoint), open_adapter(str(adapter)), form)
    return srdd.scan_checkpoint(on_it, ["mxfp4", "nvfp4"], backend="eager")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits.float()  # type: ignore[no-any-return]


def test_apart_the_model_gives_what_peft_gives(case: tuple[str, Path, Path, Any]) -> None:
    name, base, adapter, wrapped = case
    opened = open_model(str(adapter))
    plain = open_model(str(base))
    tolerance = 2e-2 if "16 bit" in name else 1e-5
    assert torch.allclose(logits(opened.model), logits(wrapped), atol=tolerance)
    assert not torch.allclose(logits(plain.model), logits(wrapped), atol=2 * tolerance)
    assert [n for n, _ in opened.model.named_modules()] == [n for n, _ in plain.model.named_modules()]
    assert opened.identity.id == "base + adapter"
    assert opened.identity.parameter_count == plain.identity.parameter_count


def test_merged_weights_are_those_that_peft_exports(case: tuple[str, Path, Path, Any], tmp_path: Path) -> None:
    """To float32 rounding, in a model and in files."""
    name, base, adapter, wrapped = case
    if name in TIED:
        with pytest.raises(SourceError, match=r"model\.embed_tokens, whose weight in base is .* adapter_as=apart"):
            open_model(str(adapter), adapter_as="merged")
        return
    merged = copy.deepcopy(wrapped).merge_and_unload()
    opened = open_model(str(base), adapter=str(adapter), adapter_as="merged")
    theirs = dict(merged.named_parameters())
    for parameter, tensor in opened.model.named_parameters():
        if "dora" in name:  # PEFT takes the norm in other steps
            step = 2**-7 if "16 bit" in name else 2**-20
            assert torch.allclose(tensor, theirs[parameter], rtol=step, atol=1e-9), parameter
        else:
            assert torch.allclose(tensor, theirs[parameter], rtol=2**-22, atol=1e-9), parameter
    merged.save_pretrained(tmp_path / "merged")
    wanted = srdd.scan_checkpoint(open_checkpoint(str(tmp_path / "merged")), ["mxfp4", "nvfp4"], backend="eager")
    found = scanned(base, adapter, "merged")
    assert [site.name for site in found.sites] == [site.name for site in wanted.sites]
    for mine, other in zip(found.sites, wanted.sites, strict=True):
        assert (mine.role, mine.layer, mine.group, mine.shape) == (other.role, other.layer, other.group, other.shape)
        for spec, measured in mine.formats.items():
            for metric in ("sqnr_db", "relative_error"):
                assert measured.value(metric) == pytest.approx(other.formats[spec].value(metric), rel=2e-3), mine.name


def test_apart_weights_are_those_of_the_base(case: tuple[str, Path, Path, Any]) -> None:
    name, base, adapter, _ = case
    plain = srdd.scan_checkpoint(open_checkpoint(str(base)), ["mxfp4", "nvfp4"], backend="eager")
    found = scanned(base, adapter, "apart")
    own = {"lm_head"} if name == "trained whole" else set()
    mine = {site.name: site for site in found.sites}
    assert {site.name for site in plain.sites if mine[site.name] != site} == own
    beside = [row for row in found.coverage.skipped if row.reason.startswith("adapter:")]
    assert sum(row.parameters for row in beside) == found.coverage.parameters - plain.coverage.parameters > 0


def test_apart_the_quantized_module_has_the_adapter_in_full(tmp_path: Path) -> None:
    """Q(W) Q(x) + s B A x, computed by hand for one Linear: the adapter sees the input as it is."""
    model = tiny_model()
    model.save_pretrained(tmp_path / "base")
    saved(wrapped := with_adapter(model), tmp_path / "adapter", tmp_path / "base")
    inside = wrapped.base_model.model.model.layers[1].mlp.down_proj
    a, b = inside.lora_A["default"].weight, inside.lora_B["default"].weight
    opened = open_model(str(tmp_path / "adapter"))
    linear = opened.model.model.layers[1].mlp.down_proj
    x = torch.randn(2, 5, 96)
    qw, qx = srdd.quant_dequant(linear.weight.detach(), "mxfp4"), srdd.quant_dequant(x, "mxfp4")
    with fake_quantize(opened.model, "mxfp4"), torch.no_grad():
        assert torch.allclose(linear(x), qx @ qw.T + 2.0 * (x @ a.T @ b.T), atol=1e-5)  # alpha / r = 8 / 4


def test_a_base_whose_files_have_other_names(tmp_path: Path) -> None:
    """GPT-2's own files have no "transformer." before their names; its adapters do."""
    model = gpt2()
    model.transformer.save_pretrained(tmp_path / "base")  # type: ignore[operator, union-attr]
    config = tmp_path / "base" / "config.json"
    config.write_text(config.read_text().replace("GPT2Model", "GPT2LMHeadModel"))
    wrapped = with_adapter(model, target_modules=["c_attn", "wte"], modules_to_save=["ln_f"], fan_in_fan_out=True)
    adapter = saved(wrapped, tmp_path / "adapter", tmp_path / "base")
    names = [site.name for site in scanned(tmp_path / "base", adapter, "merged").sites]
    assert "transformer.h.0.attn.c_attn" in names
    part = scanned(tmp_path / "base", adapter, "merged").adapter
    assert part is not None
    assert {row.name for row in part.survival} == {f"transformer.h.{i}.attn.c_attn" for i in range(2)}


def test_files_and_model_agree(case: tuple[str, Path, Path, Any]) -> None:
    name, base, adapter, _ = case
    for form in ("apart",) if name in TIED else ("apart", "merged"):
        opened = open_model(str(base), adapter=str(adapter), adapter_as=form)
        live = srdd.scan(opened.model, formats=["mxfp4", "nvfp4"], sites="weight", backend="eager")
        files = scanned(base, adapter, form)
        assert files.sites == live.sites


def test_survival_against_brute_force(case: tuple[str, Path, Path, Any]) -> None:
    """From what PEFT calls its delta, in float64 and by the words of srdd.core.adapters."""
    name, base, adapter, wrapped = case
    if name in TIED:
        return
    part = scanned(base, adapter, "apart").adapter
    assert part is not None
    before = dict(open_model(str(base)).model.named_parameters())
    after = dict(copy.deepcopy(wrapped).merge_and_unload().named_parameters())
    changed = {row.name for row in part.survival}
    assert len(changed) == len([module for module in open_adapter(str(adapter)).factors if "embed" not in module])
    for row in part.survival:
        w, new = (parameters[f"{row.name}.weight"].detach().float() for parameters in (before, after))
        w, new = (w.T, new.T) if "Conv1D" in name or name == "bias of B" else (w, new)
        p = (srdd.quant_dequant(new.contiguous(), row.format) - srdd.quant_dequant(w.contiguous(), row.format)).double()
        d = (new - w).double()  # rounded to the weight's type; the report's is not
        loose = 5e-2 if "16 bit" in name else 2e-2 if "dora" in name else 1e-3
        assert row.survival == pytest.approx(float((p * d).sum() / (d * d).sum()), rel=loose)
        assert row.relative_error == pytest.approx(float((p - d).norm() / d.norm()), rel=loose)
        assert row.relative_size == pytest.approx(float(d.norm() / new.norm()), rel=loose)
        assert row.moved / row.n == pytest.approx(float((p != 0).double().mean()), rel=loose)
