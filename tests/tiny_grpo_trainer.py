"""TRL's GRPOTrainer on the tiny Llama of tiny_training.py, with generation by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from tiny_training import Observer, tiny_llama
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

STEPS = 6  # silent for the first two


def words(completions: list[str], **rest: Any) -> list[float]:
    """A reward that differs between completions."""
    return [float(len(set(completion.split()))) for completion in completions]


def make_trainer(folder: Path, seen: Observer, model: Any = None, **settings: Any) -> Any:
    vocabulary = {"<pad>": 0, "</s>": 1} | {f"w{i}": i for i in range(2, 32)}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="</s>", padding_side="left"
    )
    arguments = {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "steps_per_generation": 2,  # rollouts before steps 0, 2 and 4; old log-probabilities are computed
        "num_generations": 2,
        "max_completion_length": 4,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    prompts = Dataset.from_list([{"prompt": f"w{2 + i % 30} w{2 + i * 7 % 30}"} for i in range(32)])
    return GRPOTrainer(
        model=model or tiny_llama(),
        reward_funcs=words,
        args=GRPOConfig(**{**arguments, **settings}),
        train_dataset=prompts,
        eval_dataset=prompts.select(range(2)),
        processing_class=tokenizer,
        callbacks=[seen],
    )
