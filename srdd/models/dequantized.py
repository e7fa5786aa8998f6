"""A model from a packed checkpoint: its weights are dequantized here, whatever the library can do, and then loaded.

Not here: packed forms (files/packed) and loading of plain checkpoints (loading.py). transformers opens a few of these
forms, some only with packages or devices of their own, and rounds FP8 scales to 16 bits on the way; so that a model and
its files are the same numbers, all of them go the way of the files. A model that the library left packed in other forms
has no weights to measure, which sites.py says.

Worked number: a 7B model in NVFP4 is read into 14 GB of bfloat16, each value rounded once.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from srdd.errors import SourceError
from srdd.models.files.checkpoint import Checkpoint
from srdd.models.files.packed.contract import Packed

_FLOATS = ("F64", "F32", "BF16", "F16")


def is_packed(checkpoint: Checkpoint) -> bool:
    """True when a weight of it is stored as codes. Raises SourceError when one is damaged, or none is as claimed."""
    for problem in (*checkpoint.damaged, *filter(None, (checkpoint.unheld,))):
        raise SourceError(problem)
    return any(isinstance(tensor, Packed) for tensor in checkpoint.tensors.values())


def load_dequantized(auto: Any, config: Any, checkpoint: Checkpoint, **options: Any) -> Any:
    """Model and loading info, as from_pretrained gives them, with dequantized weights; `config` loses its claim."""
    parts: list[Any] = [config, getattr(config, "text_config", None)]
    for part in parts:
        if getattr(part, "quantization_config", None) is not None:
            del part.quantization_config
    trust = {key: value for key, value in options.items() if key == "trust_remote_code"}
    model_class = auto
    if hasattr(auto, "from_config"):
        with torch.device("meta"):
            model_class = type(auto.from_config(config, **trust))
    state = state_of(checkpoint, _dtype(options.get("dtype"), config, checkpoint))
    return model_class.from_pretrained(None, config=config, state_dict=state, output_loading_info=True, **options)


def state_of(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of a checkpoint in memory, packed weights in `dtype`, all others as they are stored."""
    state = {}
    for name, tensor in checkpoint.tensors.items():
        whole = torch.empty(tensor.shape, dtype=dtype if isinstance(tensor, Packed) else tensor.torch_dtype)
        rows = whole.view(-1, tensor.shape[-1] if tensor.shape else 1) if tensor.numel else whole
        done = 0
        for chunk in checkpoint.row_chunks(name):
            rows[done : done + len(chunk)] = chunk
            done += len(chunk)
        state[name] = whole
    return state


def _dtype(asked: Any, config: Any, checkpoint: Checkpoint) -> torch.dtype:
    """As asked for; else the config's, else what most plain values are stored in, else bfloat16."""
    for dtype in (asked, getattr(config, "dtype", None)):
        if isinstance(dtype, torch.dtype):
            return dtype
    plain: Counter[torch.dtype] = Counter()
    for tensor in checkpoint.tensors.values():
        if not isinstance(tensor, Packed) and tensor.dtype in _FLOATS:
            plain[tensor.torch_dtype] += math.prod(tensor.shape)
    return plain.most_common(1)[0][0] if plain else torch.bfloat16
