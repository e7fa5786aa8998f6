"""What `srdd faults` finds: python benchmarks/faults.py [--model smollm2] [--places output,input,weight] [--seed 0].

Every kind of fault is planted in several sizes, one at a time, at layers and Linears that the seed draws; the healthy
model is searched first. It prints each trial, the confusion matrix and the smallest size found. Exits 1 when the
healthy model gives an alarm, or fewer than nine of ten faults at outputs are located.
"""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console

from srdd.exporters.terminal import self_test
from srdd.models.source import open_model
from srdd.runs.calibration import load_sequences
from srdd.runs.faults.self_test import self_tested


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--places", default="output", help="any of weight, input, output")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    opened = open_model(given.model)
    sequences = load_sequences(
        None, opened.tokenizer, text_column=None, samples=given.samples, seq_len=given.seq_len, seed=given.seed
    )
    started = time.monotonic()
    trials = self_tested(opened.model, sequences, places=given.places.split(","), seed=given.seed)
    for t in trials:
        where = f"{t.planted} {t.size:g} at {t.at} of {t.layer} {t.module}"
        size = "" if t.found_size is None else f" {t.found_size:.4g}"
        print(f"{where:60} found {t.found or 'nothing'}{size} at {t.found_at} of {t.found_layer} {t.found_module}")
    self_test.show(Console(width=140), trials)
    located = sum(t.is_located for t in trials[1:])
    seconds = time.monotonic() - started
    print(f"{located} of {len(trials) - 1} located, healthy: {trials[0].found or 'no alarm'}, {seconds:.0f} s")
    sys.exit(bool(trials[0].found) or (given.places == "output" and located < 0.9 * (len(trials) - 1)))


if __name__ == "__main__":
    main()
