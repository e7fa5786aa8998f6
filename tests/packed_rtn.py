"""Weights packed as exporters pack them, rounded to nearest with ml_dtypes: bits by hand, no code of srdd."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from packed_bits import E2M1, E4M3
from safetensors.torch import load_file, save_file

Parts = dict[str, torch.Tensor]


def _blocks(x: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """[..., blocks, size] and the largest magnitude of each, [..., blocks]."""
    blocks = x.astype(np.float32).reshape(*x.shape[:-1], -1, size)
    return blocks, np.abs(blocks).max(-1)


def _nibbles(y: np.ndarray) -> torch.Tensor:
    """Magnitudes up to 6, [..., n] to bytes [..., n / 2], the even one in the low nibble."""
    codes = np.clip(y, -6, 6).astype(E2M1).view(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(codes[..., 0::2] | codes[..., 1::2] << 4))


def mxfp4(x: np.ndarray, *, up: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and E8M0 scales by the rule `even`; `up` makes every scale so many powers of two too large."""
    blocks, amax = _blocks(x, 32)
    mantissa, exponent = np.frexp(amax)
    exponent = exponent - 1 - 2 + (2 * mantissa >= 1.75) + up
    exponent = np.where(amax > 0, exponent, -127)
    y = np.ldexp(blocks, -exponent[..., None]).reshape(x.shape)
    return _nibbles(y), torch.from_numpy((exponent + 127).astype(np.uint8))


def nvfp4(x: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes, E4M3 scales and the tensor scale by which they are multiplied: rule `nvidia`."""
    blocks, amax = _blocks(x, 16)
    whole = np.float32(np.abs(x.astype(np.float32)).max()) / np.float32(2688)
    scale = np.minimum(amax / np.float32(6) / whole, np.float32(448)).astype(E4M3)
    d = (scale.astype(np.float32) * whole)[..., None]
    y = np.divide(blocks, d, out=np.zeros_like(blocks), where=d > 0).reshape(x.shape)
    stored = torch.from_numpy(scale.view(np.uint8)).view(torch.float8_e4m3fn)
    return _nibbles(y), stored, torch.tensor(whole)


def ct_mxfp4(x: np.ndarray, *, up: int = 0) -> Parts:
    codes, scale = mxfp4(x, up=up)
    return {"weight_packed": codes, "weight_scale": scale}


def modelopt_nvfp4(x: np.ndarray) -> Parts:
    codes, scale, whole = nvfp4(x)
    return {"weight": codes, "weight_scale": scale, "weight_scale_2": whole}


def fp8(x: np.ndarray, rows: int, columns: int, name: str = "weight_scale_inv") -> Parts:
    """Tiles of rows x columns under float32 scales amax / 448; ends may be short."""
    n, k = x.shape
    down, across = -(-n // rows), -(-k // columns)
    scale = np.zeros((down, across), np.float32)
    for i in range(down):
        for j in range(across):
            tile = np.abs(x[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].astype(np.float32))
            scale[i, j] = tile.max() / np.float32(448)
    spread = scale.repeat(rows, 0)[:n].repeat(columns, 1)[:, :k]
    codes = np.clip(x.astype(np.float32) / spread, -448, 448).astype(E4M3)
    return {"weight": torch.from_numpy(codes.view(np.uint8)).view(torch.float8_e4m3fn), name: torch.from_numpy(scale)}


def pack_folder(
    plain: Path, folder: Path, pack: Callable[[str, np.ndarray], Parts | None], changed: Mapping[str, torch.Tensor] = {}
) -> Path:
    """A copy of a folder where `pack(name, float32 values)` gives a weight's parts, or None to leave it plain."""
    folder.mkdir(parents=True)
    stored = {}
    for name, tensor in load_file(plain / "model.safetensors").items():
        parts = pack(name, tensor.float().numpy()) if tensor.dim() > 1 else None
        if parts is None:
            stored[name] = changed.get(name, tensor)
        else:
            stem = name.removesuffix("weight") if name.endswith(".weight") else f"{name}_"
            stored |= {f"{stem}{local}": part for local, part in parts.items()}
    save_file(stored, folder / "model.safetensors")
    for file in plain.iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    return folder
