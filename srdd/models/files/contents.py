"""Names and types of stored tensors that tell of a mistake: wrappers, experts stored twice, a config left over.

Not here: which tensors there are (folders.py), packed forms, and what a model lacks (srdd.models.loading). Reading on
would measure a weight twice, or under a name that nothing else knows.

Worked number: "_orig_mod.model.layers.0.mlp.up_proj.weight" is a weight of a compiled model; bare, it begins with
"model.".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from srdd.errors import SourceError
from srdd.models.files.mistaken import POINTER_ADVICE, is_pointer
from srdd.models.files.safetensors import StoredTensor

# A wrapper's own module names, and who writes them. They may stand anywhere in a name: a part may be wrapped.
_WRAPPERS = {
    "_orig_mod": ("torch.compile", "model._orig_mod"),
    "_fsdp_wrapped_module": ("FSDP", "the full state dict"),
    "_checkpoint_wrapped_module": ("activation checkpointing", "the full state dict"),
    "_forward_module": ("Lightning", "the module inside"),
}
_DATA_PARALLEL = ("DistributedDataParallel or DeepSpeed", "model.module")
_SINGLE = re.compile(r"(?P<owner>.*\bexperts)\.\d+\.")
_FUSED = re.compile(r"(?P<owner>.*\bexperts)\.[A-Za-z_]\w*(\.weight)?$")
_PLAIN = frozenset({"F64", "F32", "F16", "BF16"})
_SCALE = re.compile(r"(scale|scales|scale_inv|scale_2|absmax|zeros|zero_point|qzeros)$")


def check_contents(tensors: Mapping[str, StoredTensor], folder: Path) -> None:
    """Raises SourceError for what no reader can make sense of."""
    if is_pointer(folder / "config.json"):
        raise SourceError(f"config.json {POINTER_ADVICE}")
    wrapper = wrapper_in(tensors)
    if wrapper is not None:
        raise SourceError(f"{folder.name}: {wrapper}")
    _refuse_experts_twice(tensors)


def wrapper_in(names: Collection[str]) -> str | None:
    """A line on the training wrapper that left its name in those of the tensors; None without one."""
    for module, (who, bare) in _WRAPPERS.items():
        first = next((name for name in names if f".{module}." in f".{name}"), None)
        if first is not None:
            return _wrapped(f"{module}.", first, who, bare, "replace({!r}, '')")
    if names and all(name.startswith("module.") for name in names):
        return _wrapped("module.", min(names), *_DATA_PARALLEL, "removeprefix({!r})")
    return None


def _wrapped(part: str, name: str, who: str, bare: str, rename: str) -> str:
    save = f"{bare}.save_pretrained(FOLDER)" if bare.startswith("model.") else bare
    return (
        f"the names of its tensors hold {part!r}, as in {name}, which {who} puts there; save the model without it "
        f"({save}), or take it out of the names of each file: save_file({{k.{rename.format(part)}: t for k, t in "
        "load_file(OLD).items()}, NEW, {'format': 'pt'}) of safetensors.torch"
    )


def _refuse_experts_twice(tensors: Mapping[str, StoredTensor]) -> None:
    single: dict[str, str] = {}
    for name, tensor in tensors.items():
        found = _SINGLE.match(name)
        if found is not None and len(tensor.shape) == 2:
            single.setdefault(found["owner"], name)
    for name, tensor in tensors.items():
        found = _FUSED.match(name)
        if found is not None and len(tensor.shape) > 2 and found["owner"] in single:
            raise SourceError(
                f"the experts of {found['owner']} are stored twice, fused ({name}) and one by one "
                f"({single[found['owner']]}); keep one form of them"
            )


def left_over(tensors: Mapping[str, StoredTensor], config: Mapping[str, Any]) -> str | None:
    """A line on a config that names a quantized form of weights that are plain numbers without scales, or None."""
    claimed = config.get("quantization_config")
    if not isinstance(claimed, dict) or not claimed:
        return None
    if not tensors or any(t.dtype not in _PLAIN or _SCALE.search(name) for name, t in tensors.items()):
        return None
    method = claimed.get("quant_method") or claimed.get("quant_algo") or "a quantized form"
    found = " and ".join(sorted({tensor.dtype for tensor in tensors.values()}))
    return (
        f"config.json says that weights are stored in {method}, and no tensor is; found {found} without scales; remove "
        "quantization_config from config.json, or get the checkpoint again"
    )
