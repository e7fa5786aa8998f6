"""GGUF's own 4-bit blocks: by gguf's decoder, by hand, and through a model with tensor scales."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from packed_bits import E4M3, nibbles, power
from safetensors.torch import load_file

from srdd.models.files.packed.gguf_blocks import READERS, mxfp4, nvfp4
from srdd.models.source import open_model


@pytest.mark.parametrize("kind", [gguf.GGMLQuantizationType.MXFP4, gguf.GGMLQuantizationType.NVFP4])
@pytest.mark.parametrize("shape", [(1, 64), (5, 192), (2, 3, 128)], ids=str)
def test_random_bytes_are_what_gguf_makes_of_them(kind: gguf.GGMLQuantizationType, shape: tuple[int, ...]) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(0).integers(0, 255, (*shape[:-1], shape[-1] // block * size), dtype=np.uint8)
    found = READERS[int(kind)](torch.from_numpy(raw))
    assert found.shape == shape
    np.testing.assert_array_equal(found.numpy(), gguf.quants.dequantize(raw, kind))


def test_one_block_of_each_by_hand() -> None:
    g = np.random.default_rng(1)
    scale, codes = np.array([120], np.uint8), g.integers(0, 256, 16, dtype=np.uint8)
    expected = np.concatenate([nibbles(codes)[0::2], nibbles(codes)[1::2]]) * power(scale)
    np.testing.assert_array_equal(mxfp4(torch.from_numpy(np.concatenate([scale, codes]))).numpy(), expected)
    scales, codes = np.array([0x38, 0x01, 0x7F, 0x00], np.uint8), g.integers(0, 256, 32, dtype=np.uint8)
    halves = [np.concatenate([nibbles(part)[0::2], nibbles(part)[1::2]]) for part in codes.reshape(4, 8)]
    factors = [1.0, float(scales[1:2].view(E4M3)[0]), 0.0, 0.0]
    found = nvfp4(torch.from_numpy(np.concatenate([scales, codes]))).numpy()
    np.testing.assert_array_equal(found, np.concatenate([h * f for h, f in zip(halves, factors, strict=True)]))


def test_a_model_in_both_types_with_tensor_scales(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tensors = load_file(tiny_llama / "model.safetensors")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 3)
    writer = gguf.GGUFWriter(tmp_path / "packed.gguf", "llama")
    writer.add_block_count(3)
    writer.add_context_length(256)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(64)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<s>", "</s>", "AB", *(chr(0x21 + i) for i in range(61))])
    writer.add_token_merges(["A B"])
    expected, generator = {}, np.random.default_rng(0)
    for name, tensor in tensors.items():
        stem, _, suffix = name.rpartition(".")
        called = names.get_name(stem)
        kind = {"up_proj": "NVFP4", "gate_proj": "NVFP4", "o_proj": "MXFP4"}.get(stem.rpartition(".")[2])
        if kind is None:
            values = tensor
            if "q_proj" in name or "k_proj" in name:  # llama.cpp interleaves the halves of a rotary head
                values = tensor.view(4, 2, 8, 64).transpose(1, 2).reshape(64, 64)
            writer.add_tensor(f"{called}.{suffix}", values.contiguous().numpy())
            continue
        ggml = gguf.GGMLQuantizationType[kind]
        blocks, size = tensor.numel() // gguf.GGML_QUANT_SIZES[ggml][0], gguf.GGML_QUANT_SIZES[ggml][1]
        raw = generator.integers(0, 256, (blocks, size), dtype=np.uint8)
        raw[:, : size % 16] = generator.integers(40, 60, (blocks, size % 16), dtype=np.uint8)  # the scales
        raw = raw.reshape(tensor.shape[0], -1)
        writer.add_tensor(f"{called}.weight", raw, raw_dtype=ggml)
        expected[name] = gguf.quants.dequantize(raw, ggml)
        if "up_proj" in name:  # gate_proj has none, which is a scale of 1
            writer.add_tensor(f"{called}.scale", np.array([0.0123], np.float32))
            writer.add_tensor(f"{called}.input_scale", np.array([7.0], np.float32))
            expected[name] = expected[name] * np.float32(0.0123)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    opened = open_model(str(tmp_path / "packed.gguf"))
    state = opened.model.state_dict()
    assert len(expected) == 9
    for name, values in expected.items():
        np.testing.assert_array_equal(state[name].numpy(), values, err_msg=name)
    assert "from a GGUF file in F32, NVFP4, MXFP4 and already carry that format's error" in opened.notes[0]
