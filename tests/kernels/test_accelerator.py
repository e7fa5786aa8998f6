"""On a real GPU or MPS: values and counts of the reference bit for bit, computed there. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import CASES, SPECS, check_equal, check_tally

from srdd import kernels
from srdd.core.formats import parse

DEVICES = [
    *(["cuda"] if torch.cuda.is_available() else []),
    *(["mps"] if torch.backends.mps.is_available() else []),
]
DRAWLESS = [spec for spec in SPECS if not parse(spec).stochastic]  # every device draws its own random numbers


def _device() -> str:
    if not DEVICES:
        pytest.skip("no CUDA or MPS device here")
    return DEVICES[0]


@pytest.mark.parametrize("case", CASES)
def test_eager_values_and_tallies_equal_the_reference(case: str) -> None:
    x, device = CASES[case], _device()
    tallies = kernels.measure_many(x.to(device), DRAWLESS, backend="eager").cpu()
    for spec, row in zip(DRAWLESS, tallies, strict=True):
        got = kernels.quant_dequant(x.to(device), spec, backend="eager").cpu()
        check_equal(x, kernels.quant_dequant(x, spec, backend="reference"), got, f"{case} {spec} {device}")
        check_tally(kernels.measure(x, spec, backend="reference"), row, f"{case} {spec} {device}")


@pytest.mark.filterwarnings("default")  # torch's own compiler warns
@pytest.mark.parametrize("spec", ["mxfp4", "mxfp8", "nvfp4", "fp8_channel"])
def test_fused_values_and_tallies_equal_the_reference(spec: str) -> None:
    device = _device()
    try:
        kernels.choose("fused", device=device)
    except kernels.BackendError as error:
        pytest.skip(str(error))
    for case, x in CASES.items():
        got = kernels.quant_dequant(x.to(device), spec, backend="fused").cpu()
        check_equal(x, kernels.quant_dequant(x, spec, backend="reference"), got, f"{case} {spec} {device}")
        row = kernels.measure(x.to(device), spec, backend="fused").cpu()
        check_tally(kernels.measure(x, spec, backend="reference"), row, f"{case} {spec} {device}")
