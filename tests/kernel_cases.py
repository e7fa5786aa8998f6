"""Tensors a kernel may get wrong, and what it means to agree with the reference on them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from srdd import kernels
from srdd.core.blocks import SQNR_BINS
from srdd.core.formats import FORMATS, BlockFormat
from srdd.core.tally import FIELDS

SPECS = [f"{row.name}:{rule.value}" for row in FORMATS.values() for rule in row.rules]
_SIGNED = {"sum_x": "sum_abs_x", "sum_e": "sum_abs_e"}
EXACT = {"n", "nonzero", "deadzone", "clipped", "at_max", "nonfinite", "excluded", "zero_scale"}


def _bf16_patterns() -> Tensor:
    return torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)


def _midpoints() -> Tensor:
    """Every value and midpoint of every element, one ulp either side, both signs, each block led by its maximum."""
    rows = []
    for row in FORMATS.values():
        values = torch.tensor(row.element.magnitudes)
        points = torch.cat([values, (values[1:] + values[:-1]) / 2])
        points = torch.cat([points, points.nextafter(torch.tensor(torch.inf)), points.nextafter(torch.tensor(0.0))])
        points = torch.cat([points, -points])
        points = torch.nn.functional.pad(points, (0, -points.numel() % 15)).view(-1, 15)
        lead = torch.full((points.shape[0], 1), row.element.max)
        rows.append(torch.cat([lead, points], dim=1))
    sheet = torch.cat(rows).reshape(-1)
    sheet = torch.nn.functional.pad(sheet, (0, -sheet.numel() % 32)).view(-1, 32)
    return torch.cat([sheet * 2.0**power for power in (0, -7, 60, -100)])


def _cases() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    patterns = _bf16_patterns().float()
    finite = patterns[patterns.isfinite()]
    holes = normal(40, 96)
    holes[3, 5], holes[7, 40], holes[7, 41], holes[39, 95] = torch.nan, torch.inf, -torch.inf, torch.nan
    ragged_holes = normal(5, 37)
    ragged_holes[1, 36], ragged_holes[4, 2] = torch.inf, torch.nan
    zeros = torch.zeros(4, 64)
    zeros[1] = -0.0
    zeros[2, ::3] = -0.0
    zeros[2, 1] = 1.0
    return {
        "normal": normal(70, 96),
        "bf16_patterns": patterns,
        "bf16_finite_shuffled": finite[torch.randperm(finite.numel(), generator=g)],
        "midpoints": _midpoints(),
        "powers_of_two": torch.exp2(torch.arange(-140, 121).float()).repeat_interleave(32).view(261, 32),
        "subnormals": normal(64, 64) * 1e-39,
        "near_the_top": normal(64, 64).clamp(-3, 3) * 1e38,
        "amax_sweep": (1 + torch.arange(4096) / 4096.0)[:, None] * torch.linspace(-1, 1, 32),
        "constant": torch.full((64, 64), 1.9),  # every sum in a row rounds the same way
        "zeros": zeros,
        "ragged": normal(3, 37, 45),
        "ragged_bad": ragged_holes,
        "bad_blocks": holes,
        "non_contiguous": normal(96, 80).t()[::2],
        "empty": torch.zeros(0, 5),
        "scalar": torch.tensor(1.3),
        "one_block": normal(32),
    }


CASES = _cases()


def check_values(x: Tensor, spec: str | BlockFormat, backend: str) -> None:
    want = kernels.quant_dequant(x, spec, generator=torch.Generator().manual_seed(3), backend="reference")
    got = kernels.quant_dequant(x, spec, generator=torch.Generator().manual_seed(3), backend=backend)
    check_equal(x, want, got, f"{spec} {backend}")


def check_equal(x: Tensor, want: Tensor, got: Tensor, context: str) -> None:
    """`got` has the bits of `want`; any NaN is as good as another."""
    assert got.shape == x.shape
    assert got.dtype == x.dtype
    want32, got32 = want.float().contiguous(), got.float().contiguous()
    same = (want32.view(torch.int32) == got32.view(torch.int32)) | (want32.isnan() & got32.isnan())
    if not same.all():
        i = int((~same.flatten()).nonzero()[0, 0])
        values = [t.flatten()[i].item() for t in (x, want32, got32)]
        pytest.fail(f"{context}: {int((~same).sum())} differ, first at {i}: x, reference, got = {values}")


def check_tally(want: Tensor, got: Tensor, context: str) -> None:
    check_sums(want, got, context)
    check_blocks(want[len(FIELDS) :], got[len(FIELDS) :], context)


def check_sums(want: Tensor, got: Tensor, context: str) -> None:
    named = dict(zip(FIELDS, want[: len(FIELDS)].tolist(), strict=True))
    for name, value in zip(FIELDS, got[: len(FIELDS)].tolist(), strict=True):
        # A group of 1024 elements keeps squares down to 2^-126 of its largest: what is lost is lost to sum_x2's scale.
        power = {"sum_x4": named["sum_x4"]}.get(name, named["sum_x2"]) if "2" in name or name == "sum_xq" else 0.0
        slack = 0.0 if name in EXACT else 1e-6 * abs(named[_SIGNED.get(name, name)]) + 2.0**-90 * power
        assert abs(value - named[name]) <= slack, f"{context} {name}: reference {named[name]!r}, got {value!r}"


def check_blocks(want: Tensor, got: Tensor, context: str) -> None:
    """Scales are counted exactly. A block at the edge of two bins of SQNR may stand in the other: float32 sums."""
    want, got = want.cpu(), got.cpu()
    assert torch.equal(want[SQNR_BINS:-2], got[SQNR_BINS:-2]), f"{context}: scales"
    moved = int((want - got)[:SQNR_BINS].cumsum(0).abs().max())
    assert moved <= 1, f"{context}: {moved} blocks in other bins of SQNR"
    assert int(want[:SQNR_BINS].sum()) == int(got[:SQNR_BINS].sum()), f"{context}: blocks"
    assert abs(float(want[-2] - got[-2])) <= 1e-6 * float(want[-2]), f"{context}: the worst block's noise"
