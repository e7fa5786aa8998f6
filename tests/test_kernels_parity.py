"""eager and fused against the reference: values and counts bit for bit, sums to 1e-6."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from srdd import kernels
from srdd.formats import FORMATS, BlockFormat, parse
from srdd.kernels.fused import Engine
from srdd.tally import FIELDS

SPECS = [f"{row.name}:{rule.value}" for row in FORMATS.values() for rule in row.rules]
FUSED_SPECS = ("mxfp4", "mxfp8", "nvfp4")
_SIGNED = {"sum_x": "sum_abs_x", "sum_e": "sum_abs_e"}
_EXACT = {"n", "nonzero", "deadzone", "clipped", "at_max", "nonfinite", "excluded", "zero_scale"}


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


def _check_values(x: Tensor, spec: str, backend: str) -> None:
    want = kernels.quant_dequant(x, spec, generator=torch.Generator().manual_seed(3), backend="reference")
    got = kernels.quant_dequant(x, spec, generator=torch.Generator().manual_seed(3), backend=backend)
    assert got.shape == x.shape
    assert got.dtype == x.dtype
    want32, got32 = want.float().contiguous(), got.float().contiguous()
    same = (want32.view(torch.int32) == got32.view(torch.int32)) | (want32.isnan() & got32.isnan())
    if not same.all():
        i = int((~same.flatten()).nonzero()[0, 0])
        values = [t.flatten()[i].item() for t in (x, want32, got32)]
        pytest.fail(f"{spec}: {int((~same).sum())} differ, first at {i}: x, reference, {backend} = {values}")


def _check_tally(want: Tensor, got: Tensor, context: str) -> None:
    named = dict(zip(FIELDS, want.tolist(), strict=True))
    for name, value in zip(FIELDS, got.tolist(), strict=True):
        # A group of 1024 elements keeps squares down to 2^-126 of its largest: what is lost is lost to sum_x2's scale.
        power = {"sum_x4": named["sum_x4"]}.get(name, named["sum_x2"]) if "2" in name or name == "sum_xq" else 0.0
        slack = 0.0 if name in _EXACT else 1e-6 * abs(named[_SIGNED.get(name, name)]) + 2.0**-90 * power
        assert abs(value - named[name]) <= slack, f"{context} {name}: reference {named[name]!r}, got {value!r}"


@pytest.mark.parametrize("case", CASES)
def test_eager_values_equal_the_reference_bit_for_bit(case: str) -> None:
    for spec in SPECS:
        _check_values(CASES[case], spec, "eager")


@pytest.mark.parametrize("case", CASES)
def test_eager_tallies_equal_the_reference(case: str) -> None:
    x = CASES[case]
    for spec in SPECS:
        want = kernels.measure(x, spec, generator=torch.Generator().manual_seed(3), backend="reference")
        got = kernels.measure(x, spec, generator=torch.Generator().manual_seed(3), backend="eager")
        _check_tally(want, got, spec)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4", "mxfp4_2d"])
def test_eager_takes_every_float_type(dtype: torch.dtype, spec: str) -> None:
    x = CASES["normal"].to(dtype)
    _check_values(x, spec, "eager")
    _check_tally(kernels.measure(x, spec, backend="reference"), kernels.measure(x, spec, backend="eager"), spec)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(5)
    for x in (torch.randn(130, 96, generator=g), torch.randn(2, 70, 45, generator=g)):
        whole = {spec: kernels.measure(x, spec, generator=g.manual_seed(3), backend="eager") for spec in FORMATS}
        with monkeypatch.context() as patch:
            patch.setattr("srdd.kernels.fused.Engine.chunk", lambda self, device: 2048)
            for spec, want in whole.items():
                _check_tally(want, kernels.measure(x, spec, generator=g.manual_seed(3), backend="eager"), spec)
                _check_values(x, spec, "eager")


def test_many_formats_equal_one_by_one() -> None:
    x = CASES["bad_blocks"]
    many = kernels.measure_many(x, FUSED_SPECS, backend="eager")
    for spec, row in zip(FUSED_SPECS, many, strict=True):
        _check_tally(kernels.measure(x, spec, backend="reference"), row, spec)


def test_blocks_of_16_and_32_share_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN spoils 16 elements of nvfp4 and 32 of mxfp4; where rows are no multiple of 32, each reads for itself."""
    fmts, readings = ["nvfp4", "mxfp4", "mxfp8", "nvfp4:min_normal", "mxfp4_2d"], []
    call = Engine.call

    def counted(self: Engine, name: str, chosen: tuple[BlockFormat, ...], *args: Any) -> Any:
        readings.extend([[fmt.name for fmt in chosen]] if name == "tallies" else [])
        return call(self, name, chosen, *args)

    monkeypatch.setattr(Engine, "call", counted)
    x = torch.randn(64, 96, generator=torch.Generator().manual_seed(5))
    x[3, 20], x[9, 0] = torch.nan, torch.inf
    for columns, sets in (
        (96, [["nvfp4", "mxfp4", "mxfp8_e4m3", "nvfp4"], ["mxfp4_2d"]]),
        (80, [["nvfp4", "nvfp4"], ["mxfp4", "mxfp8_e4m3"], ["mxfp4_2d"]]),
    ):
        readings.clear()
        got = kernels.measure_many(x[:, :columns], fmts, backend="eager")
        assert readings == sets
        for spec, row in zip(fmts, got, strict=True):
            _check_tally(kernels.measure(x[:, :columns], spec, backend="reference"), row, spec)


