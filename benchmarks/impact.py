"""Impact runs of SmolLM2 against the plain forward pass on the same tokens: python benchmarks/impact.py [sequences].

Every ratio is the median of three, each beside a forward pass of its own.
"""

import sys
from collections.abc import Callable

import torch
from timing import median_ratio, verdict

from srdd.core.formats import parse
from srdd.models.fake import fake_quantize
from srdd.models.quantizer import Quantizer
from srdd.models.sites import find_sites
from srdd.models.source import open_model
from srdd.models.stack import LayerStack
from srdd.runs.calibration import load_sequences
from srdd.runs.impact.fisher import Fisher
from srdd.runs.impact.sweep import Sweep, Variant

LENGTH = 512


def main() -> None:
    opened = open_model("smollm2")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    ids = load_sequences(None, opened.tokenizer, samples=count, seq_len=LENGTH).token_ids
    stack, quantizer = LayerStack(opened.model), Quantizer(parse("mxfp4"), "fused", kept={})
    variant = Variant(quantizer, "both")
    names = [s.module for s in find_sites(opened.model, ("input",)).sites if s.layer is not None]

    def beside_forward(run: Callable[[torch.Tensor], None]) -> float:
        return median_ratio(lambda: [run(b) for b in ids.split(1)], lambda: [plain(b) for b in ids.split(1)], 3)[1]

    def plain(batch: torch.Tensor) -> None:
        with torch.no_grad():
            opened.model(batch, use_cache=False)

    handle = fake_quantize(opened.model, quantizer)

    def quantized(batch: torch.Tensor) -> None:
        with handle:
            plain(batch)

    def sweep(swap: bool) -> Callable[[torch.Tensor], None]:
        made = Sweep(stack, [variant], swap=swap)

        def run(batch: torch.Tensor) -> None:
            with torch.no_grad():
                made.run(batch)

        return run

    fisher = Fisher(stack, names, [quantizer])
    with torch.no_grad():
        swept = Sweep(stack, [variant], keep_changes=True).run(ids[:1])  # an impact run sweeps first

    def gradient(batch: torch.Tensor) -> None:
        fisher.run(batch, swept.changes)

    plain(ids[:1]), quantized(ids[:1])  # compile and fill caches
    print(f"SmolLM2, {count} sequence(s) of {LENGTH}, mxfp4 W+A, {torch.get_num_threads()} threads")
    ratios = {}
    for name, run, target in (
        ("whole model quantized", quantized, 1.3),
        ("isolated and cumulative", sweep(False), 4.0),
        ("gradient attribution", gradient, 4.0),
    ):
        ratios[name] = beside_forward(run)
        print(f"{name:<24} {verdict(ratios[name], target, at_most=True)}")
    # One pass gives both; norm and head run once for every layer, which alone is a fifth of L forwards here.
    both = beside_forward(sweep(True))
    swap = both - ratios["isolated and cumulative"]
    print(f"{'the same with swaps':<24} {both:.2f}")
    print(
        f"{'swap of every layer':<24} {verdict(swap, len(stack) / 2 + 2, at_most=True)}, beyond isolated and cumulative"
    )


if __name__ == "__main__":
    main()
