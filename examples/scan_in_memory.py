"""Scan a model that is already in memory, as a notebook or a trainer would: no files, no command line.

A tiny Llama with random weights stands in for yours. Layer 2 is given one outlier column, which the scan should find.
"""

import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import srdd


def main() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=6, num_attention_heads=4
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[:, 5] *= 100

    token_ids = torch.randint(0, 256, (4, 64), generator=torch.Generator().manual_seed(0))
    report = srdd.scan(model, token_ids, formats="mxfp4,nvfp4")

    for layer in report.layers:
        if layer.kind == "weight":
            measured = layer.formats["mxfp4:even"]
            print(f"layer {layer.layer}: {measured.value('sqnr_db'):.2f} dB")
    for row in report.summary:
        if row.unusual and row.kind == "weight" and row.metric == "relative_error":
            print(f"unusual under {row.format}: layers {row.unusual}")
    if len(sys.argv) > 1:
        report.save(sys.argv[1])


if __name__ == "__main__":
    main()
