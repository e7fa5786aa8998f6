"""transformers' Trainer on the tiny Llama of tiny_training.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_training import rows, tiny_llama
from transformers import Trainer, TrainerCallback, TrainingArguments


def make_trainer(
    folder: Path, callbacks: list[TrainerCallback], model: Any = None, data: Any = None, **settings: Any
) -> Trainer:
    arguments = {
        "output_dir": str(folder),
        "max_steps": 10,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 5,
    }
    return Trainer(
        model=model or tiny_llama(),
        args=TrainingArguments(**{**arguments, **settings}),
        train_dataset=rows(64) if data is None else data,
        eval_dataset=rows(4),
        callbacks=callbacks,
    )
