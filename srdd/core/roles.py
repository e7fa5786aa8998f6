"""Which norm feeds which Linear and which Linears are fused, by role.

A role is the last part of a module's name in the architectures that Hugging Face ships. Noise on a norm's weights acts
on the inputs of the Linears that the norm feeds and on no other: o_proj reads the attention's result and down_proj the
gated product, so noise on norms does not reach them.

Worked number: of the four inputs of a Llama layer two are fed by norms: q/k/v by the attention norm, gate/up by the
MLP norm.
"""

from __future__ import annotations

import re
from typing import Literal

Norm = Literal["attention", "mlp"]
NORMS: tuple[Norm, ...] = ("attention", "mlp")

# Serving stacks need one format for each of these sets, because they fuse the matrices (vLLM, TensorRT-LLM, SGLang).
_FUSED = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "query", "key", "value", "q_lin", "k_lin", "v_lin"), "qkv"),
    **dict.fromkeys(("gate_proj", "up_proj", "w1", "w3"), "gate_up"),
}

# Last parts of the names of norms that stand right before attention or the MLP.
BEFORE_ATTENTION = {"input_layernorm", "ln_1", "attention_norm", "self_attn_layer_norm", "norm1", "layernorm_before"}
BEFORE_MLP = {"pre_feedforward_layernorm", "ln_2", "ffn_norm", "norm2", "layernorm_after", "final_layer_norm"}
SANDWICH = "pre_feedforward_layernorm"  # with it, post_attention_layernorm follows attention and feeds no Linear

_ATTENTION = {"q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv", "q_a_proj"}
_ATTENTION |= {"kv_a_proj_with_mqa", "in_proj", "in_proj_qkvz", "in_proj_ba", "q_lin", "k_lin", "v_lin"}
_MLP = {"gate_proj", "up_proj", "gate_up_proj", "c_fc", "fc1", "fc_in", "dense_h_to_4h", "w1", "w3", "gate", "router"}
_MLP |= {"experts", "shared_expert_gate", "Wi"}
_ATTENTION_PARENTS = ("attn", "attention", "mixer")


_TOWER = re.compile(r"(^|[._])(vision|visual|audio|speech|multi_modal|mm_projector)", re.I)
# Heads that predict tokens further on, which a model in memory often lacks
_FURTHER = re.compile(r"(^|\.)(mtp|mtp_\w+|nextn|eagle\w*|medusa\w*)(\.|$)", re.I)


def is_tower(name: str) -> bool:
    """True for a module that sees pictures or sounds, and so does not run on text alone."""
    return bool(_TOWER.search(name))


def is_beside_text(name: str) -> bool:
    """True for towers and for heads that predict further tokens: their layers are none of the text model's."""
    return is_tower(name) or bool(_FURTHER.search(name))


def norm_of(role: str, name: str) -> Norm | None:
    """The norm before a Linear, None where there is none (o_proj, down_proj, ...) or the role is not known."""
    parent = name.rpartition(".")[0].lower()
    if role in _ATTENTION:
        return "attention"
    if role in _MLP and not any(part in parent for part in _ATTENTION_PARENTS):
        return "mlp"
    return None


def fusion_group(name: str, role: str) -> str | None:
    """The set of modules that must share a format with this one, by name; None when it stands alone."""
    parent = name.rpartition(".")[0]
    if ".experts." in f"{name}.":
        return name.partition(".experts.")[0] + ".experts"
    return f"{parent}.{_FUSED[role]}" if role in _FUSED else None


def fused_matrix(name: str, role: str) -> str | None:
    """The matrix in which serving stacks lay this one beside others, by name: of an expert its own gate and up.

    None when it stays alone. Matrices that are laid in one have one tensor scale.
    """
    return f"{name.rpartition('.')[0]}.{_FUSED[role]}" if role in _FUSED else None
