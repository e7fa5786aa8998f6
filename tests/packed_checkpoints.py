"""Packed checkpoints of tiny models, rounded to nearest here with ml_dtypes and numpy: no code of srdd.

A maker takes a weight float32 [out, in] and gives the tensors of its module; `amax` is that of its fused group.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packed_bits import E2M1, E2M3, E4M3, blocked
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]
Maker = Callable[[np.ndarray, float], Tensors]


def _bytes(raw: np.ndarray, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(raw).view(np.uint8)).view(dtype)


def _two_a_byte(codes: np.ndarray) -> np.ndarray:
    """Codes 0 to 15 [N, K] to bytes [N, K / 2], even element low."""
    return (codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8)


def _four_in_three(codes: np.ndarray) -> np.ndarray:
    bits = (codes[..., None] >> np.arange(6) & 1).astype(np.uint8).reshape(len(codes), -1)
    return np.packbits(bits, axis=-1, bitorder="little")


def _powers(w: np.ndarray, top: float) -> tuple[np.ndarray, np.ndarray]:
    """E8M0 bytes [N, K / 32], never clipping, and the weight over its scales."""
    blocks = w.reshape(len(w), -1, 32)
    amax = np.abs(blocks).max(-1)
    exponent = np.ceil(np.log2(np.where(amax > 0, amax, 1.0) / top))
    byte = np.where(amax > 0, np.clip(exponent + 127, 0, 254), 0).astype(np.uint8)
    return byte, (blocks / np.exp2(byte.astype(np.float64) - 127)[..., None]).reshape(w.shape)


def _nv(w: np.ndarray, whole: float) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of codes and of E4M3 scales, under the tensor scale amax / 2688."""
    blocks = w.reshape(len(w), -1, 16)
    scale = np.minimum(np.abs(blocks).max(-1) / 6 / whole, 448).astype(E4M3)
    wide = scale.astype(np.float64)[..., None] * whole
    codes = np.divide(blocks, wide, out=np.zeros_like(blocks, np.float64), where=wide > 0).reshape(w.shape)
    return _two_a_byte(codes.astype(np.float32).astype(E2M1).view(np.uint8)), scale.view(np.uint8)


def ct_nvfp4(w: np.ndarray, amax: float) -> Tensors:
    codes, scale = _nv(w, amax / 2688)
    return {
        "weight_packed": _bytes(codes),
        "weight_scale": _bytes(scale, torch.float8_e4m3fn),
        "weight_global_scale": torch.tensor([2688 / amax]),
    }


def modelopt_nvfp4(w: np.ndarray, amax: float) -> Tensors:
    codes, scale = _nv(w, amax / 2688)
    return {
        "weight": _bytes(codes),
        "weight_scale": _bytes(scale, torch.float8_e4m3fn),
        "weight_scale_2": torch.tensor(amax / 2688),
        "input_scale": torch.tensor(0.01),
    }


def torchao_nvfp4(w: np.ndarray, amax: float) -> Tensors:
    """One scale for each tensor, whatever the group's is; scales in tiles, padded with zeros."""
    own = float(np.abs(w).max()) / 2688 or 1.0
    codes, scale = _nv(w, own)
    return {
        "_weight_qdata": _bytes(codes),
        "_weight_scale": _bytes(blocked(scale), torch.float8_e4m3fn),
        "_weight_per_tensor_scale": torch.tensor(own),
    }


def ct_mxfp4(w: np.ndarray, amax: float) -> Tensors:
    scale, values = _powers(w, 6)
    return {
        "weight_packed": _bytes(_two_a_byte(values.astype(np.float32).astype(E2M1).view(np.uint8))),
        "weight_scale": _bytes(scale),
    }


def quark_mxfp4(w: np.ndarray, amax: float) -> Tensors:
    made = ct_mxfp4(w, amax)
    return {"weight": made["weight_packed"], "weight_scale": made["weight_scale"]}


def ct_mxfp6(w: np.ndarray, amax: float) -> Tensors:
    scale, values = _powers(w, 7.5)
    codes = values.astype(np.float32).astype(E2M3).view(np.uint8)
    return {"weight_packed": _bytes(_four_in_three(codes)), "weight_scale": _bytes(scale)}


