"""Activation scan of SmolLM2 against the plain forward pass on the same tokens, one format and three."""

import torch
from timing import median_ratio, median_seconds, verdict

from srdd.models.source import open_model
from srdd.runs.calibration import load_sequences
from srdd.runs.scanning import scan as measure

SAMPLES, LENGTH, BATCH = 4, 512, 4


def main() -> None:
    opened = open_model("smollm2")
    sequences = load_sequences(None, opened.tokenizer, samples=SAMPLES, seq_len=LENGTH)
    ids = sequences.token_ids

    def plain() -> None:
        with torch.no_grad():
            for start in range(0, SAMPLES, BATCH):
                opened.model(ids[start : start + BATCH], use_cache=False)

    def scan(formats: str) -> None:
        measure(opened.model, sequences, formats, ("input", "output"), batch_size=BATCH, backend="fused")

    print(f"SmolLM2, {SAMPLES * LENGTH} tokens, {torch.get_num_threads()} threads, {opened.identity.dtype}")
    print(f"plain forward      {median_seconds(plain):.2f} s")
    for formats, target in (("mxfp4", 1.15), ("mxfp4,nvfp4,mxfp8", 1.5)):
        seconds, ratio = median_ratio(lambda formats=formats: scan(formats), plain)
        print(f"scan {formats:<18} {seconds:.2f} s, ratio {verdict(ratio, target, at_most=True)}")

    whole = load_sequences(None, opened.tokenizer)
    three = "mxfp4,nvfp4,mxfp8"
    seconds, ratio = median_ratio(
        lambda: measure(opened.model, whole, three, costs="predicted"), lambda: measure(opened.model, whole, three), 3
    )
    print(f"with costs, as `srdd scan smollm2` {seconds:.1f} s, beside none {verdict(ratio, 2.5, at_most=True)}")


if __name__ == "__main__":
    main()
