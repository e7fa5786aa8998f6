"""The noisiest block is where a brute-force search finds it; the swing is told beside the SQNR."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import make_report, tally
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

import srdd as package
from srdd.analysis.single_blocks import NoisiestBlock, noisiest_block, sqnr_swing_db
from srdd.documents.report import Report

Run = Callable[..., tuple[int, str, str]]
SPEC = "mxfp4:even"
IDS = torch.randint(0, 64, (3, 24), generator=torch.Generator().manual_seed(1))
SIZES = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


def noises(x: Tensor) -> Tensor:
    """float64 [rows, blocks] of a matrix whose rows are whole blocks."""
    error = package.quant_dequant(x, SPEC).double() - x.double()
    return (error**2).view(len(x), -1, 32).sum(-1)


def place(x: Tensor) -> tuple[int, int]:
    noise = noises(x)
    row, block = divmod(int(noise.argmax()), noise.shape[1])
    return row, 32 * block


@pytest.fixture(scope="module")
def llama() -> tuple[nn.Module, Report]:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[7, 40] = 4.7
    return model, package.scan(model, IDS, SPEC, backend="eager", batch_size=2)


def test_of_weights(llama: tuple[nn.Module, Report]) -> None:
    model, report = llama
    for site in report.sites:
        if site.kind == "weight" and site.layer == 1:
            weight = model.get_submodule(site.name).weight.detach()
            found = noisiest_block(site, SPEC)
            assert found is not None
            assert (found.row, found.column, found.last_column) == (*place(weight), place(weight)[1] + 31), site.name
            noise = noises(weight)
            assert found.share == pytest.approx(float(noise.max() / noise.sum()), rel=1e-5)
    up = next(s for s in report.sites if s.kind == "weight" and s.name == "model.layers.1.mlp.up_proj")
    assert str(noisiest_block(up, SPEC).text) == "row 7, columns 32-63"  # type: ignore[union-attr]


def test_of_activations(llama: tuple[nn.Module, Report]) -> None:
    model, report = llama
    seen: list[Tensor] = []
    hook = model.model.layers[0].mlp.down_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.no_grad():
        model(IDS)
    hook.remove()
    noise = noises(seen[0].flatten(0, 1)).view(3, 24, -1)
    sequence, token, block = (int(i) for i in torch.unravel_index(noise.argmax(), noise.shape))
    site = next(s for s in report.sites if s.kind == "input" and s.name == "model.layers.0.mlp.down_proj")
    found = noisiest_block(site, SPEC)
    assert found is not None
    assert (found.sequence, found.row, found.column) == (sequence, token, 32 * block)
    assert found.text == f"sequence {sequence}, token {token}, channels {32 * block}-{32 * block + 31}"


def test_of_transposed_weights_and_of_experts() -> None:
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=64, n_layer=1, n_head=4, n_positions=32)).eval()
    report = package.scan(gpt2, sites="weight", formats=SPEC, backend="eager")
    site = next(s for s in report.sites if s.role == "c_fc")
    found = noisiest_block(site, SPEC)
    assert found is not None
    assert (found.row, found.column) == place(gpt2.get_submodule(site.name).weight.detach().T.contiguous())

    moe = MixtralForCausalLM(
        MixtralConfig(**SIZES, num_key_value_heads=4, num_local_experts=4, num_experts_per_tok=2)
    ).eval()
    experts = moe.model.layers[0].mlp.experts
    report = package.scan(moe, IDS, SPEC, backend="eager")
    site = next(s for s in report.sites if s.kind == "weight" and len(s.shape) == 3 and s.layer == 0)
    found = noisiest_block(site, SPEC)
    stacked = getattr(experts, site.name.rpartition(".")[2]).detach()
    row, column = place(stacked.flatten(0, 1))
    assert found is not None
    assert (found.expert, found.row, found.column) == (*divmod(row, stacked.shape[1]), column)
    assert found.text.startswith(f"expert {found.expert}, row {found.row}, ")
    routed = [s for s in report.sites if s.kind == "input" and s.role == "experts"]
    assert routed
    assert all(noisiest_block(s, SPEC) is None for s in routed), "their rows are of no token that is known"


def test_of_reports_without_blocks() -> None:
    report = make_report({"output": [[tally(20.0), tally(20.0)]]})
    assert report.sites[0].formats[SPEC].blocks is None
    assert noisiest_block(report.sites[0], SPEC) is None
    assert noisiest_block(report.sites[0], "nvfp4:nvidia") is None


def test_the_last_block_of_a_ragged_row_ends_with_it() -> None:
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(40, 2, bias=False))
    with torch.no_grad():
        linear[0].weight[1, 37] = 4.7
    report = package.scan(linear, sites="weight", formats=SPEC, backend="eager")
    assert noisiest_block(report.sites[0], SPEC) == NoisiestBlock(pytest.approx(1, abs=0.05), 1, 32, 39)


def test_both_are_shown(llama: tuple[nn.Module, Report], tmp_path: Path, srdd: Run) -> None:
    _, report = llama
    path = tmp_path / "report.json"
    report.save(path)
    code, shown, _ = srdd("show", path, "--layer", 1)
    assert code == 0
    assert "row 7, columns 32-63" in " ".join(shown.split())
    assert "may swing" in shown
    code, text, _ = srdd("show", path, "--layer", 1, "--site", "weight", "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(text)["rows"]}
    up = rows["model.layers.1.mlp.up_proj"]
    assert (up["noisiest_block"][SPEC]["row"], up["noisiest_block"][SPEC]["column"]) == (7, 32)
    site = next(s for s in report.sites if s.kind == "weight" and s.name == "model.layers.1.mlp.up_proj")
    assert up["swing_db"][SPEC] == sqnr_swing_db(site.formats[SPEC], SPEC) > 0.01
    assert math.isnan(sqnr_swing_db(site.formats[SPEC], "mxfp3"))
