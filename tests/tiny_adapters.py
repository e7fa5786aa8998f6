"""Tiny models with LoRA adapters made by PEFT itself, whose weights are no zeros."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

IDS = torch.randint(2, 64, (4, 16), generator=torch.Generator().manual_seed(3))


def tiny_model(dtype: torch.dtype = torch.float32, **config: Any) -> LlamaForCausalLM:
    """A random Llama of two layers."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **heads, **config})).to(dtype).eval()


def with_adapter(model: nn.Module, seed: int = 1, **config: Any) -> Any:
    """A copy of the model inside PEFT; A and B are random unless `init_lora_weights` says otherwise."""
    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    made = peft.LoraConfig(**{**settings, "init_lora_weights": False, **config})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT's own on embeddings, tied weights and renamed attributes
        return peft.get_peft_model(copy.deepcopy(model), made).eval()  # type: ignore[arg-type]


def saved(wrapped: Any, folder: Path, base: Path | str = "org/base") -> Path:
    """An adapter's folder as PEFT writes it."""
    for config in wrapped.peft_config.values():
        config.base_model_name_or_path = str(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped.save_pretrained(folder)
    return folder
