"""Weights stored as codes with scales: found among a checkpoint's tensors, read as the float32 values they stand for.

Not here: how a form lies in a file (one file each, in FORMS) and what configs say (claims/). A module's own tensors
decide its form; the config is held against them. A new form is a file with KNOWN and `recognise`, and its name here.

Worked number: a Llama layer in NVFP4 by compressed-tensors has 7 modules of 4 tensors, which are 7 weights.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from srdd.core.roles import is_tower
from srdd.errors import SourceError
from srdd.models.files.packed import compressed_tensors, float8, gpt_oss, modelopt, quark, torchao
from srdd.models.files.packed.claims import Claims
from srdd.models.files.packed.claims.claim import PLAIN
from srdd.models.files.packed.contract import Facts, Form, Packed
from srdd.models.files.safetensors import StoredTensor

FORMS: tuple[Form, ...] = (gpt_oss, torchao, compressed_tensors, modelopt, quark, float8)
KNOWN = ", ".join(form.KNOWN for form in FORMS)
INTEGERS = frozenset({"I8", "U8", "I16", "I32"})
# What no exporter quantizes, whatever a pattern of its config covers.
_LEFT_OUT = re.compile(r"(embed|wte|wpe|norm|router|(^|\.)gate$)", re.I)
_BESIDE = re.compile(r"(scale|zero_point|amax)", re.I)


@dataclass(frozen=True)
class Unpacked:
    """The tensors of a checkpoint as weights: packed ones under the names of what they stand for."""

    tensors: dict[str, StoredTensor | Packed]
    belongs: dict[str, str] = field(default_factory=dict)  # tensor beside a packed weight -> what it is
    problems: tuple[str, ...] = ()  # damaged parts, a line each

    @property
    def packed(self) -> list[Packed]:
        return [tensor for tensor in self.tensors.values() if isinstance(tensor, Packed)]


def unpack(stored: Mapping[str, StoredTensor], claims: Claims | None, metadata: Mapping[str, str]) -> Unpacked:
    """Find the packed weights. Nothing is read and nothing raised: what is damaged is listed."""
    modules: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in stored.items():
        module, _, local = name.rpartition(".")
        modules.setdefault(module, {})[local] = tensor
    facts = Facts(claims.of, claims.tiles, metadata) if claims else Facts(metadata=metadata)
    by_part: dict[str, Packed] = {}
    belongs: dict[str, str] = {}
    problems: list[str] = []
    for of_module in modules.values():
        rest = dict(of_module)
        for form in FORMS:
            try:
                found = list(form.recognise(rest, facts))
            except SourceError as problem:
                problems.append(str(problem))
                break
            for packed in found:
                by_part[packed.parts[0].name] = packed
                belongs |= {part.name: f"belongs to {packed.name}: scales of its codes" for part in packed.parts[1:]}
                rest = {local: tensor for local, tensor in rest.items() if tensor not in packed.parts}
                if packed.name in stored and packed.name != packed.parts[0].name:
                    problems.append(f"{packed.name} is stored twice, plain and as codes in {packed.parts[0].name}")
        if len(rest) < len(of_module):
            text = "belongs to a packed module: scale of its inputs or outputs"
            belongs |= {tensor.name: text for local, tensor in rest.items() if _BESIDE.search(local)}
    tensors: dict[str, StoredTensor | Packed] = {}
    for name, tensor in stored.items():
        if name in by_part:
            tensors[by_part[name].name] = by_part[name]
        elif name not in belongs:
            tensors[name] = tensor
    return Unpacked(tensors, belongs, tuple(problems))


def is_unknown(problem: str) -> bool:
    """Whether a damaged part is of a form that no exporter here writes, by the words of its line; else it is broken."""
    return "; known: " in problem or "no known form has" in problem


def stored_note(packed: Iterable[Packed]) -> tuple[str, ...]:
    """That weights were quantized before, in which forms; nothing where none was."""
    forms = Counter(weight.form for weight in packed)
    if not forms:
        return ()
    counts = ", ".join(f"{form} ({count} module{'s' * (count > 1)})" for form, count in forms.most_common())
    return (
        f"the weights were stored in {counts} and already carry that error; weight errors here are against the "
        "dequantized values",
    )


def contradictions(unpacked: Unpacked, claims: Claims | None) -> tuple[str, ...]:
    """Where the config says another format than the tensors hold, in one line; the tensors are believed."""
    if claims is None:
        return ()
    found = []
    for tensor in unpacked.tensors.values():
        module = tensor.name.removesuffix(".weight")
        if isinstance(tensor, Packed):
            claimed = claims.of(module)
            if claimed is not None and claimed.split(" ")[0] != tensor.family:
                says = "leaves it unquantized" if claimed == PLAIN else f"says {claimed}"
                found.append(f"{module} is stored in {tensor.form}, {claims.file} {says}")
        elif tensor.name.endswith(".weight") and len(tensor.shape) == 2:
            claimed = None if _LEFT_OUT.search(module) or is_tower(module) else claims.of(module)
            if claimed not in (None, PLAIN):
                found.append(f"{module} is stored as {tensor.dtype}, {claims.file} says {claimed}")
    if not found:
        return ()
    more = f", and so on for {len(found)} modules" if len(found) > 1 else ""
    return (f"the tensors are believed, not the config: {found[0]}{more}",)


def unheld(unpacked: Unpacked, claims: Claims | None) -> str | None:
    """The line to refuse a checkpoint with whose config names a format that no tensor holds."""
    if claims is None:
        return None
    plain = {tensor.dtype for tensor in unpacked.tensors.values() if isinstance(tensor, StoredTensor)}
    held = {weight.family for weight in unpacked.packed} | ({"INT"} if plain & INTEGERS else set())
    if claims.method == "fp8" and "MXFP8" in held:
        held.add("FP8")  # one method for float32 scales and for powers of two
    missing = sorted(name for name in claims.named if name.split(" ")[0] not in held)
    if not missing:
        return None
    found = sorted({weight.form for weight in unpacked.packed}) or sorted(plain)
    return (
        f"{claims.file} says that weights are stored in {missing[0]} ({claims.method}), and no tensor is; found "
        f"{', '.join(found)}; correct or remove quantization_config, or get the checkpoint again"
    )
