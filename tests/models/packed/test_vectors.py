"""Tensors that exporters wrote, byte for byte, and the values which they stand for: golden, each bit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.files.packed.contract import Packed

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text(encoding="utf-8"))["vectors"]
WEIGHT = "model.layers.0.mlp.up_proj.weight"
EXPERTS = "model.layers.0.mlp.experts.gate_up_proj"


def of_vector(vector: dict) -> dict[str, torch.Tensor]:
    """Its tensors, named as in a checkpoint."""
    tensors = {}
    for name, stored in vector["tensors"].items():
        raw = torch.frombuffer(bytearray.fromhex(stored["hex"]), dtype=torch.uint8)
        tensors[name] = raw.view(getattr(torch, stored["dtype"])).reshape(stored["shape"]).clone()
    module = WEIGHT.removesuffix(".weight")
    if "blocks" in tensors and "scales" in tensors:
        return {f"{EXPERTS}_{name}": tensor for name, tensor in tensors.items()}
    if "qdata" in tensors:
        return {f"{module}._weight_{name}": tensor for name, tensor in tensors.items()}
    return {f"{module}.{name}": tensor for name, tensor in tensors.items()}


def metadata_of(vector: dict) -> dict[str, str]:
    """What torchao writes beside its tensors."""
    kind = "NVFP4Tensor" if "NVFP4" in vector["format"] else "MXTensor"
    flags = {"is_swizzled_scales": False, "block_size": 16 if kind == "NVFP4Tensor" else 32}
    return {WEIGHT: json.dumps({"_type": kind, "_data": flags})}


IN_SAFETENSORS = [vector for vector in VECTORS if not vector["format"].startswith("GGUF")]


@pytest.mark.parametrize("vector", IN_SAFETENSORS, ids=lambda vector: vector["format"])
def test_bytes_of_an_exporter_are_its_values_bit_for_bit(vector: dict, tmp_path: Path) -> None:
    save_file(of_vector(vector), tmp_path / "model.safetensors", metadata=metadata_of(vector))
    checkpoint = open_checkpoint(str(tmp_path))
    assert not checkpoint.damaged
    (weight,) = checkpoint.tensors.values()
    assert isinstance(weight, Packed)
    expected = torch.tensor(vector["values_float32"], dtype=torch.float32)
    if weight.transposed:  # GPT-OSS: values are given as [experts, out, in], the weight is [experts, in, out]
        expected = expected.view(weight.shape[0], weight.shape[2], weight.shape[1]).transpose(1, 2)
    assert weight.numel == expected.numel()
    chunks = list(checkpoint.row_chunks(weight.name, max_bytes=1))
    found = torch.cat(chunks).view(weight.shape)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected.reshape(weight.shape))
    assert torch.equal(torch.signbit(found), torch.signbit(expected.reshape(weight.shape))), "-0 stays -0"


def test_the_vectors_are_of_every_form_in_safetensors_files() -> None:
    names = " ".join(vector["format"] for vector in IN_SAFETENSORS)
    for form in (
        "nvfp4-pack",
        "mxfp4-pack",
        "mxfp8",
        "float-quantized",
        "modelopt",
        "quark",
        "torchao",
        "gpt-oss",
        "FP8",
    ):
        assert form in names


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if v["format"] == "GGUF MXFP4"], ids=lambda vector: vector["format"]
)
def test_blocks_of_gguf(vector: dict) -> None:
    from srdd.models.files.packed.gguf_blocks import mxfp4

    stored = vector["tensors"]["blocks"]
    raw = torch.frombuffer(bytearray.fromhex(stored["hex"]), dtype=torch.uint8).view(stored["shape"])
    assert torch.equal(mxfp4(raw).flatten(), torch.tensor(vector["values_float32"]))