def mxfp8(w: np.ndarray, amax: float) -> Tensors:
    scale, values = _powers(w, 448)
    return {
        "weight": _bytes(values.astype(np.float32).astype(E4M3), torch.float8_e4m3fn),
        "weight_scale": _bytes(scale),
    }


def _fp8(w: np.ndarray, scale: np.ndarray) -> torch.Tensor:
    values = np.clip(np.divide(w, scale, out=np.zeros_like(w), where=np.broadcast_to(scale, w.shape) > 0), -448, 448)
    return _bytes(values.astype(np.float32).astype(E4M3), torch.float8_e4m3fn)


def fp8_tensor(w: np.ndarray, amax: float) -> Tensors:
    scale = np.float32(np.abs(w).max() / 448)
    return {"weight": _fp8(w, scale), "weight_scale": torch.tensor(scale)}


def fp8_rows(w: np.ndarray, amax: float) -> Tensors:
    scale = (np.abs(w).max(1, keepdims=True) / 448).astype(np.float32)
    return {"weight": _fp8(w, scale), "weight_scale": torch.from_numpy(scale)}


def fp8_blocks(w: np.ndarray, amax: float) -> Tensors:
    n, k = w.shape
    down, across = -(-n // 128), -(-k // 128)
    padded = np.zeros((down * 128, across * 128), np.float32)
    padded[:n, :k] = np.abs(w)
    scale = (padded.reshape(down, 128, across, 128).max((1, 3)) / 448).astype(np.float32)
    return {
        "weight": _fp8(w, scale.repeat(128, 0)[:n].repeat(128, 1)[:, :k]),
        "weight_scale_inv": torch.from_numpy(scale),
    }


MAKERS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        ct_nvfp4, modelopt_nvfp4, torchao_nvfp4, ct_mxfp4, quark_mxfp4, ct_mxfp6, mxfp8, fp8_tensor,
        fp8_rows, fp8_blocks,
    )
}  # fmt: skip
_CT = {
    "ct_nvfp4": ("nvfp4-pack-quantized", 4, "tensor_group", 16), "ct_mxfp4": ("mxfp4-pack-quantized", 4, "group", 32),
    "ct_mxfp6": ("mxfp6-pack-quantized", 6, "group", 32), "mxfp8": ("mxfp8-quantized", 8, "group", 32),
    "fp8_rows": ("float-quantized", 8, "channel", None), "fp8_tensor": ("float-quantized", 8, "tensor", None),
}  # fmt: skip


def ct_group(maker: str, targets: list[str]) -> dict[str, Any]:
    """One group of compressed-tensors' config."""
    form, bits, strategy, size = _CT[maker]
    weights: dict[str, Any] = {"num_bits": bits, "type": "float", "strategy": strategy, "symmetric": True}
    weights |= {"group_size": size} if size else {}
    weights |= {"scale_dtype": "torch.uint8"} if maker == "mxfp8" else {}
    return {"targets": targets, "format": form, "weights": weights}


