"""Counts of one packed weight: its codes, its scales, its values. Rows in chunks, so memory stays bounded.

Not here: what the counts mean (srdd.analysis.audit) and the reference (comparing.py).

Worked number: NVFP4 [4096, 4096] is 8 MiB of codes and 1 MiB of scales, read once, and 64 MiB of values, in one chunk.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from srdd.analysis.audit.facts import Codes, Scales, TensorScale
from srdd.models.files.checkpoint import Checkpoint
from srdd.models.files.packed.codes import e8m0
from srdd.models.files.packed.contract import Packed, read
from srdd.models.files.packed.groups import POWERS
from srdd.models.files.safetensors import StoredTensor

_CHUNK_BYTES = 4 * 2**20  # counting takes eight bytes for each
_BITS = {"NVFP4": 4, "MXFP4": 4, "MXFP6": 6}  # of a code; 8 for all others
_NO_SIGN = {4: 0x77, 8: 0x7F}  # the bits of a byte of codes that are not signs
_E4M3 = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(torch.float8_e4m3fn).to(torch.float64)


def codes_of(weight: Packed) -> Codes:
    """How often each byte of its codes occurs."""
    counts = np.zeros(256, dtype=np.int64)
    for raw in _lines(weight.parts[0]):
        counts += np.bincount(raw.flatten().numpy(), minlength=256)
    return Codes(bits_of(weight), tuple(counts.tolist()))


def bits_of(weight: Packed) -> int:
    return _BITS.get(weight.family, 8)


def scales_of(weight: Packed) -> Scales:
    """Counts of its scales, tensor scales apart."""
    scale = weight.parts[1]
    if scale.dtype in POWERS or scale.dtype == "F8_E4M3":
        return _of_bytes(weight, scale)
    values = read(scale).to(torch.float64).flatten()
    zero = values == 0
    good = values[values.isfinite() & (values > 0)]
    return Scales(
        scale.name,
        scale.dtype,
        len(values),
        nan=int(values.isnan().sum()),
        infinite=int(values.isinf().sum()),
        negative=int((values < 0).sum()),
        zero=int(zero.sum()),
        zero_over_codes=_zero_tiles_over_codes(weight, zero) if bool(zero.any()) else 0,
        low=float(good.min()) if len(good) else None,
        high=float(good.max()) if len(good) else None,
    )


def _of_bytes(weight: Packed, scale: StoredTensor) -> Scales:
    counts = np.zeros(256, dtype=np.int64)
    for first, count in _runs(scale):
        counts += np.bincount(_scale_lines(weight, first, count).flatten().numpy(), minlength=256)
    powers = scale.dtype in POWERS
    values = e8m0(torch.arange(256).to(torch.uint8)).to(torch.float64) if powers else _E4M3
    occurs = torch.from_numpy(counts)
    zero = int(occurs[values == 0].sum())
    good = values[(occurs > 0) & values.isfinite() & (values > 0)]
    return Scales(
        scale.name,
        scale.dtype,
        int(counts.sum()),
        nan=int(occurs[values.isnan()].sum()),
        negative=int(occurs[values < 0].sum()),
        zero=zero,
        zero_over_codes=_zero_blocks_over_codes(weight) if zero else 0,
        at_top=int(counts[254 if powers else 126]),
        low=float(good.min()) if len(good) else None,
        high=float(good.max()) if len(good) else None,
    )


def tensor_scale_of(weight: Packed) -> TensorScale | None:
    """The second scale of NVFP4; None where there is none."""
    if len(weight.parts) < 3:
        return None
    return one_scale(weight.parts[2], divides=weight.parts[2].name.endswith("global_scale"))


def one_scale(tensor: StoredTensor, *, divides: bool = False) -> TensorScale:
    return TensorScale(tensor.name, tuple(read(tensor).flatten().to(torch.float64).tolist()), divides)


def power_of(checkpoint: Checkpoint, name: str) -> tuple[int, float]:
    """How many values are not finite, and the sum of squares of the others."""
    nonfinite, power = 0, 0.0
    for chunk in checkpoint.row_chunks(name):
        squares = float(torch.linalg.vector_norm(chunk, dtype=torch.float64)) ** 2
        if not math.isfinite(squares):
            good = chunk.isfinite()
            nonfinite += int((~good).sum())
            squares = float(chunk[good].to(torch.float64).square().sum())
        power += squares
    return nonfinite, power


def tile_of(weight: Packed) -> tuple[int, int]:
    """Rows and columns that share a scale."""
    size = re.search(r"(\d+) x (\d+)", weight.form)
    if size is not None:
        return int(size[1]), int(size[2])
    if weight.form.startswith("FP8 per tensor"):
        return weight.shape[-2], weight.shape[-1]
    if weight.form.startswith("FP8 per row"):
        return 1, weight.shape[-1]
    return 1, 16 if weight.family == "NVFP4" else 32


def _scale_lines(weight: Packed, first: int, count: int) -> Tensor:
    """Lines of its scales as bytes, in order also where they are swizzled."""
    return (weight.lines or read)(weight.parts[1], first, count).contiguous().view(torch.uint8)


def _runs(tensor: StoredTensor) -> Iterator[tuple[int, int]]:
    """Runs of lines of some MiB: (first, how many). Multiples of 128, as tiles are that high."""
    lines = math.prod(tensor.shape[:-1])
    width = max(tensor.shape[-1] if tensor.shape else 1, 1)
    step = max(_CHUNK_BYTES // width // 128 * 128, 128)
    for first in range(0, lines, step):
        yield first, min(step, lines - first)


def _lines(tensor: StoredTensor) -> Iterator[Tensor]:
    for first, count in _runs(tensor):
        yield read(tensor, first, count).view(torch.uint8)


def _zero_blocks_over_codes(weight: Packed) -> int:
    """Blocks with a scale of 0 in E4M3 and a code that is not."""
    codes, scale = weight.parts[:2]
    along = math.prod(codes.shape[:-1]) // math.prod(scale.shape[:-1])  # lines of codes for a line of scales
    side_by_side = codes.shape[-1] != scale.shape[-1]  # else a block lies across lines
    found = 0
    for first, count in _runs(scale):
        zero = _scale_lines(weight, first, count) & 0x7F == 0
        if not bool(zero.any()):
            continue
        raw = read(codes, first * along, count * along).view(torch.uint8) & _NO_SIGN[bits_of(weight)] != 0
        blocks = raw.reshape(*zero.shape, -1).any(-1) if side_by_side else raw.view(count, along, -1).any(1)
        found += int((zero & blocks).sum())
    return found


def _zero_tiles_over_codes(weight: Packed, zero: Tensor) -> int:
    """Tiles of FP8 codes with a scale of 0 and a code that is not; `zero` has an entry for each scale."""
    (rows, columns), codes = weight.shape[-2:], weight.parts[0]
    high, wide = tile_of(weight)
    matrices = math.prod(weight.shape[:-2])
    down, across = -(-rows // high), -(-columns // wide)
    used = torch.zeros(matrices * down, across)
    for first, count in _runs(codes):
        set_ = (read(codes, first, count).view(torch.uint8) & 0x7F != 0).float()
        padded = torch.nn.functional.pad(set_, (0, across * wide - columns)).view(count, across, wide).amax(-1)
        at = torch.arange(first, first + count)
        used.index_add_(0, at // rows * down + at % rows // high, padded)
    used = used.flatten() > 0
    return int((zero & used).sum()) if len(zero) == len(used) else int(bool(used.any()))
