"""Faults of packed checkpoints: each changes tensors or config of a good one in place, at one module.

A fault is a function of the tensors, the config's claim and the module's name.
"""

from collections.abc import Callable
from typing import Any

import torch
from packed_checkpoints import MAKERS, Tensors

Claim = dict[str, Any]
Fault = Callable[[Tensors, Claim, str], None]
NV = ("ct_nvfp4", "modelopt_nvfp4")
POWERS = ("ct_mxfp4", "quark_mxfp4", "ct_mxfp6", "mxfp8")
FP8 = ("fp8_tensor", "fp8_rows", "fp8_blocks")
CLAIMED = ("ct_nvfp4", "ct_mxfp4", "ct_mxfp6", "mxfp8", "fp8_rows", "modelopt_nvfp4", "quark_mxfp4")
NIBBLES = ("ct_nvfp4", "modelopt_nvfp4", "torchao_nvfp4", "ct_mxfp4", "quark_mxfp4")

_GLOBAL = ("weight_global_scale", "weight_scale_2", "_weight_per_tensor_scale")
_SCALE = ("weight_scale", "weight_scale_inv", "_weight_scale")
_CODES = ("weight_packed", "_weight_qdata", "weight")


def part(tensors: Tensors, module: str, names: tuple[str, ...]) -> str:
    return next(f"{module}.{local}" for local in names if f"{module}.{local}" in tensors)


