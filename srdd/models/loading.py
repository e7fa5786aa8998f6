"""Loads a checkpoint into a model: which class, and what to say of weights that only one of the two has.

Not here: finding the files (source.py). BertForMaskedLM's checkpoint, for instance, is opened as the encoder alone: the
5 tensors of its head are not measured, and a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srdd.core.packaged_models import near_model
from srdd.errors import MissingExtraError, SourceError, setting
from srdd.models.dequantized import is_packed, load_dequantized
from srdd.models.files.checkpoint import Checkpoint, open_checkpoint
from srdd.models.files.contents import wrapper_in
from srdd.models.files.folders import INDEX
from srdd.models.files.mistaken import POINTER_ADVICE, is_pointer
from srdd.models.quiet import loading_reports, quiet, quiet_hub


def class_for(config: Any) -> tuple[bool, Any]:
    """Whether a config is that of a causal language model, and the class that opens its checkpoint."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    names = set(getattr(config, "architectures", None) or ())
    # BERT is in the table of causal models as a decoder; what the checkpoint says it is decides
    causal = bool(names & set(CAUSAL.values())) if names else config.model_type in CAUSAL
    return causal, AutoModelForCausalLM if causal else other_class(names)


def other_class(names: Iterable[str]) -> Any:
    """The class for a checkpoint that is no causal language model.

    Its own if that reads pictures or sounds and writes text (Qwen3-VL, Gemma 3), so that the head is there, or if it
    has no head; else AutoModel, which goes by the model's type alone: it would add a random decoder to the weights of
    a T5EncoderModel.
    """
    import transformers
    from transformers.models.auto import modeling_auto as auto

    writers = {
        *auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values(),
        *auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.values(),
    }
    for name in names:
        if name.endswith("ForConditionalGeneration") and name in writers and hasattr(transformers, name):
            return getattr(transformers, name)
    own = sorted(name for name in names if name.endswith("Model") and "Head" not in name)
    return getattr(transformers, own[0], transformers.AutoModel) if own else transformers.AutoModel


def unread_part(model: nn.Module, unexpected: Sequence[str]) -> tuple[str, ...]:
    """A note on weights of the checkpoint that the model has no place for, e.g. the head of a masked language model."""
    if not unexpected:
        return ()
    return (
        f"{len(unexpected)} tensor(s) of the checkpoint are no part of {type(model).__name__} and not measured, "
        f"{unexpected[0]} among them; a scan of the weights alone reads them too",
    )


def random_part(model: nn.Module, missing: list[str], label: str, causal: bool) -> tuple[str, ...]:
    """A note on weights that the checkpoint lacks, which transformers fills with random numbers and only logs.

    An encoder saved without its pooler is usual, and a note will do; anything more would be a scan of noise. Raises
    SourceError then.
    """
    if not missing:
        return ()
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    share = sum(sizes.get(name, 0) for name in missing) / max(sum(sizes.values()), 1)
    found = f"{len(missing)} weights of its architecture ({share:.1%} of the parameters), {missing[0]} among them"
    if causal or share > 0.1:
        raise SourceError(f"{label} lacks {found}; get the checkpoint again, or correct config.json")
    return (f"the checkpoint lacks {found}; they hold random values and their rows mean nothing",)


def load_model(
    target: str,
    label: str,
    dtype: str,
    device_map: str | None,
    where: torch.device | None,
    options: dict[str, Any],
    packed: Checkpoint | None = None,
) -> tuple[Any, tuple[str, ...]]:
    """The model, with notes on what the checkpoint lacks or has beside it; `packed` is one to dequantize.

    Raises SourceError, MissingExtraError.
    """
    from transformers import AutoConfig

    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if device_map is not None:
        if find_spec("accelerate") is None:
            raise MissingExtraError(f"{setting('device_map')} needs accelerate: pip install 'srdd[big]'")
        extra["device_map"] = device_map
    tables: list[str] = []
    try:
        with quiet(), quiet_hub(), loading_reports() as tables:
            config = AutoConfig.from_pretrained(target, **options)
            causal, auto = class_for(config)
            if getattr(config, "quantization_config", None) and not Path(target).is_dir():
                checkpoint = open_checkpoint(target, revision=options.get("revision"))
                packed, notes = checkpoint if is_packed(checkpoint) else None, checkpoint.notes
            # Sizes that differ are found here, with both shapes: its own error points at a table.
            extra["ignore_mismatched_sizes"] = True
            if packed is not None:
                model, info = load_dequantized(auto, config, packed, **extra, **options)
            else:
                if not Path(target).is_dir() and _index_on_hub(target, options):
                    config.transformers_weights = INDEX  # the index counts, also beside a single file
                    extra["config"] = config
                model, info = auto.from_pretrained(target, output_loading_info=True, **extra, **options)
        if where is not None:
            model = model.to(where)
    except SourceError:
        raise
    except Exception as problem:  # transformers and the hub raise many types; each means it cannot be opened
        if isinstance(problem, MemoryError | torch.OutOfMemoryError):
            raise SourceError(
                f"{label} does not fit into memory; try {setting('device_map', 'auto')}, or scan its weights alone: "
                f"{setting('sites', 'weight')}"
            ) from problem
        if "trust_remote_code" in str(problem) and not options["trust_remote_code"]:
            raise SourceError(
                f"{label} needs Python code that comes with the checkpoint; read it, then pass "
                f"{setting('trust_remote_code')}"
            ) from problem
        from_hub = isinstance(problem, OSError) and not Path(target).is_dir()
        found = "is no folder here, and the hub did not give it" if from_hub else "cannot be opened"
        near = near_model(label) if from_hub else ""
        told = _converting(tables) or _one_line(problem, target, label)
        raise SourceError(f"{label} {found}: {told}{near}") from problem
    _refuse_other_sizes(info["mismatched_keys"], label)
    _refuse_other_names(info["missing_keys"], info["unexpected_keys"], label)
    random = random_part(model, sorted(info["missing_keys"]), label, causal)
    return model, (*notes, *random, *unread_part(model, sorted(info["unexpected_keys"])))


