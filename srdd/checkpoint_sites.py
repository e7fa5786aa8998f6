"""Which tensors of a checkpoint are weights of matrix products, told from names and shapes, with no model built.

Not here: reading (checkpoint.py). A checkpoint has no module types, so the rule is: a 2-D tensor called *.weight that
is no embedding, norm or router, or a 3-D tensor of fused experts. What is left out is listed with its reason, so a
wrong guess is seen.

Worked number: MiniLM's safetensors file holds 103 tensors; 37 are such weights (6 per layer for 6 layers, and the
pooler), the rest are embeddings, norms and biases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from srdd.checkpoint import Checkpoint
from srdd.errors import SiteError
from srdd.safetensors_files import StoredTensor
from srdd.schema import Skipped
from srdd.sites import Site, SiteMap, fusion_group

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")
_EMBEDDING = re.compile(r"(embed|embd|wte|wpe|shared\.weight|position_embeddings|relative_attention_bias)", re.I)
_ROUTER = re.compile(r"(router|(^|\.)gate\.weight$|\.gate\.wg\.)", re.I)
# Architectures whose Linears are transformers' Conv1D, stored [in, out].
_CONV1D_TYPES = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
_CONV1D_ROLES = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})
# Architectures whose fused experts are stored [experts, in, out].
_TRANSPOSED_EXPERTS = frozenset({"gpt_oss", "aria", "llama4", "llama4_text"})


def checkpoint_sites(checkpoint: Checkpoint) -> SiteMap:
    """The weight sites of a checkpoint, in file order. Raises SiteError when there is none."""
    model_type = str(checkpoint.config.get("model_type", ""))
    sites: list[Site] = []
    skipped: list[Skipped] = []
    for tensor in checkpoint.tensors.values():
        reason = _reason(tensor)
        if reason:
            skipped.append(Skipped(name=tensor.name, parameters=tensor.numel, reason=reason))
        else:
            sites.append(replace(_site(tensor, model_type), index=len(sites)))
    if not sites:
        raise SiteError(f"{checkpoint.identity.id} holds no weight matrix among its {len(checkpoint.tensors)} tensors")
    layers = [site.layer for site in sites if site.layer is not None]
    return SiteMap(
        tuple(sites), tuple(skipped), sum(t.numel for t in checkpoint.tensors.values()), max(layers, default=-1) + 1
    )


def matrices_from(checkpoint: Checkpoint, site: Site) -> Iterator[_Matrix]:
    """The matrices [out, in] of a site: one, or one per fused expert; each can be read in chunks again and again."""
    tensor = checkpoint.tensors[site.module]
    if len(tensor.shape) == 3:
        for expert in range(tensor.shape[0]):
            yield _Matrix(checkpoint, site, expert)
    else:
        yield _Matrix(checkpoint, site, None)


class _Matrix:
    """One matrix as re-readable row chunks. A stored chunk of [in, out] turned is still whole blocks along in."""

    def __init__(self, checkpoint: Checkpoint, site: Site, expert: int | None) -> None:
        self._checkpoint, self._site, self._expert = checkpoint, site, expert

    def __iter__(self) -> Iterator[Tensor]:
        for chunk in self._checkpoint.row_chunks(self._site.module, expert=self._expert):
            yield chunk.transpose(-1, -2) if self._site.transposed else chunk


def _reason(tensor: StoredTensor) -> str | None:
    if len(tensor.shape) == 3 and "expert" in tensor.name.lower() and "bias" not in tensor.name:
        return None
    if len(tensor.shape) != 2 or "bias" in tensor.name.rpartition(".")[2]:
        return "vector (norm, bias): deployment stacks keep it in high precision"
    if _EMBEDDING.search(tensor.name):
        return "embedding: looked up, never multiplied"
    if _ROUTER.search(tensor.name):
        return "router: deployment stacks keep it in high precision"
    if not tensor.name.endswith(".weight"):
        return "not called *.weight"
    return None


def _site(tensor: StoredTensor, model_type: str) -> Site:
    name = tensor.name.removesuffix(".weight")
    role = name.rpartition(".")[2]
    layer = _LAYER.search(tensor.name)
    fused = len(tensor.shape) == 3
    transposed = model_type in _TRANSPOSED_EXPERTS if fused else model_type in _CONV1D_TYPES and role in _CONV1D_ROLES
    group = name.rpartition(".")[0] if fused else fusion_group(name, role)
    index = int(layer[1]) if layer else None
    return Site("weight", name, tensor.name, role, index, group, "weight", transposed, numel=tensor.numel)
