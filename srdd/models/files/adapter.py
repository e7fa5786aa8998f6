"""A LoRA adapter's folder, as PEFT writes it: which modules it changes, by which factors and how strongly.

adapter_config.json says r, alpha and what else decides the product; adapter_model.safetensors holds lora_A [r, in] and
lora_B [out, r] of every module, and whole tensors of what was trained besides (modules_to_save, biases). Only headers
are read here. What would change the product in a way that is not known is refused by its name, and so is every tensor
that nothing is known of: nothing of an adapter is dropped in silence.

Not here: what factors do to a weight (srdd.models.changes), and the base (checkpoint.py, srdd.models.source).

Worked number: alpha 16 and r 8 give W + 2 B A; with use_rslora 16 / sqrt(8) = 5.66. An alpha_pattern {"q_proj": 32}
makes it 4 for every q_proj.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from srdd.core.adapters import AdapterForm
from srdd.core.files import readable
from srdd.documents.parts import Model
from srdd.errors import SourceError, setting
from srdd.models.files import weights_hash
from srdd.models.files.folders import ADAPTER_CONFIG, weight_files
from srdd.models.files.mistaken import POINTER_ADVICE, is_pointer
from srdd.models.files.safetensors import StoredTensor, header_of

WEIGHTS = "adapter_model.safetensors"
_R = _ALPHA = 8  # PEFT's defaults
_PREFIX = "base_model.model."
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<side>[AB])(\.default)?(\.(?P<local>weight|bias))?$"
)
_MAGNITUDE = re.compile(r"(?P<module>.+)\.lora_magnitude_vector(\.default)?(\.weight)?$")

# Keys of the config that decide nothing here, or are read below. Any other that is set is refused.
_READ = frozenset(
    {
        *("peft_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "rank_pattern", "alpha_pattern"),
        *("use_rslora", "use_dora", "lora_bias", "fan_in_fan_out", "modules_to_save", "bias", "init_lora_weights"),
        *("task_type", "auto_mapping", "peft_version", "inference_mode", "target_modules", "exclude_modules"),
        *("lora_dropout", "layers_to_transform", "layers_pattern", "megatron_core", "megatron_config", "eva_config"),
        *("qalora_group_size", "runtime_config"),
    }
)
# Starts that leave the base as it is. The others (PiSSA, OLoRA, LoftQ, CorDA, ...) take a part out of its weights.
_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Factors:
    """What an adapter adds to the weight of one module: scaling * B A, under DoRA's magnitude if it has one."""

    module: str  # as the base has it
    a: StoredTensor  # [r, in]
    b: StoredTensor  # [out, r]
    scaling: float
    magnitude: StoredTensor | None = None  # [out]
    bias: StoredTensor | None = None  # of B, [out]
    embedding: bool = False  # of an embedding [in, out], whose rows are looked up

    @property
    def tensors(self) -> list[StoredTensor]:
        return [tensor for tensor in (self.a, self.b, self.magnitude, self.bias) if tensor is not None]


@dataclass(frozen=True)
class Adapter:
    """An opened adapter: only headers have been read."""

    label: str
    base: str | None  # as its config names it
    revision: str | None  # of the base
    factors: dict[str, Factors]
    whole: dict[str, StoredTensor] = field(default_factory=dict)  # parameter of the base -> what was trained instead
    shared: frozenset[str] = frozenset()  # of `whole`: those that change the base's own tensor, not a copy of it
    weights_hash: str = ""

    @property
    def parameters(self) -> int:
        parts = [tensor for factors in self.factors.values() for tensor in factors.tensors]
        return sum(tensor.numel for tensor in (*parts, *self.whole.values()))

    @property
    def ranks(self) -> list[int]:
        return sorted({factors.a.shape[0] for factors in self.factors.values()})

    @property
    def method(self) -> str:
        return "DoRA" if any(factors.magnitude for factors in self.factors.values()) else "LoRA"

    def on(self, base: Model, form: AdapterForm) -> Model:
        """Who the base is with this adapter on it. Its parameters are the base's, so that the two compare."""
        known = base.weights_hash
        both = None if known is None else sha256(f"{known} {self.weights_hash} {form}".encode()).hexdigest()
        return base.model_copy(update={"id": f"{base.id} + {self.label}", "weights_hash": both})

    def notes(self, form: AdapterForm) -> tuple[str, ...]:
        """What a reader of the numbers must know."""
        where = (
            "kept apart in 16 bit, so weights are the base's and costs those of Q(W) + s B A"
            if form == "apart"
            else "merged into the weights before they are quantized: Q(W + s B A)"
        )
        rank = ", ".join(map(str, self.ranks))
        of = f"{self.method} of {len(self.factors)} modules, rank {rank}" if self.factors else "no factors"
        own = f"; {len(self.whole)} tensor(s) are its own, {min(self.whole)} among them" if self.whole else ""
        return (f"adapter {self.label} ({of}) is {where}{own}",)