def test_a_given_global_amax_counts() -> None:
    x = CASES["normal"]
    for amax in (7.5, torch.tensor(100.0), 0.0):
        want = kernels.measure(x, "nvfp4", global_amax=amax, backend="reference")
        _check_tally(want, kernels.measure(x, "nvfp4", global_amax=amax, backend="eager"), f"amax {amax}")


def test_stochastic_rounding_has_the_mean_of_its_input() -> None:
    x = torch.full((1 << 17,), 0.7)
    x[::32] = 6.0
    q = kernels.quant_dequant(x, "mxfp4_sr", generator=torch.Generator().manual_seed(0), backend="eager")
    assert abs(float(q[x != 6].mean()) - 0.7) < 0.003  # q is 0.5 or 1: sd 0.245 / sqrt(127k) = 0.0007


def _needs_compiler() -> None:
    try:
        kernels.choose("fused")
    except kernels.BackendError as error:
        pytest.skip(str(error))


@pytest.mark.filterwarnings("default")  # torch's own compiler warns
@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4"])
def test_fused_values_equal_the_reference_bit_for_bit(spec: str) -> None:
    _needs_compiler()
    for x in CASES.values():
        _check_values(x, spec, "fused")


@pytest.mark.filterwarnings("default")
def test_fused_tallies_equal_the_reference() -> None:
    _needs_compiler()
    for case, x in CASES.items():
        got = kernels.measure_many(x, FUSED_SPECS, backend="fused")
        for spec, row in zip(FUSED_SPECS, got, strict=True):
            _check_tally(kernels.measure(x, parse(spec), backend="reference"), row, f"{case} {spec}")


@pytest.mark.filterwarnings("default")
def test_compiled_code_leaves_subnormals_alone() -> None:
    """A compiler's fast-math may switch the whole process to flush-to-zero."""
    _needs_compiler()
    kernels.quant_dequant(CASES["normal"], "mxfp4", backend="fused")
    tiny = torch.full((1 << 18,), 1e-40)
    assert bool(((tiny * 1.0) == tiny).all())


@pytest.mark.parametrize("backend", ["eager", "reference"])
@pytest.mark.parametrize("shape", [(4, 64, 64), (3, 50, 96), (2, 32, 70), (1, 128, 64), (5, 7), (2, 0, 4)], ids=str)
def test_a_batch_equals_its_tensors_one_by_one(shape: tuple[int, ...], backend: str) -> None:
    """Each tensor of a batch keeps its own nvfp4 scale and its own bad blocks; whole groups take the one-call path."""
    g = torch.Generator().manual_seed(5)
    x = torch.randn(shape, generator=g) * torch.logspace(-3, 3, shape[0]).view(-1, *[1] * (len(shape) - 1))
    if x.numel() > 100:
        x.view(-1)[3] = torch.nan
    fmts = ["mxfp4", "nvfp4", "mxfp8", "mxfp4:floor", "nvfp4:single_level", "nvfp4_2d"]
    got = kernels.measure_each(x, fmts, backend=backend)
    one_by_one = torch.stack([kernels.measure_many(part, fmts, backend=backend) for part in x])
    exact = [FIELDS.index(name) for name in sorted(_EXACT)]
    assert torch.equal(got[..., exact], one_by_one[..., exact])
    # the sums are those of the same groups, added in another order
    scale = one_by_one.abs() + one_by_one[..., [FIELDS.index("sum_abs_x")]]
    assert ((got - one_by_one).abs() <= 1e-6 * scale).all()
