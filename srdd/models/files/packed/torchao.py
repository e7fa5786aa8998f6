"""torchao's safetensors: MODULE._weight_qdata with _weight_scale, and what they are as JSON in the file's metadata.

Not here: its integer types, which are refused by name. Scales are swizzled where the metadata says so: in tiles of 128
rows x 4 columns, each 512 bytes in the order of NVIDIA's tensor cores, padded to whole tiles.

Worked number: of scales [200, 5], two by two tiles and 2048 bytes, scale (130, 4) lies in tile (1, 1) at row 2: byte
(1 * 2 + 1) * 512 + 2 * 16 = 1568.

Source: torchao/prototype/safetensors and mx_formats/utils.py:to_blocked of 0.18.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from srdd.errors import SourceError
from srdd.models.files.packed import float8, groups
from srdd.models.files.packed.contract import Facts, Lines, Module, Packed, as_json, expect, read, require, weight_name
from srdd.models.files.safetensors import StoredTensor

KNOWN = "MX, NVFP4 and FP8 of torchao"
_KNOWN_TYPES = ("MXTensor", "NVFP4Tensor", "Float8Tensor")


def recognise(module: Module, facts: Facts) -> Iterator[Packed]:
    """Every _NAME_qdata, as its metadata says. Raises SourceError for another type, or scales that do not fit."""
    for local, codes in module.items():
        if not (local.startswith("_") and local.endswith("_qdata")):
            continue
        stem = local.removesuffix("_qdata")
        name = weight_name(codes, stem.removeprefix("_"))
        said = as_json(facts.metadata.get(name))
        kind, flags = said.get("_type"), said.get("_data")
        if kind not in _KNOWN_TYPES or not isinstance(flags, dict):
            found = f"metadata says {kind}" if kind else "the file's metadata does not say of which type"
            raise SourceError(f"{codes.name} holds codes ({codes.dtype}) and {found}; known: {', '.join(_KNOWN_TYPES)}")
        scale = require(module, f"{stem}_scale", codes)
        lines: Lines = read
        if flags.get("is_swizzled_scales"):
            scale, lines = _unswizzled(codes, scale, 16 if kind == "NVFP4Tensor" else 32), _swizzled
        if kind == "NVFP4Tensor":
            yield groups.nv(name, codes, scale, module.get(f"{stem}_per_tensor_scale"), lines=lines)
        elif codes.dtype == "U8":
            yield groups.mx(name, codes, scale, lines=lines)
        else:
            yield float8.packed(name, codes, scale, _tiles(flags.get("block_size")), lines=lines)


def _tiles(block: object) -> tuple[tuple[int, int], ...]:
    """The tile that metadata names: [128, 128], or 32 for a run of a row."""
    sizes = [1, block] if isinstance(block, int) else block
    if not (isinstance(sizes, list) and len(sizes) == 2 and all(isinstance(size, int) and size > 0 for size in sizes)):
        return ()
    return ((sizes[0], sizes[1]),)


def _unswizzled(codes: StoredTensor, scale: StoredTensor, group: int) -> StoredTensor:
    """The scales with the shape that they have when they are put in order. Raises SourceError for too few bytes."""
    if len(codes.shape) != 2:
        raise SourceError(f"{codes.name} is {list(codes.shape)}; swizzled scales are read for matrices only")
    expect(scale, ("F8_E4M3",) if group == 16 else groups.POWERS)
    columns = codes.shape[1] * (2 if codes.dtype == "U8" else 1) // group
    across, down = -(-columns // 4), -(-codes.shape[0] // 128)
    if scale.numel != 512 * across * down:
        raise SourceError(
            f"{scale.name} holds {scale.numel} bytes; expected {512 * across * down}, in tiles of 128 x 4"
        )
    return replace(scale, shape=(codes.shape[0], columns))


def _swizzled(scale: StoredTensor, first: int, count: int) -> Tensor:
    """Lines of swizzled scales; `scale` has their shape in order."""
    columns = scale.shape[1]
    across, top = -(-columns // 4), first // 128
    tiles = replace(scale, shape=(-(-scale.shape[0] // 128), across * 512))
    typed = read(tiles, top, -(-(first + count) // 128) - top).flatten()
    row, column = torch.arange(first, first + count).unsqueeze(1), torch.arange(columns)
    tile = (row // 128 - top) * across + column // 4
    at = tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + column % 4
    return typed.view(torch.uint8)[at].view(typed.dtype)