def set_raw(tensors: Tensors, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the bytes of a tensor."""
    old = tensors[name]
    tensors[name] = change(old.clone().view(torch.uint8)).contiguous().view(old.dtype)


def at(index: int, value: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(raw: torch.Tensor) -> torch.Tensor:
        raw.view(-1)[index] = value
        return raw

    return change


def plain(tensors: Tensors, module: str, shape: tuple[int, int] = (128, 128)) -> None:
    for name in [n for n in tensors if n.startswith(f"{module}.")]:
        del tensors[name]
    tensors[f"{module}.weight"] = torch.randn(shape).mul(0.02).bfloat16()


# --- configs ------------------------------------------------------------------------------------------------------


def ignored(tensors: Tensors, claim: Claim, module: str) -> None:
    claim.setdefault("exclude" if claim["quant_method"] == "quark" else "ignore", []).append(module)


def forgotten(tensors: Tensors, claim: Claim, module: str) -> None:
    plain(tensors, module)


def in_no_group(tensors: Tensors, claim: Claim, module: str) -> None:
    modules = {n.rpartition(".")[0] for n in tensors if n.endswith("weight_scale")}
    claim["config_groups"]["group_0"]["targets"] = sorted(modules - {module})


def plain_in_no_group(tensors: Tensors, claim: Claim, module: str) -> None:
    in_no_group(tensors, claim, module)
    plain(tensors, module)


# --- fused modules ------------------------------------------------------------------------------------------------


def another_format(tensors: Tensors, claim: Claim, module: str) -> None:
    for name in [n for n in tensors if n.startswith(f"{module}.")]:
        del tensors[name]
    made = MAKERS["fp8_rows"](torch.randn(128, 128).mul(0.02).numpy(), 1.0)
    tensors |= {f"{module}.{local}": tensor for local, tensor in made.items()}


def unequal_global(tensors: Tensors, claim: Claim, module: str) -> None:
    tensors[part(tensors, module, _GLOBAL)] *= 1.3


# --- scales -------------------------------------------------------------------------------------------------------


def of_global(value: float) -> Fault:
    def fault(tensors: Tensors, claim: Claim, module: str) -> None:
        tensors[part(tensors, module, _GLOBAL)].fill_(value)

    return fault


def no_global(tensors: Tensors, claim: Claim, module: str) -> None:
    del tensors[part(tensors, module, _GLOBAL)]


def no_scale(tensors: Tensors, claim: Claim, module: str) -> None:
    del tensors[part(tensors, module, _SCALE)]


def short_scale(tensors: Tensors, claim: Claim, module: str) -> None:
    name = part(tensors, module, _SCALE)
    tensors[name] = tensors[name][:-1].clone()


def scale_byte(value: int, index: int = 3) -> Fault:
    def fault(tensors: Tensors, claim: Claim, module: str) -> None:
        set_raw(tensors, part(tensors, module, _SCALE), at(index, value))

    return fault


def zero_scales(tensors: Tensors, claim: Claim, module: str) -> None:
    set_raw(tensors, part(tensors, module, _SCALE), torch.zeros_like)


def float_scale(value: float) -> Fault:
    def fault(tensors: Tensors, claim: Claim, module: str) -> None:
        tensors[part(tensors, module, _SCALE)].view(-1)[0] = value

    return fault


def saturated(tensors: Tensors, claim: Claim, module: str) -> None:
    """As a tensor scale four times too small makes them."""
    name = part(tensors, module, _SCALE)
    tensors[name] = (tensors[name].float() * 16).clamp(max=448).to(torch.float8_e4m3fn)


# --- codes --------------------------------------------------------------------------------------------------------


def without_sign(tensors: Tensors, claim: Claim, module: str) -> None:
    name = part(tensors, module, _CODES)
    mask = 0x77 if tensors[name].dtype == torch.uint8 else 0x7F
    set_raw(tensors, name, lambda raw: raw & mask)


def without_nibble(tensors: Tensors, claim: Claim, module: str) -> None:
    set_raw(tensors, part(tensors, module, _CODES), lambda raw: raw & 0x0F)


def without_last_bit(tensors: Tensors, claim: Claim, module: str) -> None:
    name = part(tensors, module, _CODES)
    mask = 0xEE if tensors[name].dtype == torch.uint8 else 0xFE
    set_raw(tensors, name, lambda raw: raw & mask)


def without_a_value(tensors: Tensors, claim: Claim, module: str) -> None:
    """Every 1 (code 2) becomes a 0.5."""

    def change(raw: torch.Tensor) -> torch.Tensor:
        raw = torch.where(raw & 15 == 2, raw - 1, raw)
        return torch.where(raw >> 4 == 2, raw - 16, raw)

    set_raw(tensors, part(tensors, module, _CODES), change)


def all_zero(tensors: Tensors, claim: Claim, module: str) -> None:
    set_raw(tensors, part(tensors, module, _CODES), torch.zeros_like)


def nan_code(tensors: Tensors, claim: Claim, module: str) -> None:
    set_raw(tensors, part(tensors, module, _CODES), at(77, 0x7F))


# --- sizes --------------------------------------------------------------------------------------------------------


def inverted_global(tensors: Tensors, claim: Claim, module: str) -> None:
    name = part(tensors, module, _GLOBAL)
    tensors[name] = 1 / tensors[name]


def inverted_scale(tensors: Tensors, claim: Claim, module: str) -> None:
    name = part(tensors, module, _SCALE)
    tensors[name] = 1 / tensors[name]


def inverted_powers(tensors: Tensors, claim: Claim, module: str) -> None:
    set_raw(tensors, part(tensors, module, _SCALE), lambda raw: 254 - raw)


def doubled(tensors: Tensors, claim: Claim, module: str) -> None:
    name = part(tensors, module, _SCALE)
    tensors[name] = tensors[name] + 1 if tensors[name].dtype == torch.uint8 else tensors[name] * 2


# --- places -------------------------------------------------------------------------------------------------------


def exchanged(one: str, other: str) -> Fault:
    """Everything of two modules changed places."""

    def fault(tensors: Tensors, claim: Claim, module: str) -> None:
        theirs = module.replace(one, other)
        for name in [n for n in tensors if n.startswith(f"{module}.")]:
            twin = name.replace(module, theirs)
            tensors[name], tensors[twin] = tensors[twin], tensors[name]

    return fault


def rows_as(order: Callable[[int], list[int]]) -> Fault:
    def fault(tensors: Tensors, claim: Claim, module: str) -> None:
        for name in [n for n in tensors if n.startswith(f"{module}.")]:
            rows = len(tensors[name]) if tensors[name].dim() == 2 else 0
            if rows > 1:
                old = tensors[name]
                tensors[name] = old.view(torch.uint8)[order(rows)].contiguous().view(old.dtype)

    return fault


def some_rows(tensors: Tensors, claim: Claim, module: str) -> None:
    rows_as(lambda n: [1, 0, *range(2, n)])(tensors, claim, module)


# --- leftovers ----------------------------------------------------------------------------------------------------


def orphan(tensors: Tensors, claim: Claim, module: str) -> None:
    tensors["lm_head.weight_scale"] = torch.ones(96, 1)


def extra(tensors: Tensors, claim: Claim, module: str) -> None:
    tensors[f"{module.rpartition('.')[0]}.extra_proj.weight"] = torch.randn(8, 8).bfloat16()


def beside_a_plain_weight(tensors: Tensors, claim: Claim, module: str) -> None:
    """Codes became a plain weight, and their scales stayed."""
    codes = part(tensors, module, _CODES)
    rows = len(tensors.pop(codes))
    tensors[f"{module}.weight"] = torch.randn(rows, 64).mul(0.02).bfloat16()


def lacking(tensors: Tensors, claim: Claim, module: str) -> None:
    for name in [n for n in tensors if n.startswith(f"{module}.")]:
        del tensors[name]


def input_scale(value: float | None) -> Fault:
    def fault(tensors: Tensors, claim: Claim, module: str) -> None:
        if value is None:
            del tensors[f"{module}.input_scale"]
        else:
            tensors[f"{module}.input_scale"].fill_(value)

    return fault


NAN, INF = float("nan"), float("inf")
# Bytes called `weight` without a scale might be any integers: no known form, which is refused
_TELLS_SCALE = tuple(maker for maker in MAKERS if maker not in ("modelopt_nvfp4", "quark_mxfp4"))
# name -> fault, forms it applies to, kind and level of what must be found
FAULTS: dict[str, tuple[Fault, tuple[str, ...], str, str]] = {
    "ignored": (ignored, CLAIMED, "claims", "error"),
    "forgotten": (forgotten, (*CLAIMED, "fp8_blocks"), "claims", "error"),
    "in no group": (in_no_group, ("ct_nvfp4", "ct_mxfp4", "ct_mxfp6"), "claims", "error"),
    "plain in no group": (plain_in_no_group, ("ct_nvfp4", "ct_mxfp4", "ct_mxfp6"), "claims", "warning"),
    "another format": (another_format, (*NV, *POWERS, "fp8_blocks"), "fusion", "error"),
    "unequal": (unequal_global, NV, "tensor scales", "error"),
    "global NaN": (of_global(NAN), (*NV, "torchao_nvfp4"), "tensor scales", "error"),
    "global inf": (of_global(INF), (*NV, "torchao_nvfp4"), "tensor scales", "error"),
    "global 0": (of_global(0.0), (*NV, "torchao_nvfp4"), "tensor scales", "error"),
    "global -1": (of_global(-1.0), NV, "tensor scales", "error"),
    "no global": (no_global, NV, "incomplete", "error"),
    "no scale": (no_scale, _TELLS_SCALE, "incomplete", "error"),
    "short scale": (short_scale, (*NV, *POWERS, "torchao_nvfp4", "fp8_rows"), "incomplete", "error"),
    "E4M3 NaN": (scale_byte(0x7F), (*NV, "torchao_nvfp4"), "scales", "error"),
    "E4M3 negative": (scale_byte(0xC0), NV, "scales", "error"),
    "E4M3 0": (scale_byte(0), NV, "scales", "warning"),
    "all scales 0": (zero_scales, (*NV, "torchao_nvfp4"), "scales", "error"),
    "saturated": (saturated, NV, "scales", "error"),
    "E8M0 NaN": (scale_byte(255), POWERS, "scales", "error"),
    "E8M0 254": (scale_byte(254), POWERS, "scales", "error"),
    "float NaN": (float_scale(NAN), FP8, "scales", "error"),
    "float inf": (float_scale(INF), FP8, "scales", "error"),
    "float -1": (float_scale(-1.0), FP8, "scales", "error"),
    "float 0": (float_scale(0.0), FP8, "scales", ""),
    "no sign": (without_sign, (*NIBBLES, "mxfp8", *FP8), "codes", "error"),
    "no nibble": (without_nibble, NIBBLES, "codes", "error"),
    "no last bit": (without_last_bit, (*NIBBLES, "mxfp8", *FP8), "codes", "error"),
    "a value unused": (without_a_value, NIBBLES, "codes", "warning"),
    "all zero": (all_zero, tuple(m for m in MAKERS if m != "ct_mxfp6"), "codes", "warning"),
    "NaN code": (nan_code, ("mxfp8", *FP8), "codes", "error"),
    "inverted global": (inverted_global, (*NV, "torchao_nvfp4"), "size", "error"),
    "inverted scale": (inverted_scale, FP8, "size", "error"),
    "orphan": (orphan, tuple(MAKERS), "unclaimed", "warning"),
    "extra": (extra, tuple(MAKERS), "unclaimed", "warning"),
    "scales stayed": (beside_a_plain_weight, (*NV, *POWERS, *FP8), "unclaimed", "warning"),
    "lacking": (lacking, tuple(MAKERS), "incomplete", "error"),
    "input NaN": (input_scale(NAN), ("modelopt_nvfp4",), "inputs", "error"),
    "input 0": (input_scale(0.0), ("modelopt_nvfp4",), "inputs", "error"),
    "input missing": (input_scale(None), ("modelopt_nvfp4",), "inputs", "error"),
}  # fmt: skip


def halves(n: int) -> list[int]:
    return [*range(n // 2, n), *range(n // 2)]


def even_first(n: int) -> list[int]:
    return [*range(0, n, 2), *range(1, n, 2)]


def shuffled(n: int) -> list[int]:
    return [i * 5 % n for i in range(n)]


_BY_ROW = (*NV, *POWERS, "fp8_rows")
# What only a reference shows, and the words that must stand in what is found
SIDE_BY_SIDE: dict[str, tuple[Fault, tuple[str, ...], str]] = {
    "global inverted": (inverted_global, (*NV, "torchao_nvfp4"), "inverted"),
    "scale inverted": (inverted_scale, FP8, "inverted"),
    "powers inverted": (inverted_powers, POWERS, "inverted"),
    "doubled": (doubled, (*POWERS, *FP8), "times the reference, with the same values"),
    "layers exchanged": (exchanged("layers.1.", "layers.2."), tuple(MAKERS), "it is the reference's"),
    "k and v exchanged": (exchanged("k_proj", "v_proj"), tuple(MAKERS), "it is the reference's"),
    "halves": (rows_as(halves), (*_BY_ROW, "fp8_tensor"), "halves swapped"),
    "interleaved": (rows_as(even_first), _BY_ROW, "even rows first"),
    "shuffled": (rows_as(shuffled), _BY_ROW, "rows in other places"),
    "two rows": (some_rows, _BY_ROW, "2 of "),
    "zeros": (all_zero, tuple(m for m in MAKERS if m != "ct_mxfp6"), "all zero, and the reference is not"),
}  # fmt: skip
