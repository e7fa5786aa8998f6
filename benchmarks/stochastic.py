"""How the mean over calls of stochastically rounded products goes to the exact one: python benchmarks/stochastic.py.

A Linear of 256 inputs and 64 outputs on 32 Gaussian rows. Printed is the error of the mean over n calls in units of one
call's, times sqrt(n): 1 where draws are independent and unbiased, sqrt(n) where they are frozen. The last column is the
bias that 800 calls leave, in units of one call's error.
"""

from __future__ import annotations

import torch
from torch import nn

from srdd.core.modes import MODES
from srdd.models.fake import fake_quantize

COUNTS, MOST = (4, 50, 200, 800), 800


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(256, 64, bias=False)), torch.randn(32, 256)
    exact = model(x).double()
    print(f"{'format':10} {'mode':7} " + "".join(f"{f'n={n}':>8}" for n in COUNTS) + f"{'bias':>8}")
    for spec in ("mxfp4_sr", "nvfp4_sr"):
        for mode in MODES:
            total, errors = torch.zeros_like(exact), []
            with fake_quantize(model, spec, mode):
                for n in range(1, MOST + 1):
                    total += model(x)
                    errors.append(float((total / n - exact).norm()))
            scaled = "".join(f"{errors[n - 1] / errors[0] * n**0.5:8.2f}" for n in COUNTS)
            left = max(0.0, (errors[-1] / errors[0]) ** 2 - 1 / MOST) ** 0.5
            print(f"{spec:10} {mode:7} {scaled}{left:8.3f}")


if __name__ == "__main__":
    main()
