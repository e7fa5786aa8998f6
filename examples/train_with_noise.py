"""From scan to training: measure a model, write rin.yaml, and train with its noise in transformers' Trainer.

A tiny Llama with random weights stands in for yours; on a CPU this takes seconds. The scan tells what noise on each
norm costs; the noise starts where it costs 0.05 nats a token, or at half of what breaks the model, and costs the same
in every layer. It is in every forward pass of the noisy steps, and in no weight that is updated, evaluated or saved.
"""

import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import srdd
from srdd.cli.app import main as srdd_command
from srdd.noise import RinCallback


def main() -> None:
    torch.set_num_threads(1)  # a model this small gains nothing from more
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4
    )
    model = LlamaForCausalLM(config)
    tokens = torch.randint(0, 256, (32, 32), generator=torch.Generator().manual_seed(0))

    with tempfile.TemporaryDirectory() as scratch:
        report, document = Path(scratch, "report.json"), Path(scratch, "rin.yaml")
        srdd.scan(model.eval(), tokens[:4], formats="mxfp4", costs="predicted").save(report)
        if srdd_command(["multipliers", str(report), "--strategy", "equal-damage", "--out", str(document)]):
            raise SystemExit("no rin.yaml was written")

        arguments = TrainingArguments(
            output_dir=scratch, max_steps=20, per_device_train_batch_size=4, logging_steps=5, save_strategy="no",
            report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
        )  # fmt: skip
        with RinCallback(document, seed=7) as noise:
            trainer = Trainer(
                model=model,
                args=arguments,
                train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
                callbacks=[noise],
            )
            trainer.train()

    print(noise.record)
    if noise.record.last is not None:
        for row in noise.record.last.touched:
            print(f"{row.name}: asked for std {row.sigma:.5f}, got {row.std:.5f}")


if __name__ == "__main__":
    main()
