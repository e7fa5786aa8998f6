"""ModelOpt NVFP4: bytes called `weight`, a block scale in E4M3 and weight_scale_2, by which they are multiplied.

Not here: its MXFP4, which lies as Quark's does (quark.py), and its 8-bit forms (float8.py). Fused experts are stored
[experts, in / 2, out], two neighbours along in to a byte, as their architectures store the weight itself.

Source: modelopt/torch/quantization/qtensor/nvfp4_tensor.py and torch/export/unified_export_hf.py of 0.47.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from srdd.models.files.packed import groups
from srdd.models.files.packed.codes import nibble_pairs
from srdd.models.files.packed.contract import Facts, Module, Packed, expect, read, require, weight_name
from srdd.models.files.safetensors import StoredTensor

KNOWN = "NVFP4 of ModelOpt"


def recognise(module: Module, facts: Facts) -> Iterator[Packed]:
    """Weights in bytes with scales in E4M3, plain or fused. Raises SourceError for scales that do not fit."""
    for local, codes in module.items():
        scale_name = "weight_scale" if local == "weight" else f"{local}_weight_scale"
        scale = module.get(scale_name)
        if codes.dtype != "U8" or scale is None or scale.dtype != "F8_E4M3":
            continue
        name, tensor_scale = weight_name(codes, local), require(module, f"{scale_name}_2", codes)
        along_in = (codes.shape[0], codes.shape[1] // 8, codes.shape[2]) if len(codes.shape) == 3 else None
        if scale.shape == along_in and codes.shape[1] % 8 == 0:
            yield _transposed(name, codes, scale, tensor_scale)
        else:
            yield groups.nv(name, codes, scale, tensor_scale)


def _transposed(name: str, codes: StoredTensor, scale: StoredTensor, tensor_scale: StoredTensor) -> Packed:
    experts, half, out = codes.shape
    shape = (experts, 2 * half, out)
    expect(tensor_scale, ("F32",))
    groups.expect_one_each(tensor_scale, shape)

    def rows(matrix: int, first: int, count: int) -> Tensor:
        """Rows along in; whole groups of 16, as runs of rows begin at multiples of 128."""
        raw = read(codes, matrix * half + first // 2, -(-count // 2))
        values = nibble_pairs(raw.view(torch.uint8).unsqueeze(-1)).transpose(1, 2).flatten(0, 1)
        block = read(scale, matrix * (half // 8) + first // 16, -(-count // 16))
        factors = block.float() * groups.one_of(tensor_scale, matrix)
        return values * factors.repeat_interleave(16, 0)

    return Packed(name, shape, "NVFP4", (codes, scale, tensor_scale), rows, transposed=True)
