"""A config is held against the tensors, which are believed: what is said where the two differ, and where they agree."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed_bits import E4M3, tiled
from safetensors.torch import save_file

from srdd.errors import SourceError
from srdd.models.checkpoint_sites import checkpoint_sites
from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.files.packed.claims import claims_of

LAYER = "model.layers.{}.mlp.{}"


def tensors_in(form: str, module: str) -> dict[str, torch.Tensor]:
    """A [64, 64] weight of zeros in a form."""
    u8, e4m3 = torch.uint8, torch.float8_e4m3fn
    z = torch.zeros
    return {
        f"{module}.{local}": tensor
        for local, tensor in {
            "NVFP4": {
                "weight_packed": z(64, 32, dtype=u8),
                "weight_scale": z(64, 4, dtype=e4m3),
                "weight_global_scale": torch.ones(1),
            },
            "MXFP4": {"weight_packed": z(64, 32, dtype=u8), "weight_scale": z(64, 2, dtype=u8)},
            "MXFP8": {"weight": z(64, 64, dtype=e4m3), "weight_scale": z(64, 2, dtype=u8)},
            "FP8": {"weight": z(64, 64, dtype=e4m3), "weight_scale": torch.ones(64, 1)},
            "plain": {"weight": torch.ones(64, 64)},
        }[form].items()
    }


def notes_of(
    folder: Path, modules: dict[str, str], config: dict[str, Any], file: str = "config.json"
) -> tuple[str, ...]:
    tensors: dict[str, torch.Tensor] = {}
    for module, form in modules.items():
        tensors |= tensors_in(form, module)
    save_file(tensors, folder / "model.safetensors")
    (folder / file).write_text(json.dumps(config))
    checkpoint = open_checkpoint(str(folder))
    checkpoint_sites(checkpoint)
    return checkpoint.notes


def group(form: str, targets: list[str]) -> dict[str, Any]:
    named = {
        "NVFP4": ("nvfp4-pack-quantized", {"num_bits": 4, "strategy": "tensor_group", "group_size": 16}),
        "MXFP4": ("mxfp4-pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 32}),
        "MXFP8": (None, {"num_bits": 8, "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}),
        "FP8": ("float-quantized", {"num_bits": 8, "strategy": "channel"}),
    }
    format_name, weights = named[form]
    return {"targets": targets, "format": format_name, "weights": {"type": "float", **weights}}


def compressed_tensors(groups: list[dict[str, Any]], ignore: list[str]) -> dict[str, Any]:
    numbered = {f"group_{index}": one for index, one in enumerate(groups)}
    said = {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "config_groups": numbered,
        "ignore": ignore,
    }
    return {"quantization_config": said}


UP, GATE, DOWN, HEAD = LAYER.format(0, "up_proj"), LAYER.format(0, "gate_proj"), LAYER.format(1, "down_proj"), "lm_head"


def test_a_mixed_checkpoint_that_is_as_its_config_says(tmp_path: Path) -> None:
    modules = {UP: "NVFP4", GATE: "NVFP4", DOWN: "MXFP8", LAYER.format(2, "up_proj"): "FP8", HEAD: "plain"}
    groups = [group("NVFP4", [UP, "re:.*gate_proj$"]), group("MXFP8", [DOWN]), group("FP8", ["Linear"])]
    (note,) = notes_of(tmp_path, modules, compressed_tensors(groups, [HEAD]))
    counts = "NVFP4 (2 modules), MXFP8 (1 module), FP8 per row (1 module)"
    assert note == (
        f"the weights were stored in {counts} and already carry that error; weight errors here are against the "
        "dequantized values"
    )


@pytest.mark.parametrize(
    ("groups", "ignore", "words"),
    [
        ([group("MXFP4", [UP, GATE])], [], f"{UP} is stored in NVFP4, config.json says MXFP4"),
        ([group("NVFP4", [UP])], [GATE], f"{GATE} is stored in MXFP4, config.json leaves it unquantized"),
        ([group("NVFP4", [UP, HEAD])], [], f"{HEAD} is stored as F32, config.json says NVFP4"),
        (
            [group("NVFP4", [UP]), group("MXFP4", [GATE, "re:.*head$"])],
            [],
            f"{HEAD} is stored as F32, config.json says MXFP4",
        ),
        ([group("NVFP4", ["Linear"]), group("MXFP4", [GATE])], [], f"{HEAD} is stored as F32, config.json says NVFP4"),
        ([group("NVFP4", ["Linear"])], [HEAD], f"{GATE} is stored in MXFP4, config.json says NVFP4"),
    ],
)
def test_a_contradiction_is_one_note(groups: list, ignore: list, words: str, tmp_path: Path) -> None:
    modules = {UP: "NVFP4", GATE: "MXFP4", HEAD: "plain"}
    notes = notes_of(tmp_path, modules, compressed_tensors(groups, ignore))
    assert len(notes) == 2
    assert notes[1] == f"the tensors are believed, not the config: {words}"


def test_what_nobody_quantizes_is_no_contradiction(tmp_path: Path) -> None:
    plain = ["model.embed_tokens", "model.layers.0.mlp.gate", "model.visual.blocks.0.attn.proj"]
    modules = {UP: "NVFP4", **dict.fromkeys(plain, "plain")}
    assert len(notes_of(tmp_path, modules, compressed_tensors([group("NVFP4", ["Linear", "re:.*"])], []))) == 1


def test_fp8_is_the_method_of_powers_of_two_as_well(tmp_path: Path) -> None:
    (note,) = notes_of(tmp_path, {UP: "MXFP8"}, {"quantization_config": {"quant_method": "fp8"}})
    assert "MXFP8 (1 module)" in note


def fp8_config(**weights: Any) -> dict[str, Any]:
    one = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", **weights}}
    return compressed_tensors([one], [])["quantization_config"]


@pytest.mark.parametrize(
    ("shape", "tile", "said"),
    [
        ((100, 96), (64, 64), {"quant_method": "fp8", "weight_block_size": [64, 64]}),
        ((100, 96), (1, 16), fp8_config(strategy="group", group_size=16)),
        ((130, 260), (128, 256), fp8_config(strategy="block", block_structure=[128, 256])),
    ],
)
def test_the_config_says_how_large_fp8_tiles_are(
    shape: tuple[int, int], tile: tuple[int, int], said: dict[str, Any], tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 256, shape, dtype=np.uint8)
    scale = generator.uniform(0.1, 1, (-(-shape[0] // tile[0]), -(-shape[1] // tile[1]))).astype(np.float32)
    tensors = {
        f"{UP}.weight": torch.from_numpy(codes).view(torch.float8_e4m3fn),
        f"{UP}.weight_scale": torch.from_numpy(scale),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": said}))
    checkpoint = open_checkpoint(str(tmp_path))
    checkpoint_sites(checkpoint)
    for max_bytes in (1, 2**26):
        found = torch.cat(list(checkpoint.row_chunks(f"{UP}.weight", max_bytes=max_bytes)))
        np.testing.assert_array_equal(found.numpy(), tiled(codes.view(E4M3).astype(np.float32), scale, *tile))
    assert f"FP8 in blocks of {tile[0]} x {tile[1]} (1 module)" in checkpoint.notes[0]


def test_contradictions_are_counted(tmp_path: Path) -> None:
    modules = {UP: "NVFP4", GATE: "MXFP4", DOWN: "MXFP4"}
    notes = notes_of(tmp_path, modules, compressed_tensors([group("NVFP4", ["Linear"])], []))
    assert notes[1].endswith("config.json says NVFP4, and so on for 2 modules")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (
            compressed_tensors([group("MXFP8", ["Linear"])], []),
            "MXFP8 (compressed-tensors), and no tensor is; found NVFP4",
        ),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "MXFP4 (mxfp4), and no tensor is; found NVFP4"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}, "FP8 (modelopt)"),
        (
            {"quantization_config": {"quant_method": "auto-round", "bits": 8, "data_type": "mx_fp"}},
            "MXFP8 (auto-round)",
        ),
    ],
)
def test_a_format_that_no_tensor_holds_is_refused(config: dict[str, Any], found: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as error:
        notes_of(tmp_path, {UP: "NVFP4", HEAD: "plain"}, config)
    assert str(error.value).startswith(f"config.json says that weights are stored in {found}")


def test_integers_named_by_the_config_of_plain_tensors(tmp_path: Path) -> None:
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}
    config = {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": weights, "targets": ["Linear"]}}}}  # fmt: skip # noqa: E501
    with pytest.raises(SourceError, match=r"stored in INT \(compressed-tensors\), and no tensor is; found F32"):
        notes_of(tmp_path, {UP: "plain"}, config)


def test_one_shard_need_not_hold_what_the_config_names(tmp_path: Path) -> None:
    save_file(tensors_in("plain", UP), tmp_path / "model-00001-of-00002.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "fp8"}}))
    checkpoint = open_checkpoint(str(tmp_path / "model-00001-of-00002.safetensors"))
    assert [site.name for site in checkpoint_sites(checkpoint).sites] == [UP]


def test_hf_quant_config_alone(tmp_path: Path) -> None:
    said = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}}
    (note,) = notes_of(tmp_path, {UP: "NVFP4", HEAD: "plain"}, said, "hf_quant_config.json")
    assert note.startswith("the weights were stored in NVFP4 (1 module)")
    said["quantization"]["exclude_modules"] = ["*up_proj"]
    _, contradiction = notes_of(tmp_path, {UP: "NVFP4"}, said, "hf_quant_config.json")
    assert contradiction.endswith(f"{UP} is stored in NVFP4, hf_quant_config.json leaves it unquantized")


def test_without_a_config_the_tensors_say_it_all(tmp_path: Path) -> None:
    (note,) = notes_of(tmp_path, {UP: "MXFP4", HEAD: "plain"}, {})
    assert note.startswith("the weights were stored in MXFP4 (1 module)")


def test_a_config_that_plain_weights_were_left_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="says that weights are stored in bitsandbytes, and no tensor is"):
        notes_of(tmp_path, {UP: "plain"}, {"quantization_config": {"quant_method": "bitsandbytes"}})


@pytest.mark.parametrize(
    ("said", "module", "claim"),
    [
        ({"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"}, "a", "NVFP4"),
        ({"quant_method": "modelopt", "quant_algo": "mxfp4"}, "a", "MXFP4"),
        ({"quant_method": "modelopt", "quant_algo": "INT4_AWQ"}, "a", "INT"),
        ({"quant_method": "modelopt", "quant_algo": None, "kv_cache_quant_algo": "FP8"}, "a", None),
        (
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {"a": {"quant_algo": "FP8_PB_WO"}},
            },
            "a",
            "FP8",
        ),
        (
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {"a": {"quant_algo": "FP8"}},
            },
            "b",
            None,
        ),
        (
            {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32}}},
            "a",
            "MXFP4",
        ),
        (
            {"quant_method": "quark", "global_quant_config": {"weight": [{"dtype": "fp4"}, {"dtype": "fp8_e4m3"}]}},
            "a",
            "NVFP4",
        ),
        (
            {
                "quant_method": "quark",
                "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32}},
                "layer_quant_config": {"*b*": {"weight": {"dtype": "fp6_e2m3", "group_size": 32}}},
                "exclude": ["lm_head"],
            },
            "a.b.c",
            "MXFP6 E2M3",
        ),
        ({"quant_method": "auto-round", "bits": 4, "data_type": "nv_fp"}, "a", None),
        (
            {"quant_method": "auto-round", "bits": 4, "data_type": "mx_fp", "extra_config": {"a": {"bits": 8}}},
            "a",
            "MXFP8",
        ),
    ],
)
def test_what_a_config_claims(said: dict[str, Any], module: str, claim: str | None) -> None:
    claims = claims_of({"quantization_config": said}, {})
    assert claims is not None
    assert claims.of(module) == claim


def test_patterns_are_read_in_the_order_of_their_text_and_from_the_start(tmp_path: Path) -> None:
    """compressed-tensors sorts them: `.*layers.*` stands before `.*layers.1.*`."""
    config = compressed_tensors([group("MXFP4", ["re:.*layers.1.*"]), group("MXFP8", ["re:.*layers.*"])], [])
    claims = claims_of(config, {})
    assert claims is not None
    assert claims.of("model.layers.1.up_proj") == "MXFP8"
    assert claims_of(compressed_tensors([group("MXFP4", ["re:layers"])], []), {}).of("model.layers.1") is None
