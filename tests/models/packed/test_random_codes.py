"""Every form with random codes and scales, against a second decoder: NaN, infinities, -0 and ragged ends too."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_bits import E2M3, E3M2, E4M3, E5M2, blocked, nibbles, power, six, tiled
from safetensors.torch import save_file

from srdd.models.checkpoint_sites import checkpoint_sites, matrices_from
from srdd.models.files.checkpoint import Checkpoint, open_checkpoint

NAME = "model.layers.3.mlp.up_proj"
SHAPES = [(1, 32), (7, 64), (100, 96), (129, 288), (300, 160)]
Case = tuple[dict[str, torch.Tensor], np.ndarray]


def bytes_of(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.integers(0, 256, shape, dtype=np.uint8)


def as_torch(raw: np.ndarray, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(raw)).view(dtype)


def opened(
    folder: Path, tensors: dict[str, torch.Tensor], metadata: dict | None = None, **config: object
) -> Checkpoint:
    save_file(tensors, folder / "model.safetensors", metadata=metadata)
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return open_checkpoint(str(folder))


def same(found: torch.Tensor, expected: np.ndarray) -> None:
    """Equal bit for bit, and NaN where NaN is."""
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.contiguous().numpy(), expected)
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found.contiguous().numpy())[~nan], np.signbit(expected)[~nan])


def ct_nvfp4(g: np.random.Generator, n: int, k: int) -> Case:
    codes, scale, whole = bytes_of(g, n, k // 2), bytes_of(g, n, k // 16), np.float32(g.uniform(100, 9000))
    tensors = {
        "weight_packed": as_torch(codes),
        "weight_scale": as_torch(scale, torch.float8_e4m3fn),
        "weight_global_scale": torch.tensor([whole]),
        "input_global_scale": torch.tensor([3.0]),
    }
    return tensors, tiled(nibbles(codes), scale.view(E4M3).astype(np.float32) / whole, 1, 16)


def ct_mxfp4(g: np.random.Generator, n: int, k: int) -> Case:
    codes, scale = bytes_of(g, n, k // 2), bytes_of(g, n, k // 32)
    return {"weight_packed": as_torch(codes), "weight_scale": as_torch(scale)}, tiled(
        nibbles(codes), power(scale), 1, 32
    )


def ct_mxfp6(g: np.random.Generator, n: int, k: int) -> Case:
    codes, scale = bytes_of(g, n, k * 3 // 4), bytes_of(g, n, k // 32)
    tensors = {"weight_packed": as_torch(codes), "weight_scale": as_torch(scale)}
    return tensors, tiled(six(codes, E2M3), power(scale), 1, 32)


def ct_mxfp8(g: np.random.Generator, n: int, k: int) -> Case:
    codes, scale = bytes_of(g, n, k), bytes_of(g, n, k // 32)
    tensors = {"weight": as_torch(codes, torch.float8_e4m3fn), "weight_scale": as_torch(scale)}
    return tensors, tiled(codes.view(E4M3).astype(np.float32), power(scale), 1, 32)


def modelopt_nvfp4(g: np.random.Generator, n: int, k: int) -> Case:
    codes, scale, whole = bytes_of(g, n, k // 2), bytes_of(g, n, k // 16), np.float32(g.uniform(1e-5, 1e-3))
    tensors = {
        "weight": as_torch(codes),
        "weight_scale": as_torch(scale, torch.float8_e4m3fn),
        "weight_scale_2": torch.tensor(whole),
        "input_scale": torch.tensor(2.0),
    }
    return tensors, tiled(nibbles(codes), scale.view(E4M3).astype(np.float32) * whole, 1, 16)


def quark_mxfp4(g: np.random.Generator, n: int, k: int) -> Case:
    codes, scale = bytes_of(g, n, k // 2), bytes_of(g, n, k // 32)
    return {"weight": as_torch(codes), "weight_scale": as_torch(scale)}, tiled(nibbles(codes), power(scale), 1, 32)


def quark_mxfp6_e3m2(g: np.random.Generator, n: int, k: int) -> Case:
    codes, scale = bytes_of(g, n, k * 3 // 4), bytes_of(g, n, k // 32)
    return {"weight": as_torch(codes), "weight_scale": as_torch(scale)}, tiled(six(codes, E3M2), power(scale), 1, 32)


def fp8_tensor(g: np.random.Generator, n: int, k: int) -> Case:
    codes, scale = bytes_of(g, n, k), g.uniform(1e-3, 1, (1, 1)).astype(np.float32)
    tensors = {
        "weight": as_torch(codes, torch.float8_e4m3fn),
        "weight_scale": torch.from_numpy(scale).reshape(()),
        "input_scale": torch.tensor(1.0),
    }
    return tensors, tiled(codes.view(E4M3).astype(np.float32), scale, n, k)


def fp8_rows(g: np.random.Generator, n: int, k: int) -> Case:
    codes, scale = bytes_of(g, n, k), torch.from_numpy(g.uniform(1e-3, 1, (n, 1))).bfloat16()
    tensors = {"weight": as_torch(codes, torch.float8_e5m2), "weight_scale": scale}
    return tensors, tiled(codes.view(E5M2).astype(np.float32), scale.float().numpy(), 1, k)


def fp8_blocks(g: np.random.Generator, n: int, k: int) -> Case:
    codes = bytes_of(g, n, k)
    scale = g.uniform(1e-4, 1e-2, (-(-n // 128), -(-k // 128))).astype(np.float32)
    tensors = {"weight": as_torch(codes, torch.float8_e4m3fn), "weight_scale_inv": torch.from_numpy(scale)}
    return tensors, tiled(codes.view(E4M3).astype(np.float32), scale, 128, 128)


def fp8_blocks_of_powers(g: np.random.Generator, n: int, k: int) -> Case:
    codes, scale = bytes_of(g, n, k), bytes_of(g, -(-n // 128), -(-k // 128))
    tensors = {
        "weight": as_torch(codes, torch.float8_e4m3fn),
        "weight_scale_inv": as_torch(scale, torch.float8_e8m0fnu),
    }
    return tensors, tiled(codes.view(E4M3).astype(np.float32), power(scale), 128, 128)


def fp8_blocks_of_modelopt(g: np.random.Generator, n: int, k: int) -> Case:
    tensors, values = fp8_blocks(g, n, k)
    scale = tensors.pop("weight_scale_inv")
    return {**tensors, "weight_scale": scale[:, None, :, None].contiguous()}, values


MAKERS = [value for value in list(globals().values()) if getattr(value, "__annotations__", {}).get("return") == Case]
SIX_BITS = {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp6_e3m2", "group_size": 32}}}


def test_there_are_twelve_makers() -> None:
    assert len(MAKERS) == 12


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_codes(maker: Callable[..., Case], shape: tuple[int, int], tmp_path: Path) -> None:
    tensors, expected = maker(np.random.default_rng(shape[0]), *shape)
    config = {"quantization_config": SIX_BITS} if maker is quark_mxfp6_e3m2 else {}
    named = {f"{NAME}.{local}": tensor for local, tensor in tensors.items()}
    checkpoint = opened(tmp_path, named | {f"{NAME}.bias": torch.ones(shape[0])}, **config)
    for max_bytes in (1, 5000, 2**26):
        chunks = list(checkpoint.row_chunks(f"{NAME}.weight", max_bytes=max_bytes))
        assert all(len(chunk) % 32 == 0 for chunk in chunks[:-1])
        same(torch.cat(chunks), expected)
    found = checkpoint_sites(checkpoint)
    assert [(site.name, site.layer, site.numel) for site in found.sites] == [(NAME, 3, shape[0] * shape[1])]
    listed = {skipped.name: skipped.parameters for skipped in found.skipped}
    assert listed.pop(f"{NAME}.bias") == shape[0]
    assert listed == dict.fromkeys((n for n in named if n.rpartition(".")[2] not in ("weight", "weight_packed")), 0)
    assert found.parameters == checkpoint.identity.parameter_count == shape[0] * shape[1] + shape[0]


def torchao(kind: str, *, swizzled: bool, block: object = 32) -> dict[str, str]:
    flags = {"is_swizzled_scales": swizzled, "block_size": block}
    return {f"{NAME}.weight": json.dumps({"_type": kind, "_data": flags})}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", ["mxfp4", "mxfp8", "nvfp4"])
def test_scales_of_torchao_are_put_in_order(form: str, shape: tuple[int, int], tmp_path: Path) -> None:
    g, (n, k) = np.random.default_rng(7), shape
    group = 16 if form == "nvfp4" else 32
    codes, scale = bytes_of(g, n, k if form == "mxfp8" else k // 2), bytes_of(g, n, k // group)
    values = codes.view(E4M3).astype(np.float32) if form == "mxfp8" else nibbles(codes)
    factors = power(scale) if group == 32 else scale.view(E4M3).astype(np.float32) * np.float32(0.003)
    tensors = {
        f"{NAME}._weight_qdata": as_torch(codes, torch.float8_e4m3fn if form == "mxfp8" else torch.uint8),
        f"{NAME}._weight_scale": as_torch(blocked(scale), torch.float8_e4m3fn if group == 16 else torch.float8_e8m0fnu),
    }
    if form == "nvfp4":
        tensors[f"{NAME}._weight_per_tensor_scale"] = torch.tensor(np.float32(0.003))
    kind = "NVFP4Tensor" if form == "nvfp4" else "MXTensor"
    checkpoint = opened(tmp_path, tensors, torchao(kind, swizzled=True, block=group))
    for max_bytes in (1, 2**26):
        same(
            torch.cat(list(checkpoint.row_chunks(f"{NAME}.weight", max_bytes=max_bytes))),
            tiled(values, factors, 1, group),
        )


def test_codes_and_scales_in_shards_of_their_own(tmp_path: Path) -> None:
    tensors, expected = ct_nvfp4(np.random.default_rng(5), 100, 96)
    where = {}
    for number, (local, tensor) in enumerate(tensors.items(), 1):
        file = f"model-{number:05d}-of-{len(tensors):05d}.safetensors"
        save_file({f"{NAME}.{local}": tensor}, tmp_path / file)
        where[f"{NAME}.{local}"] = file
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    same(torch.cat(list(open_checkpoint(str(tmp_path)).row_chunks(f"{NAME}.weight"))), expected)


def test_gpt_oss_is_the_transpose_of_what_lies_in_the_file(tmp_path: Path) -> None:
    """A square weight, where no shape would tell; read in runs along in, and by the scan as [out, in]."""
    g, name = np.random.default_rng(1), "model.layers.0.mlp.experts.down_proj"
    codes, scale = bytes_of(g, 3, 96, 3, 16), g.integers(118, 130, (3, 96, 3), dtype=np.uint8)
    tensors = {f"{name}_blocks": as_torch(codes), f"{name}_scales": as_torch(scale), f"{name}_bias": torch.ones(3, 96)}
    checkpoint = opened(tmp_path, tensors)
    expected = (nibbles(codes) * power(scale)[..., None]).reshape(3, 96, 96)  # [experts, out, in]
    assert checkpoint.tensors[name].shape == (3, 96, 96)
    for max_bytes in (1, 2**26):
        for expert in range(3):
            chunks = list(checkpoint.row_chunks(name, expert=expert, max_bytes=max_bytes))
            same(torch.cat(chunks), expected[expert].T)
        same(
            torch.cat(list(checkpoint.row_chunks(name, max_bytes=max_bytes))),
            expected.transpose(0, 2, 1).reshape(-1, 96),
        )
    (site,) = checkpoint_sites(checkpoint).sites
    assert (site.name, site.transposed) == (name, True)
    for expert, chunks in enumerate(matrices_from(checkpoint, site)):
        same(torch.cat(list(chunks), 1), expected[expert])


def test_fused_experts_of_modelopt_hold_two_neighbours_along_in(tmp_path: Path) -> None:
    g, name = np.random.default_rng(2), "model.layers.0.feed_forward.experts.gate_up_proj"
    flat = bytes_of(g, 2, 24, 48)  # [experts, out, in / 2]
    scale, whole = bytes_of(g, 2, 24, 6), np.array([0.25, 0.001], np.float32)
    tensors = {
        name: as_torch(flat.transpose(0, 2, 1)),
        f"{name}_weight_scale": as_torch(scale.transpose(0, 2, 1), torch.float8_e4m3fn),
        f"{name}_weight_scale_2": torch.from_numpy(whole),
        f"{name}_input_scale": torch.ones(2),
    }
    checkpoint = opened(tmp_path, tensors, model_type="llama4_text")
    expected = [tiled(nibbles(flat[e]), scale[e].view(E4M3).astype(np.float32) * whole[e], 1, 16) for e in range(2)]
    assert checkpoint.tensors[name].shape == (2, 96, 24)
    (site,) = checkpoint_sites(checkpoint).sites
    for max_bytes in (1, 2**26):
        for expert in range(2):
            same(torch.cat(list(checkpoint.row_chunks(name, expert=expert, max_bytes=max_bytes))), expected[expert].T)
    for expert, chunks in enumerate(matrices_from(checkpoint, site)):
        same(torch.cat(list(chunks), 1), expected[expert])


@pytest.mark.parametrize("scale_shape", [(), (2,), (2, 1, 1), (2, 200), (2, 200, 1), (2, 2, 3)], ids=str)
def test_fused_experts_in_fp8(scale_shape: tuple[int, ...], tmp_path: Path) -> None:
    g, name = np.random.default_rng(3), "model.layers.0.mlp.experts.gate_up_proj"
    codes, scale = bytes_of(g, 2, 200, 300), g.uniform(0.1, 1, scale_shape).astype(np.float32)
    tensors = {name: as_torch(codes, torch.float8_e4m3fn), f"{name}_scale_inv": torch.from_numpy(np.asarray(scale))}
    checkpoint = opened(tmp_path, tensors)
    grids: dict[tuple[int, ...], tuple[int, int, int, int]] = {
        (): (1, 1, 200, 300), (2,): (1, 1, 200, 300), (2, 1, 1): (1, 1, 200, 300),
        (2, 200): (200, 1, 1, 300), (2, 200, 1): (200, 1, 1, 300), (2, 2, 3): (2, 3, 128, 128),
    }  # fmt: skip
    down, across, high, wide = grids[scale_shape]
    each = np.broadcast_to(scale.flatten(), (2,)).reshape(2, 1, 1) if scale.size < 3 else scale.reshape(2, down, across)
    for max_bytes in (1, 2**26):
        for expert in range(2):
            chunks = list(checkpoint.row_chunks(name, expert=expert, max_bytes=max_bytes))
            same(torch.cat(chunks), tiled(codes[expert].view(E4M3).astype(np.float32), each[expert], high, wide))


def test_every_byte_of_every_type() -> None:
    from srdd.models.files.packed import codes

    raw = np.arange(256, dtype=np.uint8)
    same(codes.nibble_pairs(torch.from_numpy(raw)), nibbles(raw))
    same(codes.e8m0(torch.from_numpy(raw)), power(raw))
    low_first = np.concatenate([nibbles(raw)[0::2], nibbles(raw)[1::2]])
    same(codes.split_nibbles(torch.from_numpy(raw)), low_first)
    for name, element in (("E2M3", E2M3), ("E3M2", E3M2)):
        same(codes.SIX_BIT[name], np.arange(64, dtype=np.uint8).view(element).astype(np.float32))
        triples = np.random.default_rng(0).integers(0, 256, (50, 96), dtype=np.uint8)
        same(codes.six_bits(torch.from_numpy(triples), name), six(triples, element))