def _index_on_hub(name: str, options: dict[str, Any]) -> bool:
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(name, INDEX, revision=options.get("revision"))
    except Exception:  # the hub client raises many types; what else is wrong will be told on loading
        return False
    return True


def _refuse_other_sizes(mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]], label: str) -> None:
    """Raises SourceError that names a tensor, its shape in the checkpoint and the one that config.json makes."""
    found = sorted((name, list(stored), list(built)) for name, stored, built in mismatched)
    if found:
        name, stored, built = found[0]
        count = f" ({len(found)} tensors do not fit)" if len(found) > 1 else ""
        raise SourceError(
            f"{label} holds {name} as {stored}, config.json makes it {built}{count}; correct config.json, or get the "
            "checkpoint again"
        )


def _refuse_other_names(missing: Collection[str], unexpected: Collection[str], label: str) -> None:
    """Raises SourceError when what the model lacks is there under the names of a wrapper around it."""
    wrapper = wrapper_in(unexpected) if missing else None
    if wrapper is not None:
        raise SourceError(f"{label}: {wrapper}")
    if not missing or len(unexpected) < len(missing):
        return
    one = min(missing)
    prefixes = {name.removesuffix(one) for name in unexpected if name.endswith(f".{one}")}
    prefix = next((p for p in sorted(prefixes) if all(p + name in unexpected for name in missing)), None)
    if prefix is not None:
        raise SourceError(
            f"{label}: the names of its tensors begin with {prefix!r}, as in {prefix}{one}, and those of its "
            "architecture do not; rename them, or correct architectures in config.json"
        )


def _converting(tables: Iterable[str]) -> str:
    """What a table says of a tensor that transformers could not convert; "" if none does."""
    for table in tables:
        name, mark, rest = table.partition("| CONVERSION |")
        if mark:
            lines = [line.strip() for line in rest.splitlines() if line.strip() and "|" not in line]
            errors = [line for line in lines if re.match(r"\w*(Error|Exception)\b", line)]
            return " ".join(f"{name.splitlines()[-1].strip()}: {' '.join(errors[:2])}".split())[:300]
    return ""


def load_tokenizer(target: str, label: str, options: dict[str, Any]) -> tuple[Any | None, str | None]:
    """The tokenizer, or None and why there is none."""
    from transformers import AutoTokenizer

    try:
        with quiet(), quiet_hub():
            return AutoTokenizer.from_pretrained(target, **options), None
    except Exception as problem:  # a model without tokenizer files is legal: its weights can be scanned
        folder, globs = Path(target), ("*token*", "*vocab*", "*.model")
        files = [file for glob in globs for file in folder.glob(glob)] if folder.is_dir() else []
        if folder.is_dir() and not files:
            return None, "its folder holds no tokenizer files"  # transformers says so in a paragraph
        pointer = next((file for file in files if is_pointer(file)), None)
        if pointer is not None:
            return None, f"{pointer.name} {POINTER_ADVICE}"
        return None, f"{_one_line(problem, target, label)[:160]}"


def _one_line(problem: Exception, target: str, label: str) -> str:
    """The message without the path of the model, since notes end in reports."""
    text = " ".join(str(problem).replace(target, label).split())
    if not text:
        return type(problem).__name__
    return text if len(text) <= 300 else f"{text[:297].rpartition(' ')[0]} ..."
