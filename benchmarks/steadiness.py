"""Which error statistic stands still where nothing happened, and moves where something did.

python benchmarks/steadiness.py: SmolLM2's layer outputs on 16 sequences of 64 tokens, mxfp4. Steady: by how much each
metric moves when an output is multiplied by 1 to 1.9, which means nothing to power-of-two scales. Sharp: by how much it
moves under faults of that output, in multiples of that movement. Medians over layers, and layers 15, 20, 25 alone.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
from gate import COUNT, tokens
from torch import Tensor

from srdd import kernels
from srdd.core.metrics import BY_NAME
from srdd.core.tally import Tally
from srdd.models.source import open_model

NAMES = ("sqnr_db", "block_sqnr_db", "block_sqnr_p5_db", "block_sqnr_p1_db", "relative_error", "deadzone_ratio")
FACTORS = [1 + step / 10 for step in range(10)]
ALONE = (15, 20, 25)


def noisy(x: Tensor) -> Tensor:
    """Noise of a tenth of each value's own size: of a healthy output it changes little."""
    return x * (1 + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "deadzone at 0.3 rms of a token": lambda x: torch.where(x.abs() < 0.3 * x.std(-1, keepdim=True), 0.0, x),
    "heavy tails": lambda x: x * torch.exp(torch.randn(x.shape, generator=torch.Generator().manual_seed(1))),
    "saturation at 1.5 rms of a token": lambda x: x.clamp(
        -1.5 * x.std(-1, keepdim=True), 1.5 * x.std(-1, keepdim=True)
    ),
    "10 % noise": noisy,
}


def measured(x: Tensor) -> dict[str, float]:
    tally = Tally.from_vector(kernels.measure(x, "mxfp4", backend="eager").tolist())
    return {name: BY_NAME[name].of(tally) for name in NAMES}


def main() -> None:
    opened = open_model("smollm2")
    outputs: list[Tensor] = []
    for layer in opened.model.model.layers:
        layer.register_forward_hook(lambda m, args, out: outputs.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        opened.model.float()(tokens(opened.tokenizer, COUNT))
    swings: dict[str, list[float]] = {name: [] for name in NAMES}
    moved: dict[str, dict[str, list[float]]] = {fault: {name: [] for name in NAMES} for fault in FAULTS}
    for x in outputs:
        rows = [measured(x * factor) for factor in FACTORS]
        for name in NAMES:
            values = [row[name] for row in rows]
            swings[name].append(max(values) - min(values))
        for fault, plant in FAULTS.items():
            row = measured(plant(x))
            for name in NAMES:
                moved[fault][name].append(abs(row[name] - rows[0][name]))
    print(f"{'metric':18} {'swing':>8} " + " ".join(f"{f'layer {i}':>9}" for i in ALONE))
    for name in NAMES:
        text = BY_NAME[name].text
        print(f"{name:18} {text(median(swings[name])):>8} " + " ".join(f"{text(swings[name][i]):>9}" for i in ALONE))
    print(f"\n{'fault, in swings':34} " + " ".join(f"{name:>16}" for name in NAMES))
    for fault, of in moved.items():
        ratios = [median(a / b for a, b in zip(of[name], swings[name], strict=True)) for name in NAMES]
        print(f"{fault:34} " + " ".join(f"{ratio:16.1f}" for ratio in ratios))


if __name__ == "__main__":
    main()
