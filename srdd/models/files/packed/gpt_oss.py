"""GPT-OSS: the experts' MXFP4 as NAME_blocks [experts, out, in / 32, 16] with NAME_scales [experts, out, in / 32].

Not here: biases and routers, which are plain tensors. The weight it stands for is [experts, in, out], as transformers
holds it, so runs of rows here are runs of in, for all outputs. Gate and up alternate along out, in the files and in the
weight alike, so that no row moves.

Worked number: down_proj of gpt-oss-20b, blocks [32, 2880, 90, 16], is a weight [32, 2880, 2880]: square, so that a
wrong transposition would not be seen in its shape.

Source: transformers, integrations/mxfp4.py:convert_moe_packed_tensors.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from srdd.errors import SourceError
from srdd.models.files.packed.codes import e8m0, nibble_pairs
from srdd.models.files.packed.contract import Facts, Module, Packed, expect, read, require, weight_name
from srdd.models.files.packed.groups import POWERS
from srdd.models.files.safetensors import StoredTensor

KNOWN = "MXFP4 of GPT-OSS"


def recognise(module: Module, facts: Facts) -> Iterator[Packed]:
    """Every NAME_blocks of bytes. Raises SourceError for scales that do not fit."""
    for local, codes in module.items():
        stem = local.removesuffix("_blocks")
        if stem != local and codes.dtype == "U8":
            yield _packed(weight_name(codes, stem), codes, require(module, f"{stem}_scales", codes))


def _packed(name: str, codes: StoredTensor, scale: StoredTensor) -> Packed:
    if len(codes.shape) != 4 or codes.shape[-1] != 16:
        raise SourceError(f"{codes.name} is {list(codes.shape)}; expected [experts, out, in / 32, 16]")
    experts, out, groups, _ = codes.shape
    expect(scale, POWERS, (experts, out, groups))

    def rows(matrix: int, first: int, count: int) -> Tensor:
        """A run of in for all outputs, as [in, out]; whole groups, as runs begin at multiples of 128."""
        part = slice(first // 32, -(-(first + count) // 32))
        raw = read(codes, matrix * out * groups, out * groups).view(out, groups, 16)[:, part]
        factors = e8m0(read(scale, matrix * out, out)[:, part])
        values = nibble_pairs(raw) * factors.unsqueeze(-1)
        return values.flatten(1).transpose(0, 1)

    return Packed(name, (experts, groups * 32, out), "MXFP4", (codes, scale), rows, transposed=True)
