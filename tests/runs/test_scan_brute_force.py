"""The scan of tiny models against a brute force written apart from it: own hooks, own numpy arithmetic in float64."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.pytorch_utils import Conv1D

import srdd
from srdd.errors import SiteError
from srdd.models.checkpoint_sites import checkpoint_sites
from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.selection import Selection
from srdd.models.sites import find_sites

SMALL = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}


def build(name: str) -> nn.Module:
    torch.manual_seed(7)
    models = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2)),
        "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SMALL, num_key_value_heads=1, head_dim=16)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=64, n_layer=3, n_head=4, n_positions=64)),
        "bert": lambda: BertModel(BertConfig(**SMALL, max_position_embeddings=64)),
        "mixtral": lambda: MixtralForCausalLM(
            MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2)
        ),
    }
    return models[name]().eval()


def tokens(rows: int = 4, length: int = 24) -> torch.Tensor:
    return torch.randint(0, 96, (rows, length), generator=torch.Generator().manual_seed(3))


GRID = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def mxfp4_floor(row: np.ndarray) -> dict[str, float]:
    """One row of float64 values through mxfp4:floor, block by block, by search in the table of values."""
    sums = dict.fromkeys(("n", "nonzero", "deadzone", "clipped", "sum_x2", "sum_e2", "sum_rel", "sum_xq"), 0.0)
    for start in range(0, len(row), 32):
        block = row[start : start + 32]
        amax = np.abs(block).max()
        scale = 2.0 ** (math.frexp(amax)[1] - 1 - 2) if amax else 1.0
        y = np.abs(block) / scale
        distance = np.abs(y[:, None] - GRID[None, :])
        nearest = distance.argmin(axis=1)
        tie = (nearest + 1 < len(GRID)) & (
            distance[np.arange(len(y)), np.minimum(nearest + 1, 7)] == distance[np.arange(len(y)), nearest]
        )
        nearest = np.where(tie & (nearest % 2 == 1), nearest + 1, nearest)  # ties to the even code
        q = np.sign(block) * GRID[nearest] * scale
        e = q - block
        nonzero = block != 0
        sums["n"] += len(block)
        sums["nonzero"] += nonzero.sum()
        sums["deadzone"] += (nonzero & (q == 0)).sum()
        sums["clipped"] += (y > 6).sum()
        sums["sum_x2"] += (block**2).sum()
        sums["sum_e2"] += (e**2).sum()
        sums["sum_rel"] += (np.abs(e[nonzero]) / np.abs(block[nonzero])).sum()
        sums["sum_xq"] += (block * q).sum()
    return sums


def brute_force(x: torch.Tensor) -> dict[str, float]:
    rows = x.detach().float().double().reshape(-1, x.shape[-1]).numpy()
    merged: dict[str, float] = {}
    for row in rows:
        for key, value in mxfp4_floor(row).items():
            merged[key] = merged.get(key, 0.0) + float(value)
    return merged


def captured(model: nn.Module, ids: torch.Tensor) -> dict[tuple[str, str], torch.Tensor]:
    """Inputs of all Linears and Conv1Ds, and outputs of the layers, of one plain pass."""
    seen: dict[tuple[str, str], torch.Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, args, name=name: seen.__setitem__(("input", name), args[0].clone())
                )
            )
        if name.split(".")[-1].isdigit() and "expert" not in name:
            handles.append(
                module.register_forward_hook(
                    lambda m, args, out, name=name: seen.__setitem__(
                        ("output", name), (out[0] if isinstance(out, tuple) else out).clone()
                    )
                )
            )
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    return seen


def check(found: srdd.Report, kind: str, name: str, expected: dict[str, float]) -> None:
    site = next(s for s in found.sites if s.kind == kind and s.name == name)
    tally = dict(zip(found.tally_fields, site.formats["mxfp4:floor"].tally, strict=True))
    for key in ("n", "nonzero", "deadzone", "clipped"):
        assert tally[key] == expected[key], (kind, name, key)
    for key in ("sum_x2", "sum_e2", "sum_rel", "sum_xq"):
        # float32 partial sums of blocks against float64: the contract is 1e-6
        assert tally[key] == pytest.approx(expected[key], rel=1e-6), (kind, name, key)


@pytest.mark.parametrize("backend", ["reference", "eager"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma", "gpt2", "bert", "mixtral"])
def test_equals_brute_force(name: str, backend: str) -> None:
    model, ids = build(name), tokens()
    report = srdd.scan(model, ids, formats="mxfp4:floor", backend=backend, batch_size=3)
    expected = captured(model, ids)
    measured = {(s.kind, s.name) for s in report.sites}
    shared = {member for s in report.sites for member in s.members}
    for (kind, module), x in expected.items():
        if (kind, module) in measured:
            check(report, kind, module, brute_force(x))
        else:
            assert module in shared, f"{kind} {module} is neither measured nor shared"
    modules = dict(model.named_modules())
    for site in (s for s in report.sites if s.kind == "weight"):
        if site.name in modules:
            weight = modules[site.name].weight
            turned = weight.T if isinstance(modules[site.name], Conv1D) else weight
            check(report, "weight", site.name, brute_force(turned.detach()))


def fp8_noise(x: torch.Tensor, rows: int, columns: int) -> float:
    """sum_e2 of a matrix in tiles under float32 scales amax / 448, by torch's own cast."""
    noise = 0.0
    for part in (p for strip in x.split(rows) for p in strip.split(columns, dim=1)):
        scale = part.abs().max() / 448
        q = (part / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
        noise += float(((q.double() - part.double()) ** 2).sum())
    return noise


@pytest.mark.parametrize("backend", ["reference", "eager"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_fp8_scales_tensors_rows_and_tiles(name: str, backend: str) -> None:
    """Tiles are 128 x 128 in weights and 1 x 128 in activations; a tensor is one sequence at one site."""
    torch.manual_seed(8)
    wide = {**SMALL, "hidden_size": 160, "intermediate_size": 200, "num_hidden_layers": 1}
    gpt2 = GPT2Config(vocab_size=96, n_embd=160, n_layer=1, n_head=4, n_positions=64)
    model = (LlamaForCausalLM(LlamaConfig(**wide)) if name == "llama" else GPT2LMHeadModel(gpt2)).eval()
    ids = tokens()
    report = srdd.scan(model, ids, formats="fp8,fp8_channel,fp8_block", backend=backend, batch_size=3)
    seen, modules, whole = captured(model, ids), dict(model.named_modules()), 10**6
    for site in report.sites:
        if site.kind == "weight":
            module = modules[site.name]
            parts = [module.weight.detach().T if isinstance(module, Conv1D) else module.weight.detach()]
            tiles = {"fp8": (whole, whole), "fp8_channel": (1, whole), "fp8_block": (128, 128)}
        else:
            parts = list(seen[site.kind, site.name])
            tiles = {"fp8": (whole, whole), "fp8_channel": (1, whole), "fp8_block": (1, 128)}
        for fmt, tile in tiles.items():
            got = dict(zip(report.tally_fields, site.formats[f"{fmt}:amax"].tally, strict=True))["sum_e2"]
            assert got == pytest.approx(sum(fp8_noise(part, *tile) for part in parts), rel=1e-6), (site.name, fmt)
        ragged = parts[0].shape[-1] % 128 > 0
        assert any("in fp8_block: " in note for note in site.notes) == ragged, "fp8 and fp8_channel have no multiple"


def test_fused_experts_are_measured_per_matrix_and_counted() -> None:
    model, ids = build("mixtral"), tokens()
    report = srdd.scan(model, ids, formats="mxfp4:floor")
    name = "model.layers.0.mlp.experts"
    weight = model.get_submodule(name).gate_up_proj
    check(report, "weight", f"{name}.gate_up_proj", brute_force(weight.detach().reshape(-1, weight.shape[-1])))
    assert any(s.kind == "input" and s.name == name for s in report.sites)


def test_expert_without_tokens_is_listed_not_averaged_in() -> None:
    model, ids = build("mixtral"), tokens()
    for layer in model.model.layers:
        layer.mlp.gate.weight.data.zero_()
        layer.mlp.gate.weight.data[:2] = 1e-3 * torch.randn(2, 64, generator=torch.Generator().manual_seed(0)).abs()

    def never_third(module: nn.Module, args: tuple, output: tuple) -> tuple:
        logits, weights, index = output
        return logits, weights, torch.where(index == 3, 0, index)

    handles = [layer.mlp.gate.register_forward_hook(never_third) for layer in model.model.layers]
    report = srdd.scan(model, ids, formats="mxfp4")
    for handle in handles:
        handle.remove()
    assert "model.layers.1.mlp.experts.3" in report.coverage.uncovered
    assert any("no tokens" in warning for warning in report.warnings)


def test_every_parameter_is_measured_or_listed_with_its_reason() -> None:
    for name in ("llama", "gpt2", "bert", "mixtral"):
        model = build(name)
        report = srdd.scan(model, formats="mxfp4", sites="weight")
        total = sum(p.numel() for p in model.parameters())
        assert report.coverage.parameters == total
        assert report.coverage.measured + sum(s.parameters for s in report.coverage.skipped) == total
        assert all(s.reason and s.reason != "not selected" for s in report.coverage.skipped), name


def test_shared_inputs_are_measured_once() -> None:
    report = srdd.scan(build("llama"), tokens(), formats="mxfp4", sites="input")
    first = [s for s in report.sites if s.layer == 0]
    assert [m.rpartition(".")[2] for s in first for m in (s.members or [s.name])] == [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ]  # fmt: skip
    assert len(first) == 4


def test_hooks_are_gone_and_the_mode_is_restored_even_after_an_error() -> None:
    model = build("llama").train()

    def fail(*_: object) -> None:
        raise RuntimeError("stop here")

    handle = model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(SiteError, match=r"fails on token ids, also without srdd .RuntimeError: stop here"):
        srdd.scan(model, tokens(), formats="mxfp4")
    handle.remove()
    assert model.training
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_sites_that_are_found_already_give_the_same_report(monkeypatch: pytest.MonkeyPatch) -> None:
    model, selection = build("llama"), Selection.parse("weight,input:*down_proj", layers=[0, 2], exclude=["*o_proj"])
    want = srdd.scan(model, tokens(), sites=selection)
    assert (want.settings.kinds, want.settings.selection) == (["weight", "input"], selection.text)
    sites = selection.apply(model)
    monkeypatch.setattr("srdd.models.selection.find_sites", lambda *_: pytest.fail("sites were looked for again"))
    assert srdd.scan(model, tokens(), sites=sites).model_copy(update={"provenance": want.provenance}) == want


def test_found_sites_of_a_checkpoint_give_the_same_report(tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path / "model")
    checkpoint, selection = open_checkpoint(str(tmp_path / "model")), Selection.parse("weight:*mlp*")
    want = srdd.scan_checkpoint(checkpoint, "mxfp4", selection)
    assert (want.settings.kinds, want.settings.selection) == (["weight"], "weight:*mlp*")
    got = srdd.scan_checkpoint(checkpoint, "mxfp4", selection.filter(checkpoint_sites(checkpoint)))
    assert got.model_copy(update={"provenance": want.provenance}) == want


def test_sites_of_another_model_are_refused() -> None:
    with pytest.raises(SiteError, match=r"site\(s\) are not in this model, e\.g\. transformer\.h\.0"):
        srdd.scan(build("llama"), tokens(), sites=find_sites(build("gpt2")))


def test_batch_size_does_not_change_the_report() -> None:
    model, ids = build("llama"), tokens(5)
    one, five = (srdd.scan(model, ids, formats="mxfp4,nvfp4", batch_size=b) for b in (1, 5))
    for a, b in zip(one.sites, five.sites, strict=True):
        for spec in a.formats:
            # a batched matrix product may round its last bit another way, so activations agree closely, not exactly
            assert a.formats[spec].value("sqnr_db") == pytest.approx(b.formats[spec].value("sqnr_db"), abs=1e-3)
