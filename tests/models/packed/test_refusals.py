"""What cannot be read is one line that names the tensor, before anything is measured; never values or a traceback."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import srdd
from srdd.errors import SourceError
from srdd.models.checkpoint_sites import checkpoint_sites
from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.files.packed import FORMS
from srdd.models.source import open_model

Run = Callable[..., tuple[int, str, str]]
M = "model.layers.0.mlp.up_proj"
E = "model.layers.0.mlp.experts.gate_up_proj"
U8, E4M3, E8M0 = torch.uint8, torch.float8_e4m3fn, torch.float8_e8m0fnu


def z(*shape: int, dtype: torch.dtype = U8) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def f(*shape: int) -> torch.Tensor:
    return torch.ones(*shape)


BAD: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "packed without scales": ({f"{M}.weight_packed": z(64, 16)}, rf"{M}\.weight_scale is missing"),
    "nvfp4 without its global scale": (
        {f"{M}.weight_packed": z(64, 16), f"{M}.weight_scale": z(64, 2, dtype=E4M3)},
        rf"{M}\.weight_global_scale is missing",
    ),
    "modelopt without scale 2": (
        {f"{M}.weight": z(64, 16), f"{M}.weight_scale": z(64, 2, dtype=E4M3)},
        rf"{M}\.weight_scale_2 is missing",
    ),
    "scales of half the rows": (
        {f"{M}.weight_packed": z(64, 16), f"{M}.weight_scale": z(32, 1)},
        rf"{M}\.weight_scale is \[32, 1\]; expected \[64, 1\]",
    ),
    "scales of another group": (
        {f"{M}.weight_packed": z(64, 32), f"{M}.weight_scale": z(64, 4)},
        rf"{M}\.weight_scale is \[64, 4\]; expected \[64, 2\]",
    ),
    "scales that are floats": (
        {f"{M}.weight_packed": z(64, 16), f"{M}.weight_scale": f(64, 1)},
        rf"{M}\.weight_scale is stored as F32; expected U8 or F8_E8M0",
    ),
    "a global scale that is a vector": (
        {f"{M}.weight_packed": z(64, 16), f"{M}.weight_scale": z(64, 2, dtype=E4M3), f"{M}.weight_global_scale": f(64)},
        rf"{M}\.weight_global_scale is \[64\]",
    ),
    "codes cut in a row": (
        {f"{M}.weight_packed": z(64, 15), f"{M}.weight_scale": z(64, 1)},
        rf"{M}\.weight_packed is \[64, 15\].*32 codes in 16 bytes",
    ),
    "codes that are one byte": (
        {f"{M}.weight_packed": z(), f"{M}.weight_scale": z(64, 1)},
        rf"{M}\.weight_packed is \[\]",
    ),
    "codes in one row": (
        {f"{M}.weight_packed": z(64), f"{M}.weight_scale": z(64, 1)},
        rf"{M}\.weight_packed is \[64\]",
    ),
    "6 bits of whom": (
        {f"{M}.weight": z(64, 24), f"{M}.weight_scale": z(64, 1)},
        rf"{M}\.weight holds codes of 6 bits, E2M3 or E3M2",
    ),
    "zero points": (
        {f"{M}.weight_packed": z(64, 16), f"{M}.weight_scale": z(64, 1), f"{M}.weight_zero_point": f(64, 1)},
        rf"{M}\.weight_zero_point",
    ),
    "another order of groups": (
        {f"{M}.weight_packed": z(64, 16), f"{M}.weight_scale": z(64, 1), f"{M}.weight_g_idx": z(32)},
        rf"{M}\.weight_g_idx",
    ),
    "fp8 blocks of no size": (
        {f"{M}.weight": z(300, 256, dtype=E4M3), f"{M}.weight_scale_inv": f(2, 2)},
        rf"{M}\.weight_scale_inv is \[2, 2\] beside codes \[300, 256\]",
    ),
    "fp8 scales that do not divide": (
        {f"{M}.weight": z(300, 257, dtype=E4M3), f"{M}.weight_scale_inv": f(7, 2)},
        rf"{M}\.weight_scale_inv is \[7, 2\] beside codes \[300, 257\]; expected \[3, 3\] for blocks of 128 x 128",
    ),
    "fp8 scales of the transpose": (
        {f"{M}.weight": z(256, 512, dtype=E4M3), f"{M}.weight_scale_inv": f(4, 2)},
        rf"{M}\.weight_scale_inv is \[4, 2\] beside codes \[256, 512\]; expected \[2, 4\]",
    ),
    "fp8 scales that lack a row": (
        {f"{M}.weight": z(256, 512, dtype=E4M3), f"{M}.weight_scale_inv": f(1, 4)},
        rf"{M}\.weight_scale_inv is \[1, 4\]",
    ),
    "fp8 blocks that are one": (
        {f"{M}.weight": z(300, 256, dtype=E4M3), f"{M}.weight_scale_inv": f(1, 1)},
        rf"{M}\.weight_scale_inv is \[1, 1\] beside codes \[300, 256\]; expected \[3, 2\] for blocks of 128 x 128",
    ),
    "fp8 scales that are integers": (
        {f"{M}.weight": z(64, 64, dtype=E4M3), f"{M}.weight_scale": torch.ones(64, 1, dtype=torch.int32)},
        rf"{M}\.weight_scale is stored as I32",
    ),
    "fp8 without scales": (
        {f"{M}.weight": z(64, 64, dtype=E4M3)},
        rf"{M}\.weight is stored as F8_E4M3 .*without a scale",
    ),
    "e5m2 without scales": (
        {f"{M}.weight": z(64, 64, dtype=torch.float8_e5m2)},
        rf"{M}\.weight is stored as F8_E5M2 \[64, 64\] without a scale",
    ),
    "blocks without scales": ({f"{E}_blocks": z(2, 64, 1, 16)}, rf"{E}_scales is missing"),
    "blocks of another size": (
        {f"{E}_blocks": z(2, 64, 2, 8), f"{E}_scales": z(2, 64, 2)},
        rf"{E}_blocks is \[2, 64, 2, 8\]; expected \[experts, out, in / 32, 16\]",
    ),
    "scales of another expert": (
        {f"{E}_blocks": z(2, 64, 1, 16), f"{E}_scales": z(1, 64, 1)},
        rf"{E}_scales is \[1, 64, 1\]; expected \[2, 64, 1\]",
    ),
    "torchao without metadata": (
        {f"{M}._weight_qdata": z(64, 16), f"{M}._weight_scale": z(64, 1)},
        "does not say of which",
    ),
    "int8": (
        {f"{M}.weight": z(64, 64, dtype=torch.int8), f"{M}.weight_scale": f(64, 1)},
        rf"{M}\.weight is stored as I8 \[64, 64\], in a packed form that is not known; known: MXFP4 of GPT-OSS",
    ),
    "bitsandbytes": (
        {f"{M}.weight": z(2048, 1), f"{M}.weight.absmax": z(64), f"{M}.weight.quant_map": f(16)},
        rf"{M}\.weight is stored as U8 \[2048, 1\], in a packed form that is not known",
    ),
    "gptq": (
        {f"{M}.qweight": z(8, 64, dtype=torch.int32), f"{M}.scales": f(1, 64), f"{M}.g_idx": z(64, dtype=torch.int32)},
        rf"{M}\.qweight is stored as I32 \[8, 64\], in a packed form",
    ),
    "integers of compressed-tensors": (
        {f"{M}.weight_packed": z(64, 8, dtype=torch.int32), f"{M}.weight_scale": f(64, 1)},
        rf"{M}\.weight_packed is stored as I32",
    ),
    "quanto": (
        {f"{M}.weight._data": z(64, 64, dtype=torch.int8), f"{M}.weight._scale": f(64, 1)},
        rf"{M}\.weight\._data is stored as I8",
    ),
    "hqq": ({f"{M}.W_q": z(64, 32), f"{M}.scale": f(64, 1)}, rf"{M}\.W_q is stored as U8"),
    "codebooks": (
        {f"{M}.codes": z(64, 8, 2, dtype=torch.int16), f"{M}.codebooks": f(2, 256, 1, 8)},
        rf"{M}\.codes is stored as I16",
    ),
    "integer experts": ({E: z(2, 64, 64, dtype=torch.int8)}, rf"{E} is stored as I8"),
    "plain and packed": (
        {f"{M}.weight": f(64, 32), f"{M}.weight_packed": z(64, 16), f"{M}.weight_scale": z(64, 1)},
        rf"{M}\.weight is stored twice",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_one_line_that_names_the_tensor(kind: str, tmp_path: Path) -> None:
    tensors, words = BAD[kind]
    save_file({"model.layers.0.mlp.down_proj.weight": f(32, 64), **tensors}, tmp_path / "model.safetensors")
    if kind in ("fp8 blocks of no size", "fp8 blocks that are one"):
        named = {"quant_method": "fp8", "weight_block_size": [128, 128]}
        (tmp_path / "config.json").write_text(json.dumps({"quantization_config": named}))
    checkpoint = open_checkpoint(str(tmp_path))
    with pytest.raises(SourceError, match=words) as error:
        checkpoint_sites(checkpoint)
    assert "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("more", [("--dry-run",), ()])
@pytest.mark.parametrize("kind", ["int8", "fp8 without scales", "scales of half the rows", "bitsandbytes"])
def test_the_command_ends_with_2_and_writes_nothing(
    kind: str, more: tuple[str, ...], tmp_path: Path, srdd: Run
) -> None:
    save_file(BAD[kind][0], tmp_path / "model.safetensors")
    out = () if more else ("--out", tmp_path / "report.json")
    code, stdout, stderr = srdd("scan", tmp_path, "--sites", "weight", "--quant", "nvfp4", *more, *out)
    assert code == 2
    assert stdout == ""
    (line,) = stderr.splitlines()
    assert line.startswith(f"srdd: error: {M}.weight")
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    "said",
    ["[]", "{", '{"_type": "MXTensor"}', '{"_type": "MXTensor", "_data": []}', '{"_type": "Int4Tensor", "_data": {}}'],
)
def test_metadata_of_torchao_that_says_nothing(said: str, tmp_path: Path) -> None:
    tensors = {f"{M}._weight_qdata": z(64, 16), f"{M}._weight_scale": z(64, 1)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={f"{M}.weight": said})
    with pytest.raises(SourceError, match=rf"{M}\._weight_qdata holds codes \(U8\) and .*; known: MXTensor, "):
        checkpoint_sites(open_checkpoint(str(tmp_path)))


@pytest.mark.parametrize("shape", [(), (64,), (2, 2, 64, 32)], ids=str)
@pytest.mark.parametrize("swizzled", [True, False])
@pytest.mark.parametrize("kind", ["MXTensor", "NVFP4Tensor", "Float8Tensor"])
def test_shapes_of_torchao_that_are_no_matrix(
    shape: tuple[int, ...], swizzled: bool, kind: str, tmp_path: Path
) -> None:
    flags = {"_type": kind, "_data": {"is_swizzled_scales": swizzled, "block_size": [0, "a"]}}
    codes = z(*shape, dtype=E4M3 if kind == "Float8Tensor" else U8)
    tensors = {f"{M}._weight_qdata": codes, f"{M}._weight_scale": z(64, 1, dtype=E8M0)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={f"{M}.weight": json.dumps(flags)})
    with pytest.raises(SourceError, match=rf"{M}\._weight_qdata is \["):
        checkpoint_sites(open_checkpoint(str(tmp_path)))


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (torch.ones(512, dtype=torch.bfloat16), r"_weight_scale is stored as BF16; expected U8 or F8_E8M0"),
        (z(256, dtype=E8M0), r"_weight_scale holds 256 bytes; expected 512, in tiles of 128 x 4"),
        (z(1024, dtype=E8M0), r"_weight_scale holds 1024 bytes; expected 512"),
    ],
)
def test_swizzled_scales_that_do_not_fit(scale: torch.Tensor, words: str, tmp_path: Path) -> None:
    flags = {"_type": "MXTensor", "_data": {"is_swizzled_scales": True, "block_size": 32}}
    tensors = {f"{M}._weight_qdata": z(64, 64, dtype=E4M3), f"{M}._weight_scale": scale}
    save_file(tensors, tmp_path / "model.safetensors", metadata={f"{M}.weight": json.dumps(flags)})
    with pytest.raises(SourceError, match=words):
        checkpoint_sites(open_checkpoint(str(tmp_path)))


def test_a_file_cut_inside_packed_codes(tmp_path: Path) -> None:
    save_file({f"{M}.weight_packed": z(64, 16), f"{M}.weight_scale": z(64, 1)}, tmp_path / "model.safetensors")
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SourceError, match="cut short or damaged"):
        open_checkpoint(str(tmp_path))


def test_the_model_of_a_damaged_checkpoint_is_not_opened(tmp_path: Path, tiny_llama: Path) -> None:
    config = json.loads((tiny_llama / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(BAD["scales of half the rows"][0], tmp_path / "model.safetensors")
    with pytest.raises(SourceError, match=r"expected \[64, 1\]"):
        open_model(str(tmp_path))
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((tiny_llama / "model.safetensors").read_bytes())
    with pytest.raises(SourceError, match=r"stored in MXFP4 \(mxfp4\), and no tensor is; found F32"):
        open_model(str(tmp_path))


NAMES_NOTHING = [
    {"quant_method": "compressed-tensors", "config_groups": [1]},
    {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 8}, "targets": ["re:("]}}},
    {"quant_method": "compressed-tensors", "config_groups": {"a": 3}},
    {"quant_method": "modelopt", "quantized_layers": ["a"]},
    {"quant_method": "quark", "global_quant_config": 3},
    {"quant_method": "auto-round", "bits": "four", "data_type": "mx_fp"},
    {"quant_method": "fp8", "weight_block_size": [128]},
    {"quant_method": "fp8", "weight_block_size": [0, 128]},
    {"quant_method": "auto-round", "bits": 4, "data_type": "mx_fp", "extra_config": {"(": {"bits": 8}}},
    {"quant_method": "compressed-tensors", "config_groups": {}, "ignore": ["re:("]},
    {"quant_method": "fp8", "weight_block_size": ["a", "b"]},
    ["a", "list"],
    "text",
    3,
]


@pytest.mark.parametrize("said", NAMES_NOTHING, ids=str)
def test_a_config_of_another_shape(said: object, tmp_path: Path) -> None:
    save_file({f"{M}.weight": f(64, 64)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": said}))
    with pytest.raises(SourceError, match=r"quantization_config in config\.json is not understood") as error:
        open_checkpoint(str(tmp_path))
    assert "\n" not in str(error.value)


def test_integers_that_are_no_weights_are_left_alone(tmp_path: Path) -> None:
    tensors = {
        "embeddings.position_ids": torch.arange(64).view(1, 64),
        "encoder.layer.0.attention.masked_bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8),
        "encoder.layer.0.output.dense.weight": torch.randn(64, 64),
        "encoder.layer.0.attention.relative_position_index": torch.zeros(49, 49, dtype=torch.int64),
        "model.layers.0.ffn.gate.tid2eid": torch.zeros(64, 8, dtype=torch.int64),
        "encoder.layer.0.norm.num_batches_tracked": torch.tensor(3),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    report = srdd.scan_checkpoint(open_checkpoint(str(tmp_path)), "mxfp4")
    assert [site.name for site in report.sites] == ["encoder.layer.0.output.dense"]
    assert report.warnings == []


def test_zero_points_that_are_all_zero_are_none(tmp_path: Path) -> None:
    tensors = {f"{M}.weight": z(64, 64, dtype=E4M3), f"{M}.weight_scale": f(64, 1), f"{M}.weight_zero_point": z(64, 1)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert len(checkpoint_sites(open_checkpoint(str(tmp_path))).sites) == 1


def test_every_form_says_in_messages_which_it_is() -> None:
    assert all(form.KNOWN and callable(form.recognise) for form in FORMS)