def claim_of(maker: str) -> dict[str, Any] | None:
    """quantization_config for all Linears but lm_head, as its exporter writes it."""
    if maker in _CT:
        groups = {"group_0": ct_group(maker, ["Linear"])}
        return {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head", "re:.*mlp.gate$"]}
    if maker == "modelopt_nvfp4":
        return {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head", "*mlp.gate"]}
    if maker == "quark_mxfp4":
        whole = {"weight": {"dtype": "fp4", "group_size": 32}}
        return {"quant_method": "quark", "global_quant_config": whole, "exclude": ["lm_head", "*mlp.gate"]}
    if maker == "fp8_blocks":
        return {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head", "gate"]}
    return None


def pack(weights: Mapping[str, torch.Tensor], maker_of: Callable[[str], str | None]) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata; `maker_of` names the maker of a module, None for one that stays plain.

    q, k and v share their amax, and gate and up, as exporters have it.
    """
    amax: dict[str, float] = {}
    for name, weight in weights.items():
        amax[_matrix(name)] = max(amax.get(_matrix(name), 2688e-6), float(weight.float().abs().max()))
    tensors: Tensors = {}
    metadata: dict[str, str] = {"format": "pt"}
    for name, weight in weights.items():
        module = name.removesuffix(".weight")
        maker = maker_of(module) if name.endswith(".weight") and weight.dim() == 2 else None
        if maker is None:
            tensors[name] = weight.contiguous().clone()
            continue
        made = MAKERS[maker](weight.float().numpy(), amax[_matrix(name)])
        tensors |= {f"{module}.{local}": tensor for local, tensor in made.items()}
        if maker == "torchao_nvfp4":
            metadata[name] = json.dumps(
                {"_type": "NVFP4Tensor", "_data": {"is_swizzled_scales": True, "block_size": 16}}
            )
    return tensors, metadata


def _matrix(name: str) -> str:
    parent, _, role = name.removesuffix(".weight").rpartition(".")
    gate_up = ("gate_proj", "up_proj", "w1", "w3")
    known = {**dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv"), **dict.fromkeys(gate_up, "gate_up")}
    return f"{parent}.{known.get(role, role)}"


def is_linear(module: str) -> bool:
    """A Linear of a layer, routers apart."""
    return module.endswith("_proj")


def llama(layers: int = 3, hidden: int = 128, seed: int = 0, **more: Any) -> Any:
    """A tiny model whose rows have sizes of their own, as trained ones have."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=96, tie_word_embeddings=False, **more,
    )  # fmt: skip
    return spread(LlamaForCausalLM(config).bfloat16())


def moe(layers: int = 2, experts: int = 4) -> Any:
    """A tiny Qwen3-MoE."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(1)
    config = Qwen3MoeConfig(
        hidden_size=64, intermediate_size=128, moe_intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_experts=experts, num_experts_per_tok=2,
        vocab_size=96, tie_word_embeddings=False,
    )  # fmt: skip
    return spread(Qwen3MoeForCausalLM(config).bfloat16())


def spread(model: Any) -> Any:
    """Rows of different sizes, and a few large values."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(torch.rand(parameter.shape[:-1]).unsqueeze(-1) + 0.5)
                parameter.view(-1)[:: max(parameter.numel() // 5, 1)] *= 8
    return model


def saved(folder: Path, tensors: Tensors, metadata: dict[str, str] | None, config: Any, claim: Any) -> Path:
    """A folder with these tensors and the model's config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata=metadata or {"format": "pt"})
    said = json.loads(config.to_json_string()) if hasattr(config, "to_json_string") else dict(config)
    said |= {"quantization_config": claim} if claim else {}
    (folder / "config.json").write_text(json.dumps(said))
    return folder


def gpt_oss(layers: int = 2) -> Any:
    """A tiny GPT-OSS, whose experts are fused, [experts, in, out]; down_proj is square."""
    from transformers import GptOssConfig, GptOssForCausalLM

    torch.manual_seed(4)
    config = GptOssConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=96, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    model = GptOssForCausalLM(config).bfloat16()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # its experts are made without values
            if parameter.dim() == 3:
                parameter.copy_(torch.randn(parameter.shape) * 0.02)
            elif "bias" in name:
                parameter.zero_()
    return spread(model)


def pack_gpt_oss(weights: Mapping[str, torch.Tensor]) -> Tensors:
    """Experts as _blocks [experts, out, in / 32, 16] and _scales."""
    tensors: Tensors = {}
    for name, weight in weights.items():
        if weight.dim() != 3:
            tensors[name] = weight.contiguous().clone()
            continue
        experts, inner, out = weight.shape
        made = [ct_mxfp4(w.float().T.contiguous().numpy(), 1.0) for w in weight]
        codes = torch.stack([m["weight_packed"] for m in made])
        tensors[f"{name}_blocks"] = codes.view(experts, out, inner // 32, 16)
        tensors[f"{name}_scales"] = torch.stack([m["weight_scale"] for m in made])
    return tensors
