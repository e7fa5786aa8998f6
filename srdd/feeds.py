"""Which norm feeds which Linear, by role: noise on a norm's weights acts on the inputs of what it feeds, on no other.

Not here: modules. Roles are last parts of module names in the architectures that Hugging Face ships. o_proj reads the
attention's result and down_proj the gated product: no norm stands before them, so no noise on norms reaches them.

Worked number: of the four inputs of a Llama layer two are fed by norms: q/k/v by the attention norm, gate/up by the
MLP norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from srdd.schema import Site

Norm = Literal["attention", "mlp"]
NORMS: tuple[Norm, ...] = ("attention", "mlp")

_ATTENTION = {"q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv", "q_a_proj"}
_ATTENTION |= {"kv_a_proj_with_mqa", "in_proj", "in_proj_qkvz", "in_proj_ba", "q_lin", "k_lin", "v_lin"}
_MLP = {"gate_proj", "up_proj", "gate_up_proj", "c_fc", "fc1", "fc_in", "dense_h_to_4h", "w1", "w3", "gate", "router"}
_MLP |= {"experts", "shared_expert_gate", "Wi"}
_ATTENTION_PARENTS = ("attn", "attention", "mixer")


def norm_of(role: str, name: str) -> Norm | None:
    """The norm before a Linear, None where there is none (o_proj, down_proj, ...) or the role is not known."""
    parent = name.rpartition(".")[0].lower()
    if role in _ATTENTION:
        return "attention"
    if role in _MLP and not any(part in parent for part in _ATTENTION_PARENTS):
        return "mlp"
    return None


def by_norm(sites: Sequence[Site]) -> dict[Norm, list[Site]]:
    """Input sites by the norm that feeds them; those without are left out."""
    found: dict[Norm, list[Site]] = {norm: [] for norm in NORMS}
    for site in sites:
        norm = norm_of(site.role, site.name)
        if norm is not None:
            found[norm].append(site)
    return found


def roles(sites: Sequence[Site]) -> list[str]:
    """The roles of all modules that read these inputs, in order of appearance."""
    names = (member.rpartition(".")[2] for site in sites for member in (site.members or [site.name]))
    found = dict.fromkeys(role for role in names if not role.isdigit())
    return list(found)
