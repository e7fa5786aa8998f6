"""The weights of a checkpoint's files under the names, numbers and shapes that they have in the model which is opened.

The model is built without memory (on the meta device) from config.json, and its own library says which tensors become
which parameters: experts stored one by one are fused there, prefixes come and go, a tied head is its embedding. So a
scan of weights alone and one of the model name the same things alike.

Not here: names where no model can be built, or a tensor is made by more than joining rows (checkpoint_sites.py).

Worked number: Qwen3-MoE stores experts.0.gate_proj and experts.0.up_proj [768, 2048] each; its model holds both as the
first 768 and last 768 rows of experts.gate_up_proj[0].
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from srdd.documents.schema import Skipped
from srdd.models.files.checkpoint import Checkpoint
from srdd.models.files.packed.contract import Packed
from srdd.models.loading import class_for
from srdd.models.modules import weight_of
from srdd.models.quiet import quiet
from srdd.models.sites import Site, SiteMap, find_sites

_LACKING = 10  # a file that lacks more than one in so many parameters is no file of this model


def model_without_memory(config: Mapping[str, Any]) -> nn.Module | None:
    """The model that a config.json describes, on the meta device; None where transformers alone cannot build it."""
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING or config.get("auto_map"):
        return None
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    try:
        with quiet(), TemporaryDirectory() as folder, torch.device("meta"):
            Path(folder, "config.json").write_text(json.dumps(plain))  # infinities have a spelling of its own there
            made = AutoConfig.from_pretrained(folder)
            _, auto = class_for(made)
            model = auto.from_config(made) if hasattr(auto, "from_config") else auto(made)
            model.tie_weights()
    except Exception:  # a config that no model fits; the names in the file must do
        return None
    return model if isinstance(model, nn.Module) else None


def live_sites(checkpoint: Checkpoint) -> tuple[SiteMap, frozenset[str]] | None:
    """The weight sites as the model has them, each with the tensors it is stored in, and the names of these tensors.

    None where there is no telling: no model can be built, a weight is made by more than joining rows or has another
    shape than in the model, or the file lacks a tenth of it.
    """
    model = model_without_memory(checkpoint.config)
    if model is None:
        return None
    found = find_sites(model, ("weight",))
    stored = _stored_in(model, checkpoint)
    modules = dict(model.named_modules())
    sites: list[Site] = []
    missing: list[Skipped] = []
    for site in found.sites:
        weight = weight_of(modules[site.module], site.parameter)
        names = stored.get(id(weight))
        if names is None:
            missing.append(Skipped(name=site.name, parameters=weight.numel(), reason="the checkpoint lacks it"))
            continue
        wanted = tuple(weight.shape)
        transposed = _transposed(checkpoint, names, site)
        if transposed != site.transposed:
            wanted = (*wanted[:-2], wanted[-1], wanted[-2])
        if not names or _shape(checkpoint, names, wanted) != wanted:
            return None
        stays = {"stored": names, "shape": wanted, "transposed": transposed}
        sites.append(replace(site, **stays))  # type: ignore[arg-type]
    if _LACKING * sum(row.parameters for row in missing) > found.parameters or not sites:
        return None
    held = frozenset(name for names in stored.values() for name in names)
    named = replace(found, sites=tuple(sites), skipped=(*found.skipped, *missing), architecture=type(model).__name__)
    return named, held


def _stored_in(model: nn.Module, checkpoint: Checkpoint) -> dict[int, tuple[str, ...]]:
    """By id of a parameter, the tensors whose rows it is, in order; none where it is made by more."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    state = model.state_dict(keep_vars=True)
    prefix = getattr(model, "base_model_prefix", "")
    parts: dict[str, list[tuple[str, str | None]]] = {}
    for name in checkpoint.tensors:
        target, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if target in state:
            parts.setdefault(target, []).append((name, pattern))
    stored: dict[int, tuple[str, ...]] = {}
    for target, sources in parts.items():
        stored.setdefault(id(state[target]), _joined(sources, converters))
    return stored


def _joined(sources: Sequence[tuple[str, str | None]], converters: Sequence[Any]) -> tuple[str, ...]:
    """The tensors in the order of their rows: expert by expert, and of each as the library lays them side by side."""
    if len(sources) == 1 and sources[0][1] is None:
        return (sources[0][0],)
    patterns = {pattern for _, pattern in sources}
    converter = next((c for c in converters if patterns <= set(c.source_patterns)), None)
    if converter is None or not _joins_rows(converter.operations):
        return ()
    place = {pattern: index for index, pattern in enumerate(converter.source_patterns)}
    return tuple(name for name, pattern in sorted(sources, key=lambda s: (_numbers(s[0]), place[s[1]])))


def _joins_rows(operations: Sequence[Any]) -> bool:
    """Whether they put matrices one below the other or one behind the other, which leaves every block as it is."""
    return [(type(op).__name__, op.dim) for op in operations if hasattr(op, "dim")] in (
        [("MergeModulelist", 0)],
        [("MergeModulelist", 0), ("Concatenate", 1)],
        [("Concatenate", 0)],
    ) and all(hasattr(op, "dim") for op in operations)


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name))


def _transposed(checkpoint: Checkpoint, names: Sequence[str], site: Site) -> bool:
    """As in the model, but for packed weights, which may be stored the other way around than they are opened."""
    first = checkpoint.tensors[names[0]] if names else None
    if isinstance(first, Packed) and first.transposed is not None:
        return first.transposed
    return site.transposed


def _shape(checkpoint: Checkpoint, names: Sequence[str], wanted: tuple[int, ...]) -> tuple[int, ...] | None:
    """Of the rows of all tensors together, as experts where the model has them; None when widths differ."""
    shapes = [checkpoint.tensors[name].shape for name in names]
    if len(shapes) == 1:
        return tuple(shapes[0])
    if any(len(shape) != 2 or shape[1] != shapes[0][1] for shape in shapes):
        return None
    rows, columns = sum(shape[0] for shape in shapes), shapes[0][1]
    if len(wanted) == 2:
        return rows, columns
    return (wanted[0], rows // wanted[0], columns) if len(shapes) % wanted[0] == 0 else None
