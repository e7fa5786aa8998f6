"""How many attention heads the rows or columns of a projection belong to, and which of them are dead throughout.

Not here: which rows are dead (srdd.runs.scans.weights). Fused projections (c_attn, qkv_proj, query_key_value) hold
queries, keys and values in orders of their own, so their heads are not told.

Worked number: SmolLM2's q_proj has 576 rows for 9 heads, so rows 64 to 127 are head 1; its k_proj 192 rows for 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from srdd.core.layers import span
from srdd.core.roles import is_tower

_OF_QUERIES = frozenset({"q_proj", "query", "q_lin", "q"})
_OF_KEYS = frozenset({"k_proj", "v_proj", "key", "value", "k_lin", "v_lin", "k", "v"})
_READ_HEADS = frozenset({"o_proj", "out_proj", "out_lin", "o"})  # their columns are heads
_COUNTS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")


def config_of(model: nn.Module) -> Mapping[str, Any]:
    """The model's config as a mapping; empty for a model without one."""
    config = getattr(model, "config", None)
    return {} if config is None or not hasattr(config, "to_dict") else dict(config.to_dict())


def row_heads(role: str, name: str, config: Mapping[str, Any]) -> int | None:
    """The heads that a projection's output channels are of; None where they are of none, or it is not known."""
    if role in _OF_QUERIES:
        return _count(name, config, _COUNTS)
    return _count(name, config, ("num_key_value_heads", *_COUNTS)) if role in _OF_KEYS else None


def column_heads(role: str, name: str, config: Mapping[str, Any]) -> int | None:
    """The heads that a projection's input channels are of; None where they are of none, or it is not known."""
    return _count(name, config, _COUNTS) if role in _READ_HEADS else None


def dead_heads(dead: Sequence[int], size: int, heads: int | None) -> str:
    """ "head 1 of 9" for channels that hold a whole head among `size`, and "" for those that hold none."""
    if not heads or size % heads or size == heads:
        return ""
    width = size // heads
    counts = [0] * heads
    for channel in dead:
        counts[channel // width] += 1
    found = [head for head, count in enumerate(counts) if count == width]
    return f"{'heads' if len(found) > 1 else 'head'} {span(found)} of {heads}" if found else ""


def _count(name: str, config: Mapping[str, Any], keys: Sequence[str]) -> int | None:
    """From the config of the text model, or of the tower that the module is in."""
    nested = ("vision_config", "audio_config") if is_tower(name) else ("text_config",)
    part = next((config[key] for key in nested if isinstance(config.get(key), Mapping)), config)
    if part is config and is_tower(name):
        return None
    found = next((part[key] for key in keys if part.get(key) is not None), None)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None
