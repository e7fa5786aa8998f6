"""Write srdd/core/gaussian.json: every format and rule measured on standard normal data by the reference kernel."""

import json
import math
from pathlib import Path

import torch

from srdd.core.formats import FORMATS, parse
from srdd.core.metrics import values
from srdd.core.tally import Tally
from srdd.kernels import reference

ROWS, COLUMNS, PARTS = 1024, 1024, 8  # 2^23 values; SQNR is good to about 0.005 dB


def main() -> None:
    table = {}
    specs = [f"{row.name}:{rule.value}" for row in FORMATS.values() for rule in row.rules]
    for spec in specs:
        tally = Tally()
        for part in range(PARTS):
            generator = torch.Generator().manual_seed(part)
            x = torch.randn(ROWS, COLUMNS, generator=generator)
            tally += Tally.from_vector(reference.measure(x, parse(spec).for_weights, generator=generator).tolist())
        table[spec] = {k: float(f"{v:.6g}") for k, v in values(tally).items() if math.isfinite(v)}
        print(spec, table[spec]["sqnr_db"])
    rows = ",\n".join(f" {json.dumps(spec)}: {json.dumps(table[spec], sort_keys=True)}" for spec in table)
    target = Path(__file__).parent.parent / "srdd/core/gaussian.json"
    target.write_text("{\n" + rows + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
