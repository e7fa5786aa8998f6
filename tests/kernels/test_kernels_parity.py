"""eager and fused against the reference: values and counts bit for bit, sums to 1e-6."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_cases import CASES, EXACT, SPECS, check_blocks, check_equal, check_tally, check_values

from srdd import kernels
from srdd.core.formats import FORMATS, BlockFormat, parse
from srdd.core.tally import FIELDS
from srdd.kernels import expression, fused
from srdd.kernels.engine import Engine, Expression

FUSED_SPECS = ("mxfp4", "mxfp8", "nvfp4", "fp8_block")


@pytest.mark.parametrize("case", CASES)
def test_eager_values_equal_the_reference_bit_for_bit(case: str) -> None:
    for spec in SPECS:
        check_values(CASES[case], spec, "eager")


@pytest.mark.parametrize("case", CASES)
def test_eager_tallies_equal_the_reference(case: str) -> None:
    x = CASES[case]
    for spec in SPECS:
        want = kernels.measure(x, spec, generator=torch.Generator().manual_seed(3), backend="reference")
        got = kernels.measure(x, spec, generator=torch.Generator().manual_seed(3), backend="eager")
        check_tally(want, got, spec)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4", "mxfp4_2d"])
def test_eager_takes_every_float_type(dtype: torch.dtype, spec: str) -> None:
    x = CASES["normal"].to(dtype)
    check_values(x, spec, "eager")
    check_tally(kernels.measure(x, spec, backend="reference"), kernels.measure(x, spec, backend="eager"), spec)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(5)
    for x in (torch.randn(130, 96, generator=g), torch.randn(2, 70, 45, generator=g)):
        rows = {row: None for fmt in FORMATS.values() for row in (fmt, fmt.for_weights)}
        whole = {row: kernels.measure(x, row, generator=g.manual_seed(3), backend="eager") for row in rows}
        with monkeypatch.context() as patch:
            patch.setattr("srdd.kernels.engine.Engine.chunk", lambda self, device: 2048)
            for row, want in whole.items():
                check_tally(want, kernels.measure(x, row, generator=g.manual_seed(3), backend="eager"), row.spec)
                check_values(x, row, "eager")


@pytest.mark.parametrize("shape", [(300, 200), (2, 130, 160), (129, 257), (3, 2, 140, 33), (257, 1), (1, 300)], ids=str)
def test_tiles_wider_and_higher_than_a_group_equal_the_reference(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short tiles at both ends, tiles over several strips, bad blocks in the middle of a tile."""
    g = torch.Generator().manual_seed(6)
    x = torch.randn(shape, generator=g) * torch.exp(3 * torch.randn(shape, generator=g))
    x.view(-1)[57], x.view(-1)[-1] = torch.inf, torch.nan
    monkeypatch.setattr("srdd.kernels.engine.Engine.chunk", lambda self, device: 1 << 14)
    for fmt in (parse("fp8"), parse("fp8_channel"), parse("fp8_block"), parse("fp8_block").for_weights):
        check_equal(x, *(kernels.quant_dequant(x, fmt, backend=name) for name in ("reference", "eager")), fmt.spec)
        want, got = (kernels.measure(x, fmt, backend=name) for name in ("reference", "eager"))
        check_tally(want, got, fmt.spec)
        assert want[-1] == got[-1], "the number of the worst block"


def test_many_formats_equal_one_by_one() -> None:
    x = CASES["bad_blocks"]
    many = kernels.measure_many(x, FUSED_SPECS, backend="eager")
    for spec, row in zip(FUSED_SPECS, many, strict=True):
        check_tally(kernels.measure(x, spec, backend="reference"), row, spec)


