"""Good checkpoints audit clean in every form and architecture; what is found where experts are fused; bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_checkpoints import MAKERS, claim_of, ct_group, gpt_oss, is_linear, llama, moe, pack, pack_gpt_oss, saved
from safetensors.torch import load_file

from srdd.errors import SourceError
from srdd.models.files.checkpoint import open_checkpoint
from srdd.runs.audit import audit

MAKE = {"llama": llama, "moe": moe}
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path, Tensors]]:
    """Of each architecture: config, folder, tensors as they are stored, experts singly."""
    made = {}
    for name, make in {**MAKE, "gpt_oss": gpt_oss}.items():
        folder, model = tmp_path_factory.mktemp(name), make()
        model.save_pretrained(folder)
        made[name] = (model.config, folder, load_file(folder / "model.safetensors"))
    return made


def found(folder: Path, reference: Path | None = None) -> list[tuple[str, str, str, str]]:
    other = None if reference is None else open_checkpoint(str(reference))
    return [(f.level, f.kind, f.module, f.found) for f in audit(open_checkpoint(str(folder)), other).findings]


def packed(folder: Path, original: tuple[Any, Path, Tensors], maker: str) -> Path:
    config, _, weights = original
    tensors, metadata = pack(weights, lambda module: maker if is_linear(module) else None)
    return saved(folder, tensors, metadata, config, claim_of(maker))


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("maker", MAKERS)
def test_a_good_checkpoint_is_clean(maker: str, name: str, originals: Any, tmp_path: Path) -> None:
    folder = packed(tmp_path, originals[name], maker)
    assert found(folder) == []
    assert found(folder, originals[name][1]) == []
    document = audit(open_checkpoint(str(folder)), open_checkpoint(str(originals[name][1])))
    linears = [module for module in document.modules if module.packed]
    assert len(linears) == sum(is_linear(key.removesuffix(".weight")) for key in originals[name][2])
    assert all(0 < (module.relative_rms or 0) < 0.2 for module in linears)
    assert all(module.relative_rms == 0 for module in document.modules if not module.packed)


def test_gpt_oss_is_clean_and_says_which_expert(originals: Any, tmp_path: Path) -> None:
    config, reference, weights = originals["gpt_oss"]
    tensors = pack_gpt_oss(weights)
    claim = {"quant_method": "mxfp4", "modules_to_not_convert": ["self_attn", "router", "embed_tokens", "lm_head"]}
    assert found(saved(tmp_path / "good", tensors, None, config, claim), reference) == []
    name = "model.layers.1.mlp.experts.down_proj"
    for end in ("_blocks", "_scales"):
        tensors[name + end] = tensors[name + end][[0, 3, 2, 1]].contiguous()
    said = found(saved(tmp_path / "moved", tensors, None, config, claim), reference)
    assert [(module, words.partition(" (")[0]) for _, _, module, words in said] == [
        (f"{name}, expert 1", f"it is the reference's {name}, expert 3"),
        (f"{name}, expert 3", f"it is the reference's {name}, expert 1"),
    ]


def test_a_square_expert_transposed(originals: Any, tmp_path: Path) -> None:
    config, reference, weights = originals["gpt_oss"]
    name = "model.layers.0.mlp.experts.down_proj"
    turned = {**weights, name: weights[name].transpose(1, 2).contiguous()}
    said = found(saved(tmp_path, pack_gpt_oss(turned), None, config, {"quant_method": "mxfp4"}), reference)
    assert len(said) == 4
    assert all("the transpose of the reference" in words for _, _, _, words in said)


@pytest.mark.parametrize("maker", ["ct_nvfp4", "ct_mxfp4", "fp8_rows", "fp8_blocks"])
def test_single_experts_in_other_places(maker: str, originals: Any, tmp_path: Path) -> None:
    """The opened model fuses them; they are found under their own names, against an original that has them singly."""
    config, reference, weights = originals["moe"]
    order = [2, 0, 1, 3]
    moved = dict(weights)
    stem = "model.layers.1.mlp.experts."
    for place, expert in enumerate(order):
        for role in ("gate_proj", "up_proj", "down_proj"):
            moved[f"{stem}{place}.{role}.weight"] = weights[f"{stem}{expert}.{role}.weight"]
    said = found(packed(tmp_path, (config, reference, moved), maker), reference)
    assert len(said) == 9
    where = {module: words.split()[4] for _, _, module, words in said}
    assert where[f"{stem}0.up_proj"] == f"{stem}2.up_proj"
    assert where[f"{stem}2.down_proj"] == f"{stem}1.down_proj"


def test_one_expert_in_another_format(originals: Any, tmp_path: Path) -> None:
    config, _, weights = originals["moe"]
    odd = "model.layers.0.mlp.experts.2.up_proj"
    tensors, metadata = pack(
        weights, lambda module: None if not is_linear(module) else "mxfp8" if module == odd else "ct_mxfp4"
    )
    rest = sorted(n.removesuffix(".weight") for n in weights if is_linear(n.removesuffix(".weight")) and odd not in n)
    groups = {"group_0": ct_group("ct_mxfp4", rest), "group_1": ct_group("mxfp8", [odd])}
    claim = {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"]}
    (finding,) = found(saved(tmp_path, tensors, metadata, config, claim))
    assert finding[:3] == ("error", "fusion", "model.layers.0.mlp.experts")
    assert finding[3] == "2.up_proj in MXFP8, the other 11 in MXFP4"


def test_experts_need_not_share_a_tensor_scale(originals: Any, tmp_path: Path) -> None:
    folder = packed(tmp_path, originals["moe"], "ct_nvfp4")
    scales = load_file(folder / "model.safetensors")
    values = {float(v) for n, v in scales.items() if n.endswith("weight_global_scale") and "layers.0.mlp" in n}
    assert len(values) == 8
    assert found(folder) == []


def test_a_mixed_checkpoint_whose_config_agrees(originals: Any, tmp_path: Path) -> None:
    config, reference, weights = originals["llama"]

    def maker(module: str) -> str | None:
        if not is_linear(module) or ".layers.2." in module:
            return None
        return "ct_nvfp4" if "self_attn" in module else "mxfp8"

    tensors, metadata = pack(weights, maker)
    names = [n.removesuffix(".weight") for n in weights]
    groups = {f"group_{m}": ct_group(m, [n for n in names if maker(n) == m]) for m in ("ct_nvfp4", "mxfp8")}
    ignore = [n for n in names if is_linear(n) and maker(n) is None]
    claim = {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": [*ignore, "lm_head"]}
    assert found(saved(tmp_path / "a", tensors, metadata, config, claim), reference) == []
    groups["group_mxfp8"]["targets"] = [n.replace("mlp", "ffn") for n in groups["group_mxfp8"]["targets"]]
    said = found(saved(tmp_path / "b", tensors, metadata, config, claim))
    assert {(level, kind) for level, kind, _, _ in said} == {("error", "claims")}
    assert len(said) == 6


def test_a_plain_checkpoint_says_so_and_a_claim_on_it_fails(originals: Any, tmp_path: Path) -> None:
    config, reference, weights = originals["llama"]
    assert found(reference) == []
    folder = saved(tmp_path, weights, None, config, claim_of("ct_nvfp4"))
    ((level, kind, module, words),) = found(folder)
    assert (level, kind, module) == ("error", "claims", "config.json")
    assert words.startswith("config.json says that weights are stored in")


def test_hf_quant_config_counts(originals: Any, tmp_path: Path) -> None:
    config, _, weights = originals["llama"]
    tensors, _ = pack(weights, lambda module: "modelopt_nvfp4" if is_linear(module) else None)
    folder = saved(tmp_path, tensors, None, config, None)
    quantization = {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": quantization}))
    assert found(folder) == []
    quantization["exclude_modules"] = ["lm_head", "*layers.1.mlp*"]
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": quantization}))
    assert [module for _, _, module, _ in found(folder)] == [
        f"model.layers.1.mlp.{role}" for role in ("down_proj", "gate_proj", "up_proj")
    ]


def test_an_odd_module_of_a_method_without_rules(originals: Any, tmp_path: Path) -> None:
    config, _, weights = originals["llama"]
    odd = "model.layers.1.self_attn.o_proj"
    tensors, _ = pack(weights, lambda module: "fp8_blocks" if is_linear(module) and module != odd else None)
    claim = claim_of("fp8_blocks") or {}
    ((level, kind, module, _),) = found(saved(tmp_path / "a", tensors, None, config, claim))
    assert (level, kind, module) == ("error", "claims", odd)
    claim["modules_to_not_convert"] = ["lm_head", odd]
    assert found(saved(tmp_path / "b", tensors, None, config, claim)) == []


def test_a_packed_embedding(originals: Any, tmp_path: Path) -> None:
    config, _, weights = originals["llama"]
    tensors, _ = pack(
        weights, lambda module: "ct_mxfp4" if is_linear(module) or module.endswith("embed_tokens") else None
    )
    ((level, kind, module, _),) = found(saved(tmp_path, tensors, None, config, claim_of("ct_mxfp4")))
    assert (level, kind, module) == ("warning", "kept", "model.embed_tokens")


def test_without_a_config_names_and_shapes_are_enough(originals: Any, tmp_path: Path) -> None:
    _, reference, weights = originals["moe"]
    tensors, _ = pack(weights, lambda module: "ct_nvfp4" if is_linear(module) else None)
    folder = saved(tmp_path, tensors, None, {}, None)
    (folder / "config.json").unlink()
    assert found(folder, reference) == []
    assert found(folder / "model.safetensors", reference / "model.safetensors") == []


# --- bad input ----------------------------------------------------------------------------------------------------


def refused(folder: Path, reference: Path | None, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        found(folder, reference)
    assert "\n" not in str(caught.value)


def test_another_architecture_another_size_and_a_packed_reference(originals: Any, tmp_path: Path) -> None:
    folder = packed(tmp_path / "packed", originals["llama"], "ct_nvfp4")
    refused(folder, originals["gpt_oss"][1], "is of another architecture: it lacks")
    refused(folder, folder, "is packed itself")
    larger = tmp_path / "larger"
    llama(3, 256).save_pretrained(larger)
    refused(folder, larger, r"is \[128, 128\] in packed and \[256, 256\] in the reference larger")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "cut short"),
        (lambda path: path.unlink(), "holds no safetensors file"),
        (lambda path: path.write_bytes(b""), "safetensors"),
    ],
)
def test_damaged_files(damage: Callable[[Path], Any], words: str, originals: Any, tmp_path: Path) -> None:
    folder = packed(tmp_path, originals["llama"], "mxfp8")
    damage(folder / "model.safetensors")
    refused(folder, None, words)


def test_an_unknown_form(originals: Any, tmp_path: Path) -> None:
    config, _, weights = originals["llama"]
    name = "model.layers.0.mlp.up_proj"
    tensors = {**weights, f"{name}.qweight": torch.ones(16, 256, dtype=torch.int32)}
    del tensors[f"{name}.weight"]
    refused(
        saved(tmp_path, tensors, None, config, {"quant_method": "gptq"}), None, "in a packed form that is not known"
    )


def test_integers_of_torchao_are_unknown_and_not_broken(originals: Any, tmp_path: Path) -> None:
    config, _, weights = originals["llama"]
    name = "model.layers.0.mlp.up_proj"
    tensors = {**weights, f"{name}._weight_qdata": torch.ones(256, 128, dtype=torch.int8)}
    del tensors[f"{name}.weight"]
    metadata = {f"{name}.weight": json.dumps({"_type": "Int8Tensor", "_data": {}})}
    refused(saved(tmp_path, tensors, metadata, config, None), None, "Int8Tensor; known: ")


def test_the_original_of_another_training_is_one_finding(originals: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    llama(seed=9).save_pretrained(other)
    ((level, kind, _, words),) = found(packed(tmp_path / "packed", originals["llama"], "ct_nvfp4"), other)
    assert (level, kind) == ("error", "reference")
    assert words.startswith("none of 22 matrices is near the reference's (relative error from 1.")


def test_random_codes_and_scales_are_no_crash(tmp_path: Path) -> None:
    """Every byte, NaN and infinite ones too."""
    generator = torch.Generator().manual_seed(0)

    def raw(*shape: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).view(dtype)

    float8 = torch.float8_e4m3fn
    parts: dict[str, Tensors] = {
        "a": {
            "weight_packed": raw(96, 32),
            "weight_scale": raw(96, 4, dtype=float8),
            "weight_global_scale": torch.ones(1),
        },
        "b": {"weight_packed": raw(96, 32), "weight_scale": raw(96, 2)},
        "c": {
            "weight": raw(130, 140, dtype=float8),
            "weight_scale_inv": torch.tensor([[0.0, 1.0], [-1.0, float("inf")]]),
        },
        "d": {"weight": raw(96, 64, dtype=float8), "weight_scale": torch.zeros(96, 1)},
    }
    tensors = {f"model.layers.0.{m}.up_proj.{local}": t for m, made in parts.items() for local, t in made.items()}
    folder = saved(tmp_path, tensors, None, {}, None)
    kinds = {(level, kind, module.split(".")[3]) for level, kind, module, _ in found(folder)}
    assert {("error", "scales", m) for m in "abc"} <= kinds
    assert ("error", "scales", "d") in kinds
    document = audit(open_checkpoint(str(folder)), None)
    assert json.loads(document.model_dump_json())["document"] == "srdd-audit"
