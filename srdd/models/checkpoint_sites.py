"""Finds the tensors of a checkpoint that are weights of matrix products, without weights in memory.

Where the library knows the model, names and numbers are those of the model (live_names.py), and what the file holds
beside it, heads that predict further tokens for instance, stands outside the layers. Else the rule is: a 2-D tensor
called *.weight that is no embedding, norm or router, or a 3-D tensor of fused experts. What is left out is listed with
its reason, so that a wrong guess is seen. Two stacks of layers (an encoder and a decoder) are numbered consecutively.

Not here: reading (files/checkpoint.py).

Worked number: MiniLM's safetensors file holds 103 tensors; 37 are such weights (6 per layer for 6 layers, and the
pooler), the rest are embeddings, norms and biases.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from srdd.core.roles import fusion_group, is_beside_text
from srdd.documents.schema import Skipped
from srdd.errors import SiteError, SourceError
from srdd.models.files import packed
from srdd.models.files.checkpoint import TALLEST_TILE, Checkpoint
from srdd.models.files.packed import float8
from srdd.models.files.packed.contract import Packed
from srdd.models.files.safetensors import StoredTensor
from srdd.models.live_names import live_sites
from srdd.models.sites import Site, SiteMap

# A layer holds modules: what follows its number is a module's name before the parameter's.
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.(?=[^.]+\.)")
_EMBEDDING = re.compile(r"(embed|embd|wte|wpe|shared\.weight|position_embeddings|relative_attention_bias)", re.I)
# Linears named like embeddings: GPT-NeoX' embed_out is its lm_head, ELECTRA's embeddings_project widens them.
_BESIDE_EMBEDDING = re.compile(r"(proj|linear|dense|mapping|_out$)", re.I)
_FUSED_EXPERTS = re.compile(r"(expert|moe)", re.I)
_ROUTER = re.compile(r"(router|(^|\.)gate\.weight$|\.gate\.wg\.)", re.I)
# Tensors of these types are codes of a form that files/packed does not know, unless their names say otherwise.
_CODES = packed.INTEGERS | {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4"}
_NO_CODES = re.compile(r"(bias|mask|position|index|ids|table)", re.I)
_PLAIN = frozenset({"F64", "F32", "F16", "BF16"})
_READ_BY_ANOTHER = re.compile(r"encoder")
# Architectures whose Linears are transformers' Conv1D, stored [in, out].
_CONV1D_TYPES = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
_CONV1D_ROLES = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})
# Architectures whose fused experts are stored [experts, in, out].
_TRANSPOSED_EXPERTS = frozenset({"gpt_oss", "aria", "llama4", "llama4_text"})


def checkpoint_sites(checkpoint: Checkpoint) -> SiteMap:
    """The weight sites of a checkpoint, in file order. Raises SiteError when there is none.

    Raises SourceError for packed weights that are damaged, of an unknown form, or not those that the config names.
    """
    if checkpoint.damaged:
        raise SourceError(checkpoint.damaged[0])
    unknown = unknown_form(checkpoint)
    if unknown:
        raise SourceError(unknown)
    if checkpoint.unheld:
        raise SourceError(checkpoint.unheld)
    live = live_sites(checkpoint)
    found = stored_sites(checkpoint) if live is None else _with_rest(checkpoint, *live)
    belongs = [Skipped(name=name, parameters=0, reason=reason) for name, reason in checkpoint.belongs.items()]
    if not found.sites:
        raise SiteError(f"{checkpoint.identity.id} holds no weight matrix among its {len(checkpoint.tensors)} tensors")
    return replace(found, skipped=(*found.skipped, *belongs))


def unknown_form(checkpoint: Checkpoint) -> str | None:
    """The line on the first weight whose codes no form knows, FP8 without a scale among them; None without one."""
    for tensor in checkpoint.tensors.values():
        if _reason(tensor) is None and isinstance(tensor, StoredTensor) and tensor.dtype not in _PLAIN:
            return _unknown(tensor, checkpoint.config)
    return None


def stored_sites(checkpoint: Checkpoint) -> SiteMap:
    """The weight sites as the files name them, by names and shapes alone; experts are single where they are stored so.

    Raises nothing: there may be none.
    """
    sites, skipped = _sorted(checkpoint, checkpoint.tensors.values())
    numbers, count = _numbered(sites)
    placed = [
        replace(s, layer=None, beside_text=True)
        if s.layer is not None and _stack_of(s.module) not in numbers
        else replace(s, layer=None if s.layer is None else numbers[_stack_of(s.module)] + s.layer)
        for s in sites
    ]
    return SiteMap(tuple(placed), tuple(skipped), sum(t.numel for t in checkpoint.tensors.values()), count)


def _with_rest(checkpoint: Checkpoint, found: SiteMap, held: frozenset[str]) -> SiteMap:
    """With the weights that the file holds beside the model, outside its layers."""
    rest = [tensor for name, tensor in checkpoint.tensors.items() if name not in held]
    sites, skipped = _sorted(checkpoint, rest)
    taken = {site.name for site in found.sites}
    last = max(site.index for site in found.sites)
    outside = [
        replace(site, layer=None, beside_text=True, index=last + 1 + index)
        for index, site in enumerate(site for site in sites if site.name not in taken)
    ]
    return replace(found, sites=(*found.sites, *outside), skipped=(*found.skipped, *skipped))


def _sorted(checkpoint: Checkpoint, tensors: Iterable[StoredTensor | Packed]) -> tuple[list[Site], list[Skipped]]:
    model_type = str(checkpoint.config.get("model_type", ""))
    sites: list[Site] = []
    skipped: list[Skipped] = []
    for tensor in tensors:
        reason = _reason(tensor)
        if reason:
            skipped.append(Skipped(name=tensor.name, parameters=tensor.numel, reason=reason))
        else:
            sites.append(replace(_site(tensor, model_type), index=len(sites)))
    return sites, skipped


def matrices_from(checkpoint: Checkpoint, site: Site) -> Iterator[_Matrix]:
    """The matrices [out, in] of a site: one, or one per fused expert; each can be read in chunks again and again."""
    experts = site.shape[0] if len(site.shape) == 3 else 1
    if len(site.stored) > 1:
        parts = len(site.stored) // experts
        for expert in range(experts):
            yield _Matrix(checkpoint, site.stored[expert * parts : (expert + 1) * parts], None, site.transposed)
    elif len(site.shape) == 3:
        for expert in range(experts):
            yield _Matrix(checkpoint, site.stored, expert, site.transposed)
    else:
        yield _Matrix(checkpoint, site.stored, None, site.transposed)


class _Matrix:
    """One matrix as row chunks that can be read again; one chunk if transposed, since a row may share one scale."""

    def __init__(self, checkpoint: Checkpoint, names: Sequence[str], expert: int | None, transposed: bool) -> None:
        self._checkpoint, self._names, self._expert, self._transposed = checkpoint, names, expert, transposed

    def __iter__(self) -> Iterator[Tensor]:
        rows = [self._checkpoint.tensors[name].shape[-2] for name in self._names[:-1]]
        if any(count % TALLEST_TILE for count in rows):  # a tile would cross from one tensor into the next
            yield torch.cat([chunk.clone() for chunk in self._chunks()])
            return
        for chunk in self._chunks():
            yield chunk.transpose(-1, -2) if self._transposed else chunk

    def _chunks(self) -> Iterator[Tensor]:
        limit = sys.maxsize if self._transposed else None
        for name in self._names:
            yield from self._checkpoint.row_chunks(name, expert=self._expert, max_bytes=limit)


def _stack_of(name: str) -> str:
    """The list of layers that a tensor is in: "model.layers" of model.layers.3.mlp.up_proj.weight."""
    layer = _LAYER.search(name)
    return "" if layer is None else name[: layer.start(1) - 1]


def _numbered(sites: Sequence[Site]) -> tuple[dict[str, int], int]:
    """The number of the first layer of each stack, and how many layers there are.

    A file does not tell the order of modules; transformers puts an encoder before its reader. Towers for pictures or
    sounds, and heads that predict further tokens, have none beside a stack of text.
    """
    depths: dict[str, int] = {}
    for site in sites:
        if site.layer is not None:
            stack = _stack_of(site.module)
            depths[stack] = max(depths.get(stack, 0), site.layer + 1)
    text = [stack for stack in depths if not is_beside_text(stack)]
    first, count = {}, 0
    for stack in sorted(text or depths, key=lambda stack: (not _READ_BY_ANOTHER.search(stack), stack)):
        first[stack] = count
        count += depths[stack]
    return first, count


def _holds_codes(tensor: StoredTensor) -> bool:
    return tensor.dtype in _CODES and len(tensor.shape) > 1 and not _NO_CODES.search(tensor.name.rpartition(".")[2])


def _unknown(tensor: StoredTensor, config: dict[str, Any]) -> str:
    found = f"{tensor.name} is stored as {tensor.dtype} {list(tensor.shape)}"
    if tensor.dtype in float8.CODES:
        return f"{found} without a scale, and codes are not measured without theirs; expected one beside it"
    said = config.get("quantization_config")
    method = f" (config.json: {said['quant_method']})" if isinstance(said, dict) and said.get("quant_method") else ""
    return f"{found}, in a packed form that is not known{method}; known: {packed.KNOWN}"


def _reason(tensor: StoredTensor | Packed) -> str | None:
    if isinstance(tensor, StoredTensor) and _holds_codes(tensor):
        return None
    if len(tensor.shape) == 3 and _FUSED_EXPERTS.search(tensor.name) and "bias" not in tensor.name:
        return None
    if len(tensor.shape) <= 1 or "bias" in tensor.name.rpartition(".")[2]:
        return "vector (norm, bias): deployment stacks keep it in high precision"
    if len(tensor.shape) > 2:
        return f"{len(tensor.shape)}-D (a convolution, say): no weight of a Linear, Conv1D or fused experts"
    owner = tensor.name.removesuffix(".weight").rpartition(".")[2]
    if _EMBEDDING.search(tensor.name) and not _BESIDE_EMBEDDING.search(owner):
        return "embedding: looked up, never multiplied"
    if _ROUTER.search(tensor.name):
        return "router: deployment stacks keep it in high precision"
    if not tensor.name.endswith(".weight"):
        return "not called *.weight"
    return None


def _site(tensor: StoredTensor | Packed, model_type: str) -> Site:
    name = tensor.name.removesuffix(".weight")
    role = name.rpartition(".")[2]
    layer = _LAYER.search(tensor.name)
    fused = len(tensor.shape) == 3
    transposed = model_type in _TRANSPOSED_EXPERTS if fused else model_type in _CONV1D_TYPES and role in _CONV1D_ROLES
    if isinstance(tensor, Packed) and tensor.transposed is not None:
        transposed = tensor.transposed
    group = name.rpartition(".")[0] if fused else fusion_group(name, role)
    index = int(layer[1]) if layer else None
    return Site(
        "weight",
        name,
        tensor.name,
        role,
        index,
        group,
        "weight",
        transposed,
        numel=tensor.numel,
        stored=(tensor.name,),
        shape=tuple(tensor.shape),
    )