def test_blocks_of_16_and_32_share_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN spoils 16 elements of nvfp4 and 32 of mxfp4; where rows are no multiple of 32, each reads for itself."""
    fmts, readings = ["nvfp4", "mxfp4", "mxfp8", "nvfp4:min_normal", "mxfp4_2d"], []
    call = Engine.call

    def counted(self: Engine, run: Expression, chosen: tuple[BlockFormat, ...], *args: Any) -> Any:
        readings.extend([[fmt.name for fmt in chosen]] if run is expression.tallies else [])
        return call(self, run, chosen, *args)

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
            check_tally(kernels.measure(x[:, :columns], spec, backend="reference"), row, spec)


def test_a_given_global_amax_counts() -> None:
    x = CASES["normal"]
    for amax in (7.5, torch.tensor(100.0), 0.5, 0.0):
        for spec in ("nvfp4", "fp8", "fp8_block"):
            want = kernels.measure(x, spec, global_amax=amax, backend="reference")
            check_tally(want, kernels.measure(x, spec, global_amax=amax, backend="eager"), f"{spec} amax {amax}")


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
@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4", "fp8_channel"])
def test_fused_values_equal_the_reference_bit_for_bit(spec: str) -> None:
    _needs_compiler()
    for x in CASES.values():
        check_values(x, spec, "fused")


@pytest.mark.filterwarnings("default")
def test_fused_tallies_equal_the_reference() -> None:
    _needs_compiler()
    for case, x in CASES.items():
        got = kernels.measure_many(x, FUSED_SPECS, backend="fused")
        for spec, row in zip(FUSED_SPECS, got, strict=True):
            check_tally(kernels.measure(x, parse(spec), backend="reference"), row, f"{case} {spec}")


@pytest.mark.filterwarnings("default")
def test_one_compilation_serves_every_shape() -> None:
    """Whole and ragged rows, batches and single tensors; Dynamo gives up at the eighth compilation of one function."""
    from torch._dynamo.utils import counters

    _needs_compiler()
    g = torch.Generator().manual_seed(5)

    def measure(size: int) -> None:
        for columns in (48, 64):
            kernels.measure_many(torch.randn(128 * size, columns, generator=g), ["mxfp4", "nvfp4"], backend="fused")
        kernels.measure_each(torch.randn(size, 64, 64, generator=g), ["mxfp4", "nvfp4"], backend="fused")

    measure(2)
    before = counters["stats"]["unique_graphs"]
    for size in range(3, 13):
        measure(size)
    assert counters["stats"]["unique_graphs"] == before


def test_weights_and_inputs_of_one_format_share_a_compilation() -> None:
    """Their tiles differ, which is outside the expression."""
    engine, fmt, x = Engine(compiled=False), parse("fp8_block"), torch.randn(130, 160)
    fused.measure(engine, x, [fmt], None, None)
    before = set(engine._bound)
    assert not torch.equal(*(fused.measure(engine, x, [row], None, None) for row in (fmt, fmt.for_weights)))
    assert set(engine._bound) == before


@pytest.mark.filterwarnings("default")
def test_compiled_code_leaves_subnormals_alone() -> None:
    """A compiler's fast-math may switch the whole process to flush-to-zero."""
    _needs_compiler()
    kernels.quant_dequant(CASES["normal"], "mxfp4", backend="fused")
    tiny = torch.full((1 << 18,), 1e-40)
    assert bool(((tiny * 1.0) == tiny).all())


@pytest.mark.parametrize("backend", ["eager", "reference"])
@pytest.mark.parametrize(
    "shape", [(4, 64, 64), (3, 16, 256), (3, 50, 96), (2, 32, 70), (1, 128, 64), (5, 7), (2, 0, 4)], ids=str
)
def test_a_batch_equals_its_tensors_one_by_one(shape: tuple[int, ...], backend: str) -> None:
    """Each tensor of a batch keeps its own nvfp4 scale and its own bad blocks; whole groups take the one-call path."""
    g = torch.Generator().manual_seed(5)
    x = torch.randn(shape, generator=g) * torch.logspace(-3, 3, shape[0]).view(-1, *[1] * (len(shape) - 1))
    if x.numel() > 100:
        x.view(-1)[3] = torch.nan
    nv_and_mx = ["mxfp4", "nvfp4", "mxfp8", "mxfp4:floor", "nvfp4:single_level", "nvfp4_2d"]
    fmts = [*nv_and_mx, "fp8", "fp8_channel", "fp8_block"]
    got = kernels.measure_each(x, fmts, backend=backend)
    one_by_one = torch.stack([kernels.measure_many(part, fmts, backend=backend) for part in x])
    exact = [FIELDS.index(name) for name in sorted(EXACT)]
    assert torch.equal(got[..., exact], one_by_one[..., exact])
    # the sums are those of the same groups, added in another order
    scale = one_by_one.abs() + one_by_one[..., [FIELDS.index("sum_abs_x")]]
    assert ((got - one_by_one).abs() <= 1e-6 * scale)[..., : len(FIELDS)].all()
    for tensor, alone in zip(got.flatten(0, 1), one_by_one.flatten(0, 1), strict=True):
        check_blocks(alone[len(FIELDS) :], tensor[len(FIELDS) :], backend)
        assert alone[-1] == tensor[-1]  # each is numbered for itself
