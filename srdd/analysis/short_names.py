"""Short names of formats and of fusion groups, for people.

Not here: the full names, which commands and documents take.

Worked number: mxfp4:even is mxfp4, and model.layers.29.self_attn.o_proj is 29.attn.o.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Named(Protocol):
    """A fusion group, with its full name."""

    @property
    def name(self) -> str: ...

    @property
    def layer(self) -> int | None: ...


def name_of(spec: str, known: Sequence[str] = ()) -> str:
    """mxfp4 for mxfp4:even, unless another rule of it stands beside it; mxfp8 for mxfp8_e4m3."""
    name = spec.partition(":")[0]
    if sum(other.partition(":")[0] == name for other in known) > 1:
        return spec
    return "mxfp8" if name == "mxfp8_e4m3" else name


def short_name(group: Named) -> str:
    """29.mlp.gate_up for model.layers.29.mlp.gate_up; model.layers.29.self_attn.o_proj is 29.attn.o."""
    inside = inside_name(group)
    return inside if group.layer is None else f"{group.layer}.{inside}"


def inside_name(group: Named) -> str:
    """The same without the layer."""
    parts = group.name.split(".")
    if group.layer is not None and str(group.layer) in parts:
        parts = parts[parts.index(str(group.layer)) + 1 :]
    return ".".join(map(_short, parts)) or group.name


def _short(part: str) -> str:
    if part in ("self_attn", "self_attention"):
        return "attn"
    return part if part == "c_proj" else part.removesuffix("_proj")  # GPT-2's c_proj would be c
