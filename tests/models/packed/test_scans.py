"""A packed checkpoint scanned, with and without a model: as the plain checkpoint of its values, saying what it was."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_bits import E4M3, nibbles, power, tiled
from safetensors.torch import load_file, save_file
from transformers import GptOssConfig, GptOssForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

import srdd as library
from srdd.errors import SiteError, TensorError
from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.sites import find_sites
from srdd.models.source import open_model

Run = Callable[..., tuple[int, str, str]]


def pack(
    weight: torch.Tensor, kind: int, generator: np.random.Generator
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Codes for a weight's place: random, of about its size, and the values they stand for."""
    n, k = weight.shape
    if kind == 0:
        codes, scale = generator.integers(0, 256, (n, k // 2), dtype=np.uint8), generator.integers(118, 124, (n, k // 32), dtype=np.uint8)  # fmt: skip # noqa: E501
        tensors = {"weight_packed": torch.from_numpy(codes), "weight_scale": torch.from_numpy(scale)}
        return tensors, torch.from_numpy(tiled(nibbles(codes), power(scale), 1, 32))
    codes = generator.integers(0, 120, (n, k), dtype=np.uint8)
    scale = generator.uniform(1e-4, 1e-3, (-(-n // 128), -(-k // 128))).astype(np.float32)
    tensors = {"weight": torch.from_numpy(codes).view(torch.float8_e4m3fn), "weight_scale_inv": torch.from_numpy(scale)}
    return tensors, torch.from_numpy(tiled(codes.view(E4M3).astype(np.float32), scale, 128, 128))


@pytest.fixture
def pair(tmp_path: Path, tiny_llama: Path) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """The tiny Llama packed in two forms, and the same values as float32."""
    packed, plain = tmp_path / "packed", tmp_path / "plain"
    values, stored = load_file(tiny_llama / "model.safetensors"), {}
    generator = np.random.default_rng(0)
    for index, name in enumerate(sorted(values)):
        if name.endswith("_proj.weight"):
            parts, values[name] = pack(values[name], index % 2, generator)
            stored |= {f"{name.removesuffix('weight')}{local}": part for local, part in parts.items()}
        else:
            stored[name] = values[name]
    for folder, tensors in ((packed, stored), (plain, values)):
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors")
        for file in tiny_llama.iterdir():
            if file.suffix == ".json":
                (folder / file.name).write_bytes(file.read_bytes())
    return packed, plain, values


NOTE = "the weights were stored in "


def test_the_same_tallies_as_of_the_values(pair: tuple[Path, Path, dict]) -> None:
    packed, plain, _ = pair
    formats = ["mxfp4", "nvfp4", "mxfp8"]
    of_codes = library.scan_checkpoint(open_checkpoint(str(packed)), formats)
    of_values = library.scan_checkpoint(open_checkpoint(str(plain)), formats)
    assert len(of_codes.sites) == 22
    for site in of_codes.sites:
        (twin,) = [other for other in of_values.sites if other.name == site.name]
        assert site.model_copy(update={"index": 0}) == twin.model_copy(update={"index": 0})
    assert of_codes.model.parameter_count == of_values.model.parameter_count
    assert of_codes.coverage.measured == of_values.coverage.measured
    assert of_codes.warnings[0].startswith(NOTE)
    assert "MXFP4 (" in of_codes.warnings[0]
    assert "FP8 in blocks of 128 x 128 (" in of_codes.warnings[0] or "FP8 per tensor" in of_codes.warnings[0]
    assert not any(NOTE in warning for warning in of_values.warnings)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_model_holds_the_values(pair: tuple[Path, Path, dict], dtype: str) -> None:
    packed, plain, values = pair
    opened = open_model(str(packed), dtype=dtype)
    state = opened.model.state_dict()
    for name, value in values.items():
        assert torch.equal(state[name], value.to(getattr(torch, dtype))), name
    assert len(opened.notes) == 1
    assert opened.notes[0].startswith(NOTE)
    assert opened.identity.parameter_count == open_model(str(plain)).identity.parameter_count
    assert opened.tokenizer is not None


def test_report_and_terminal_say_it(pair: tuple[Path, Path, dict], text: Path, tmp_path: Path, srdd: Run) -> None:
    packed, _, _ = pair
    for name, more in (("model", ("--data", text, "--seq-len", "32", "--samples", "2", "--cost", "none")), ("weights", ("--sites", "weight"))):  # fmt: skip # noqa: E501
        out = tmp_path / f"{name}.json"
        code, stdout, stderr = srdd("scan", packed, "--quant", "mxfp4", *more, "--backend", "eager", "--out", out)
        assert code == 0, stderr
        assert "the weights were stored in" in " ".join(stdout.split())
        assert json.loads(out.read_text())["warnings"][0].startswith(NOTE)


def test_a_dry_run_lists_each_weight_once(pair: tuple[Path, Path, dict], srdd: Run) -> None:
    code, stdout, stderr = srdd("scan", pair[0], "--quant", "mxfp4", "--sites", "weight", "--dry-run")
    assert NOTE in " ".join(stderr.split())
    names = [line.split()[-1] for line in stdout.splitlines()]
    assert code == 0
    assert len(names) == len(set(names)) == 22
    assert not any("scale" in name for name in names)


def test_gpt_oss_is_as_transformers_dequantizes_it(tmp_path: Path) -> None:
    config = GptOssConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, head_dim=16,
        num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2, max_position_embeddings=131072,
    )  # fmt: skip
    model = GptOssForCausalLM(config).bfloat16()
    generator = torch.Generator().manual_seed(3)
    stored = {}
    for name, tensor in model.state_dict().items():
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, inputs, outputs = tensor.shape
            shape = (experts, outputs, inputs // 32)
            stored[f"{name}_blocks"] = torch.randint(0, 256, (*shape, 16), generator=generator, dtype=torch.uint8)
            stored[f"{name}_scales"] = torch.randint(118, 124, shape, generator=generator, dtype=torch.uint8)
        else:
            stored[name] = tensor.contiguous()
    save_file(stored, tmp_path / "model.safetensors")
    config.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    said["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (tmp_path / "config.json").write_text(json.dumps(said))
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    opened = open_model(str(tmp_path), dtype="bfloat16")
    report = library.scan_checkpoint(open_checkpoint(str(tmp_path)), "nvfp4", "weight:*experts*")
    of_model = library.scan(opened.model, None, "nvfp4", "weight:*experts*", costs="none")
    for local in ("gate_up_proj", "down_proj"):
        name = f"model.layers.0.mlp.experts.{local}"
        expected = convert_moe_packed_tensors(stored[f"{name}_blocks"], stored[f"{name}_scales"], dtype=torch.bfloat16)
        assert torch.equal(opened.model.state_dict()[name], expected)
        (row,) = [site for site in report.sites if site.name == name]
        (twin,) = [site for site in of_model.sites if site.name == name]
        assert row.formats == twin.formats
        assert (row.shape, row.layer, row.group) == (twin.shape, twin.layer, twin.group)


def test_single_experts_in_the_files_are_fused_in_the_model(tmp_path: Path) -> None:
    config = Qwen3MoeConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=1, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2, num_experts=3, num_experts_per_tok=2, tie_word_embeddings=True,
    )  # fmt: skip
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path)
    stored, values, generator = {}, {}, np.random.default_rng(0)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        if ".experts." in name:
            parts, values[name] = pack(tensor, 0, generator)
            stored |= {f"{name.removesuffix('weight')}{local}": part for local, part in parts.items()}
        else:
            stored[name] = tensor
    assert len(values) == 9
    save_file(stored, tmp_path / "model.safetensors")
    opened = open_model(str(tmp_path), dtype="float32", device_map="cpu")
    layer = "model.layers.0.mlp.experts"
    fused = opened.model.state_dict()[f"{layer}.gate_up_proj"]
    for expert in range(3):
        gate, up = (values[f"{layer}.{expert}.{which}_proj.weight"] for which in ("gate", "up"))
        assert torch.equal(fused[expert], torch.cat([gate, up]))
    assert opened.model.lm_head.weight is opened.model.model.embed_tokens.weight
    assert opened.notes == open_checkpoint(str(tmp_path)).notes


def test_a_packed_model_of_the_hub_says_it_too(
    tmp_path: Path, pair: tuple[Path, Path, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache as the hub client leaves it; no network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--somebody--packed" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (tmp_path / "models--somebody--packed/refs").mkdir()
    (tmp_path / "models--somebody--packed/refs/main").write_text(commit)
    for file in pair[0].iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    config = json.loads((snapshot / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "compressed-tensors", "config_groups": {}}
    (snapshot / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    opened = open_model("somebody/packed")
    for name, value in pair[2].items():
        assert torch.equal(opened.model.state_dict()[name], value), name
    assert opened.notes[0].startswith(NOTE)
    assert opened.identity.revision == commit


def test_codes_that_stay_codes_in_a_model_are_refused_as_weights() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    assert len(find_sites(model).of("weight")) == 2
    model[1].weight = torch.nn.Parameter(torch.zeros(8, 8).to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(TensorError, match=r"1\.weight holds codes \(float8_e4m3fn\) in Linear, .* scales"):
        find_sites(model)
    assert len(find_sites(model, ("input",)).sites) == 2, "inputs are numbers all the same"
    with pytest.raises(TensorError, match=r"1\.weight holds codes"):
        library.scan(model, None, "mxfp4", "weight", costs="none")
    del model[1].weight
    with pytest.raises(SiteError, match="expected a tensor as weight, found NoneType"):
        find_sites(model)
