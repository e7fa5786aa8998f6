"""Codes of 4, 6 and 8 bits as float32 numbers, exactly: E2M1, E2M3, E3M2 and the E8M0 scale.

Not here: where codes lie in a checkpoint (the forms beside this file). Every table is made from the definition of its
type, sign | exponent | mantissa with subnormals and without infinities (OCP MX v1.0, section 5.3), and has a -0.

Worked number: the byte 0x79 holds two E2M1 codes, 9 (-0.5) in its low and 7 (6) in its high nibble. The bytes 0x41,
0x20, 0x0c hold four E2M3 codes of 6 bits, lowest bits first: 1, 1, 2 and 3, which is 0.125, 0.125, 0.25 and 0.375.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def _table(exponent_bits: int, mantissa_bits: int) -> Tensor:
    """The value of every code of a small float, float32 [2 ** bits]."""
    bias, half = 2 ** (exponent_bits - 1) - 1, 2 ** (exponent_bits + mantissa_bits)
    values = []
    for code in range(half):
        exponent, mantissa = divmod(code, 2**mantissa_bits)
        fraction = mantissa / 2**mantissa_bits
        values.append(2.0 ** (1 - bias) * fraction if exponent == 0 else 2.0 ** (exponent - bias) * (1 + fraction))
    return torch.tensor([*values, *(-v for v in values)], dtype=torch.float32)


E2M1 = _table(2, 1)
SIX_BIT = {"E2M3": _table(2, 3), "E3M2": _table(3, 2)}
_E8M0 = torch.tensor([2.0 ** (byte - 127) for byte in range(255)] + [float("nan")], dtype=torch.float64).float()
# GGUF's scales: E4M3 without a sign, whose NaN is 0 there.
_UNSIGNED = _table(4, 3)[:128].index_fill(0, torch.tensor([127]), 0.0).repeat(2)
# A byte is two numbers of 32 bits, moved as one of 64. Look-ups are numpy's: it takes bytes as they are for an index,
# torch makes eight bytes of each first (420 and 64 million values a second).
_BYTES = torch.arange(256)
_PAIRS = torch.stack([E2M1[_BYTES & 15], E2M1[_BYTES >> 4]], -1).contiguous().numpy().view(np.uint64).reshape(256)


def _looked_up(table: Tensor, codes: Tensor) -> Tensor:
    return torch.from_numpy(table.numpy()[codes.numpy()])


def e8m0(codes: Tensor) -> Tensor:
    """Scales from their bytes: 2^(b - 127), 255 is NaN. From uint8 or float8_e8m0fnu of any shape."""
    return _looked_up(_E8M0, codes.view(torch.uint8))


def unsigned_e4m3(codes: Tensor) -> Tensor:
    """Scales of GGUF's NVFP4 from their bytes; 0x7f is 0."""
    return _looked_up(_UNSIGNED, codes)


def nibble_pairs(raw: Tensor) -> Tensor:
    """E2M1 from bytes [..., n] to float32 [..., 2 n]: the low nibble comes first."""
    return torch.from_numpy(_PAIRS[raw.numpy()].view(np.float32))


def split_nibbles(raw: Tensor) -> Tensor:
    """E2M1 from bytes [..., n] to float32 [..., 2 n]: all low nibbles, then all high ones, as GGUF has it."""
    return nibble_pairs(raw).view(*raw.shape, 2).transpose(-1, -2).flatten(-2)


def six_bits(raw: Tensor, element: str) -> Tensor:
    """Codes of 6 bits from bytes [..., 3 n] to float32 [..., 4 n]; three little-endian bytes are four codes."""
    triples = raw.reshape(*raw.shape[:-1], -1, 3).int()
    word = triples[..., 0] | triples[..., 1] << 8 | triples[..., 2] << 16
    codes = torch.stack([word >> shift & 63 for shift in (0, 6, 12, 18)], -1)
    return _looked_up(SIX_BIT[element], codes.flatten(-2))