def is_adapter(folder: Path) -> bool:
    """A folder with an adapter and no model. Raises SourceError as `weight_files`."""
    return (folder / ADAPTER_CONFIG).is_file() and weight_files(folder) is None


def open_adapter(name: str) -> Adapter:
    """Open an adapter's folder. Raises SourceError in one line for what is none, damaged, or of a kind not known."""
    folder = Path(name).expanduser()
    label = readable(folder.resolve().name)
    if not folder.is_dir():
        raise SourceError(f"no such adapter folder: {name}")
    config = _config(folder, label)
    file = folder / WEIGHTS
    if not file.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        why = (
            "only pickled weights (adapter_model.bin); save it again with save_pretrained" if pickled else "no weights"
        )
        raise SourceError(f"{label} holds {why}; expected {WEIGHTS}")
    header, stored = header_of(file)
    factors, whole, shared = _sorted(stored, config, label)
    return Adapter(
        label,
        config.get("base_model_name_or_path") or None,
        config.get("revision") or None,
        factors,
        whole,
        frozenset(shared),
        weights_hash([(header, file.stat().st_size), (json.dumps(config, sort_keys=True).encode(), 0)]),
    )


def _config(folder: Path, label: str) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise SourceError(f"{label} holds no {ADAPTER_CONFIG}, so it is no adapter; give the folder that PEFT wrote")
    if is_pointer(path):
        raise SourceError(f"{path.name} {POINTER_ADVICE}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise SourceError(f"{ADAPTER_CONFIG} in {label} is no JSON ({problem})") from problem
    if not isinstance(config, dict):
        raise SourceError(f"{ADAPTER_CONFIG} in {label} is no JSON object")
    _check(config, label)
    return config


def _check(config: Mapping[str, Any], label: str) -> None:
    """Raises SourceError for another kind of adapter, and for whatever changes the product in a way not known here."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise SourceError(f"{label} is an adapter of type {kind or 'unknown'}; only LORA is read")
    merge = "merge it with PEFT (merge_and_unload) and scan the merged model"
    start = config.get("init_lora_weights")
    if start not in _STARTS:
        raise SourceError(
            f"{label}: init_lora_weights is {start!r}, which takes a part out of the base's own weights; {merge}"
        )
    strange = sorted(
        key for key, value in config.items() if key not in _READ and value not in (None, False, {}, [], "")
    )
    if strange:
        raise SourceError(f"{label}: {strange[0]} is set, and what it does to the weights is not known here; {merge}")
    numbers = {"r": config.get("r", _R), "lora_alpha": config.get("lora_alpha", _ALPHA)}
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict):
            raise SourceError(f"{label}: {key} is {patterns!r}; expected numbers by pattern")
        numbers |= {f"{key} {pattern!r}": number for pattern, number in patterns.items()}
    for key, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise SourceError(f"{label}: {key} is {number!r}; expected a number")
    if config.get("r", _R) < 1:
        raise SourceError(f"{label}: r is {config['r']}; expected 1 or more")
    base = config.get("base_model_name_or_path")
    if base is not None and not isinstance(base, str):
        raise SourceError(f"{label}: base_model_name_or_path is {base!r}; expected a name, or give {setting('model')}")


def _sorted(
    stored: Mapping[str, StoredTensor], config: Mapping[str, Any], label: str
) -> tuple[dict[str, Factors], dict[str, StoredTensor], set[str]]:
    """Factors by module, and whole tensors by the names of parameters. Raises SourceError."""
    parts: dict[str, dict[str, StoredTensor]] = {}
    whole: dict[str, StoredTensor] = {}
    shared: set[str] = set()
    for name, tensor in stored.items():
        if tensor.dtype not in _FLOATS:
            raise SourceError(f"{label}: {name} is stored as {tensor.dtype}; expected {', '.join(sorted(_FLOATS))}")
        bare = name.removeprefix(_PREFIX)
        if found := _FACTOR.match(bare):
            part = "bias" if found["local"] == "bias" else found["side"]
            of_module = parts.setdefault(found["module"].replace(".base_layer", ""), {})
            if part == "bias" and found["side"] == "A":
                raise SourceError(f"{label}: {name} is no part of LoRA that is known")
            if part in of_module:
                raise SourceError(f"{label}: {name} is stored twice, also as {of_module[part].name}")
            of_module[part] = tensor
            if found["kind"]:
                of_module["embedding"] = tensor
        elif found := _MAGNITUDE.match(bare):
            parts.setdefault(found["module"], {})["magnitude"] = tensor
        elif "lora_" in bare or "trainable_tokens" in bare:
            raise SourceError(f"{label}: {name} is no part of LoRA that is known")
        else:
            plain = re.sub(r"\.(base_layer|original_module|modules_to_save(\.default)?)(?=\.)", "", bare)
            whole[plain] = tensor
            if plain.endswith(".bias") or ".base_layer." in bare:
                shared.add(plain)
    if not parts and not whole:
        raise SourceError(f"{label} holds no tensor in {WEIGHTS}")
    return {module: _factors(module, found, config, label) for module, found in parts.items()}, whole, shared


def _factors(module: str, found: Mapping[str, StoredTensor], config: Mapping[str, Any], label: str) -> Factors:
    for side, other in (("A", "B"), ("B", "A")):
        if side not in found:
            one = found.get(other) or next(iter(found.values()))
            kind = "embedding_" if "embedding" in found else ""
            raise SourceError(f"{label}: {one.name} has no lora_{kind}{side} beside it; get the adapter again")
    a, b = found["A"], found["B"]
    for tensor in (a, b):
        if len(tensor.shape) != 2:
            raise SourceError(f"{label}: {tensor.name} is {list(tensor.shape)}; only factors of Linears are read (2-D)")
    if a.shape[0] != b.shape[1]:
        raise SourceError(
            f"{label}: {a.name} {list(a.shape)} and {b.name} {list(b.shape)} are of two ranks; get the adapter again"
        )
    rank = _of_pattern(config.get("rank_pattern"), module, config.get("r", _R))
    if a.shape[0] != rank:
        raise SourceError(f"{label}: {a.name} {list(a.shape)} has rank {a.shape[0]}, its config makes it {rank:g}")
    magnitude, embedding = found.get("magnitude"), "embedding" in found
    if (magnitude is not None) != bool(config.get("use_dora")):
        has = "has no magnitude" if magnitude is None else f"has a magnitude ({magnitude.name})"
        raise SourceError(f"{label}: {module} {has}, and use_dora is {bool(config.get('use_dora'))}")
    if magnitude is not None and (embedding or magnitude.numel != b.shape[0]):
        raise SourceError(f"{label}: {magnitude.name} is {list(magnitude.shape)}; expected [{b.shape[0]}], of a Linear")
    if magnitude is not None and "bias" in found:
        raise SourceError(f"{label}: {module} has a magnitude and a bias of its factors; merge it with PEFT first")
    alpha = _of_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", _ALPHA))
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Factors(module, a, b, scaling, magnitude, found.get("bias"), embedding)


def _of_pattern(patterns: Mapping[str, float] | None, module: str, default: float) -> float:
    """The first pattern that is the module's name or its end, as PEFT looks it up."""
    for pattern, number in (patterns or {}).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return number
        except re.error as problem:
            raise SourceError(f"{ADAPTER_CONFIG}: {pattern!r} is no pattern ({problem})") from problem
    return default
