"""The weights of a checkpoint's files as an audit sees them, and the tensors that none of them takes.

Not here: reading codes and scales (reading.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import replace

from srdd.analysis.audit.facts import PLAIN, Module, TensorScale
from srdd.core.roles import fused_matrix, is_beside_text
from srdd.models.checkpoint_sites import stored_sites
from srdd.models.files.checkpoint import Checkpoint
from srdd.models.files.packed import float8
from srdd.models.files.packed.contract import Packed
from srdd.models.files.packed.groups import POWERS
from srdd.models.files.safetensors import StoredTensor
from srdd.models.live_names import live_sites
from srdd.runs.audit import reading

_SCALES = re.compile(
    r"(^|_|\.)(weight_scale(_inv|_2)?|weight_global_scale|weight_packed|weight_zero_point|weight_shape|input_scale"
    r"|input_global_scale|qdata|blocks|scales)$"
)
_BLOCK_SCALES = re.compile(r"(weight_scale(_inv)?|_scales|_weight_scale)$")
_ORPHAN = "a scale or codes without the rest of a packed weight"
# Buffers that libraries keep or kept, scales of a cache
_KNOWN = re.compile(r"(inv_freq|position_ids|(^|[._])[kvq]_scale|prob_output_scale|attn\.bias|masked_bias)$")
_EXPERT = re.compile(r"(?P<owner>.*\bexperts)\.(?P<number>\d+)\.(?P<role>\w+)\.weight$")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_FLOAT8 = frozenset(float8.CODES)


def set_apart(checkpoint: Checkpoint) -> tuple[Checkpoint, tuple[str, ...], tuple[str, ...]]:
    """The checkpoint without what cannot be read: a line on each such module, and scales in bytes without codes."""
    lines = list(checkpoint.damaged)
    broken = {line.split(" ", 1)[0].rpartition(".")[0] for line in lines}
    tensors = {name: t for name, t in checkpoint.tensors.items() if name.rpartition(".")[0] not in broken}
    orphans = []
    for name, tensor in list(tensors.items()):
        if not isinstance(tensor, StoredTensor) or len(tensor.shape) < 2:
            continue
        if tensor.dtype in (*_FLOAT8, *POWERS) and _BLOCK_SCALES.search(name):
            orphans.append(name)
            del tensors[name]
        elif tensor.dtype in _FLOAT8:
            lines.append(f"{name} holds codes ({tensor.dtype}) without a scale; expected one beside it")
            del tensors[name]
    return replace(checkpoint, tensors=tensors, damaged=(), unheld=None), tuple(lines), tuple(orphans)


def modules_of(checkpoint: Checkpoint) -> Iterator[Module]:
    """Every weight of a matrix product, and whatever else is packed, in the order of the file."""
    sites = {site.stored[0]: site for site in stored_sites(checkpoint).sites}
    for name, tensor in checkpoint.tensors.items():
        site = sites.get(name)
        if site is None and not isinstance(tensor, Packed):
            continue
        module = name.removesuffix(".weight")
        role = module.rpartition(".")[2]
        named = Module(
            name=module,
            role=role,
            form=tensor.form if isinstance(tensor, Packed) else tensor.dtype,
            family=tensor.family if isinstance(tensor, Packed) else PLAIN,
            shape=tensor.shape,
            layer=None if site is None else site.layer,
            group=None if site is None else site.group,
            matrix=fused_matrix(module, role),
            beside_text=is_beside_text(module),
            claimed=_claimed(checkpoint, module, tensor),
            is_site=site is not None,
        )
        yield _read(checkpoint, named, tensor) if isinstance(tensor, Packed) else named


def _claimed(checkpoint: Checkpoint, module: str, tensor: StoredTensor | Packed) -> str | None:
    """What the config says of it. A class of Linears covers no plain tensor of fused experts, which is a parameter."""
    claims = checkpoint.claims
    if claims is None:
        return None
    fused = isinstance(tensor, StoredTensor) and len(tensor.shape) == 3
    return PLAIN if fused and claims.method == "compressed-tensors" else claims.of(module)


def _read(checkpoint: Checkpoint, module: Module, weight: Packed) -> Module:
    nonfinite, power = reading.power_of(checkpoint, weight.name)
    return replace(
        module,
        codes=reading.codes_of(weight),
        scales=reading.scales_of(weight),
        tensor_scale=reading.tensor_scale_of(weight),
        input_scale=_of_inputs(checkpoint, module),
        shares=not weight.parts[0].name.endswith("_qdata"),  # torchao's name for codes; it shares no scale
        values=weight.numel,
        nonfinite=nonfinite,
        sum_x2=power,
    )


def _of_inputs(checkpoint: Checkpoint, module: Module) -> TensorScale | None:
    parent, _, local = module.name.rpartition(".")
    names = [f"{module.name}.{end}" for end in ("input_scale", "input_global_scale")]
    names.append(f"{parent}.{local}_input_scale")
    tensor = next((checkpoint.stored[name] for name in names if name in checkpoint.stored), None)
    return None if tensor is None else reading.one_scale(tensor)


def unclaimed(
    checkpoint: Checkpoint, whole: Checkpoint, orphans: Collection[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Tensors that nothing takes, with what they look like, and weights of the model that no tensor holds.

    `checkpoint` is without damaged modules, of which nothing is said here; `whole` has them.
    """
    gone = [name for name in whole.tensors if name not in checkpoint.tensors and name not in orphans]
    apart = {name.rpartition(".")[0] for name in gone}
    live = live_sites(checkpoint)
    depth = checkpoint.identity.layer_count
    found = dict.fromkeys(orphans, _ORPHAN)
    for name, tensor in checkpoint.tensors.items():
        if isinstance(tensor, Packed) or _KNOWN.search(name) or name.rpartition(".")[0] in apart:
            continue
        if _SCALES.search(name.rpartition(".")[2]):
            found[name] = _ORPHAN
        elif live is not None and name not in live[1] and not is_beside_text(name) and not _beyond(name, depth):
            found[name] = "no module of the model takes it"
    lacks = [] if live is None else [s.name for s in live[0].skipped if s.reason == "the checkpoint lacks it"]
    lacks += _experts_lacking(whole)
    return found, tuple(name for name in lacks if name.removesuffix(".weight") not in apart)


def _experts_lacking(whole: Checkpoint) -> list[str]:
    """Weights of single experts that other experts or other layers have: one that is missing hides the whole model."""
    held: dict[str, set[tuple[str, str]]] = {}
    for name in whole.tensors:
        expert = _EXPERT.match(name)
        if expert is not None:
            held.setdefault(expert["owner"], set()).add((expert["number"], expert["role"]))
    numbers = {number for parts in held.values() for number, _ in parts}
    roles = {role for parts in held.values() for _, role in parts}
    return [
        f"{owner}.{number}.{role}"
        for owner, parts in held.items()
        for number in sorted(numbers, key=int)
        for role in sorted(roles)
        if (number, role) not in parts
    ]


def _beyond(name: str, depth: int | None) -> bool:
    """Whether it is of a layer after the last: heads for further tokens are stored so."""
    layer = _LAYER.search(name)
    return layer is not None and depth is not None and int(layer[1]) >= depth
