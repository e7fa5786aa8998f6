"""By how much costs move when nothing does but the place of values between two powers of two.

python benchmarks/cost_scatter.py [formats]; SmolLM2, 16 sequences of 64 tokens.

The residual stream is multiplied by 1.05 to 1.6, which changes no output of the model (benchmarks/gate.py). The columns
are root mean squares of the logarithm of costs over those of the unscaled model: of the predicted KL of layers and of
Linears, all together, and of the measured KL of the whole model. srdd.core.position has them as constants.
"""

from __future__ import annotations

import math
import sys
from statistics import fmean

from gate import scaled, tokens

import srdd
from srdd.documents.report import Report
from srdd.models.source import open_model

FACTORS = (1.05, 1.2, 1.4, 1.6)
Key = tuple[str, str, object]


def costs_of(report: Report) -> dict[str, dict[Key, float]]:
    costs = report.costs
    assert costs is not None
    layers = {(r.format, r.mode, r.layer): r.predicted_kl.value for r in costs.layers if r.predicted_kl is not None}
    linears = {(r.format, m, r.module): kl.value for r in costs.linears for m, kl in r.predicted_kl.items()}
    whole = {(r.format, r.mode, None): r.kl.value for r in costs.whole}
    return {"layers": dict(layers), "Linears": dict(linears), "whole": dict(whole)}


def main() -> None:
    formats = sys.argv[1] if len(sys.argv) > 1 else "mxfp4,nvfp4"
    opened = open_model("smollm2")
    model, ids = opened.model.float(), tokens(opened.tokenizer, 16)
    found = []
    for factor in (1.0, *FACTORS):
        with scaled(model, factor):
            report = srdd.scan(model, ids, formats.split(","), sites="weight", costs="predicted", backend="fused")
        found.append(costs_of(report))
    print(f"{'format':16} {'mode':8} {'layers':>8} {'Linears':>8} {'whole':>8}")
    base = found[0]
    for spec, mode in dict.fromkeys((key[0], key[1]) for key in base["layers"]):
        cells = []
        for part in ("layers", "Linears", "whole"):
            keys = [k for k in base[part] if k[:2] == (spec, mode) and base[part][k] > 0]
            moves = [
                math.log(other[part][k] / base[part][k]) for other in found[1:] for k in keys if other[part][k] > 0
            ]
            cells.append(f"{math.sqrt(fmean(move**2 for move in moves)):8.3f}" if moves else f"{'-':>8}")
        print(f"{spec:16} {mode:8} {' '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
