"""GGUF's MXFP4 and NVFP4: scales and codes of a block lie together, and nibbles are split, not interleaved.

Not here: the file (srdd.models.files.gguf, which hands its tensors over one by one). MXFP4 is 17 bytes for 32 values:
an E8M0 scale, then 16 bytes whose low nibbles are the first half. NVFP4 is 36 bytes for 64: four scales in unsigned
E4M3, one for 16, then 4 x 8 bytes; the tensor's own scale is a tensor beside it, called .scale, and left out when it
is 1. ggml doubles the codes and halves the scales; the values are the same.

Worked number: the MXFP4 block 7f 21 00 ... has scale 1, value 0 is 0.5 (nibble 1) and value 16 is 1 (nibble 2).

Source: gguf/quants.py of 0.19, ggml-common.h (block_mxfp4, block_nvfp4).
"""

from __future__ import annotations

from torch import Tensor

from srdd.models.files.packed.codes import e8m0, split_nibbles, unsigned_e4m3


def mxfp4(raw: Tensor) -> Tensor:
    """Bytes [..., 17 n] to float32 [..., 32 n]."""
    blocks = raw.reshape(*raw.shape[:-1], -1, 17)
    return (split_nibbles(blocks[..., 1:]) * e8m0(blocks[..., :1].contiguous())).flatten(-2)


def nvfp4(raw: Tensor) -> Tensor:
    """Bytes [..., 36 n] to float32 [..., 64 n], without the tensor's own scale."""
    blocks = raw.reshape(*raw.shape[:-1], -1, 36)
    codes = split_nibbles(blocks[..., 4:].reshape(*blocks.shape[:-1], 4, 8))
    return (codes * unsigned_e4m3(blocks[..., :4]).unsqueeze(-1)).flatten(-3)


# ggml type -> how its blocks are read
READERS = {39: mxfp4, 40: nvfp4}
