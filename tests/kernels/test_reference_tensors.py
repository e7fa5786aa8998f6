"""Whole tensors against the oracle: values, tallies, NaN and infinity, shapes."""

import itertools
import math

import numpy as np
import pytest
import torch
from kernel_oracle import (
    DETERMINISTIC,
    F32,
    FAR,
    NEAR,
    SPECS,
    assert_same_bits,
    nearest,
    oracle,
    oracle_exponent,
    oracle_tally,
    qd,
    tally,
    wild,
)

from srdd.core.formats import parse
from srdd.core.tally import FIELDS, Tally
from srdd.kernels.reference import measure, quant_dequant

# --- whole tensors against the oracle ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row_exponents", "enough"), [pytest.param(NEAR, 300, id="near"), pytest.param(FAR, 100, id="far")]
)
@pytest.mark.parametrize("spec", DETERMINISTIC)
def test_whole_tensors_match_the_oracle_bit_for_bit(spec, row_exponents, enough):
    x = wild(11, (2, 45, 75), row_exponents)  # ragged for every block: 75 = 2 * 32 + 11, 45 = 32 + 13
    expected, _, _ = oracle(x, spec)
    assert np.count_nonzero(expected) > enough
    assert_same_bits(qd(x, spec), expected)


@pytest.mark.parametrize("spec", DETERMINISTIC)
def test_tally_matches_brute_force(spec):
    x = wild(12, (45, 75))
    x[3, 40], x[9, 70], x[9, 71] = np.nan, np.inf, -np.inf
    counted = tally(x, spec)
    q, _, limit = oracle(x, spec)
    expected = oracle_tally(x, q, limit, rounded_down=spec.startswith("fp8"))
    for name in FIELDS:
        if name.startswith("sum_"):
            # sums of signed terms may cancel: they are as exact as the sum of the terms' sizes
            size = expected[{"sum_x": "sum_abs_x", "sum_e": "sum_abs_e"}.get(name, name)]
            assert getattr(counted, name) == pytest.approx(expected[name], rel=0, abs=1e-12 * size), name
        else:
            assert getattr(counted, name) == expected[name], name
    assert counted.nonfinite == 3
    assert counted.excluded > 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_any_float_dtype_is_computed_in_float32_and_returned_as_given(dtype):
    x = torch.randn(7, 70, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    got = quant_dequant(x, "mxfp4:even")
    assert got.dtype == dtype
    expected, _, _ = oracle(x.to(torch.float32).numpy(), "mxfp4:even")
    assert torch.equal(got, torch.from_numpy(expected).to(torch.float32).to(dtype))
    assert torch.equal(measure(x, "mxfp4:even"), measure(x.to(torch.float32), "mxfp4:even"))
    assert measure(x, "mxfp4:even").dtype == torch.float64


# --- zeros, NaN, infinity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS)
def test_a_block_of_zeros_gives_zeros_with_their_signs(spec):
    x = np.zeros((32, 32), dtype=F32)
    x[:, 1::2] = -0.0
    assert_same_bits(qd(x, spec), x)
    assert tally(x, spec) == Tally(n=1024)


@pytest.mark.parametrize("spec", SPECS)
def test_signs_survive_rounding_to_zero(spec):
    x = np.full((32, 32), -(2.0**-40), dtype=F32)
    x[0, 0], x[0, 16] = 1.0, -0.0
    got = qd(x, spec, generator=torch.Generator().manual_seed(0))
    assert np.signbit(got).sum() == 1023
    assert got[0, 5] == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=["nan", "inf", "-inf"])
@pytest.mark.parametrize("spec", SPECS)
def test_a_nonfinite_value_spoils_its_block_alone(spec, bad):
    rows, columns = parse(spec).block
    x = wild(5, (2 * rows, 3 * columns)) * F32(2.0**-20)
    clean = x.copy()
    x[rows, columns + 3] = bad
    spoiled = np.zeros(x.shape, dtype=bool)
    spoiled[rows : 2 * rows, columns : 2 * columns] = True
    # gmax is over finite values; take the spoiled element out of the clean tensor for the two to share it
    clean[rows, columns + 3] = 0
    got = qd(x, spec, generator=torch.Generator().manual_seed(0))
    expected = qd(clean, spec, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(np.isnan(got), spoiled)
    assert_same_bits(got[~spoiled], expected[~spoiled])
    counted = tally(x, spec, generator=torch.Generator().manual_seed(0))
    assert (counted.nonfinite, counted.excluded, counted.n) == (1, rows * columns, 5 * rows * columns)
    assert counted.is_finite
    assert counted.sum_abs_x == pytest.approx(math.fsum(np.abs(x[~spoiled].astype(np.float64))), rel=1e-12)


def test_a_tensor_of_nothing_but_nan_has_an_empty_tally():
    x = np.full((2, 40), np.nan, dtype=F32)
    for spec in ("mxfp4", "nvfp4"):
        assert np.isnan(qd(x, spec)).all()
        assert tally(x, spec) == Tally(nonfinite=80, excluded=80)


# --- shapes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["mxfp4:floor", "nvfp4:nvidia"])
def test_a_short_last_block_stands_alone_and_never_crosses_rows(spec):
    size = parse(spec).block_size
    x = np.full((3, size + 3), 1.0, dtype=F32)
    x[:, size:] = [[100.0, 30.0, 0.3], [0.01, 0.003, -0.001], [7.0, 7.0, 7.0]]
    x[1, 0] = 50.0
    got = qd(x, spec, global_amax=100.0)
    for r in range(3):
        assert_same_bits(got[r, :size], qd(x[r, :size], spec, global_amax=100.0))
        assert_same_bits(got[r, size:], qd(x[r, size:], spec, global_amax=100.0))
    assert tally(x, spec).n == 3 * (size + 3)
    # flattened, blocks fall elsewhere
    assert not np.array_equal(qd(x.reshape(-1), spec, global_amax=100.0).reshape(x.shape), got)


def test_padding_enters_no_tally():
    x = [3.0, -3.0, 0.1]
    got = tally(x, "mxfp4:floor")
    assert (got.n, got.nonzero, got.deadzone) == (3, 3, 1)
    assert got == tally([[*x, *[0.0] * 29]], "mxfp4:floor") + Tally(n=-29)


@pytest.mark.parametrize("name", ["mxfp4_2d", "nvfp4_2d"])
def test_tiles_do_not_care_which_way_the_matrix_lies(name):
    x = np.clip(wild(21, (77, 45)), -1e30, 1e30).astype(F32)
    for rule in parse(name).rules:
        assert_same_bits(qd(x.T, f"{name}:{rule.value}").T, qd(x, f"{name}:{rule.value}"))
    # and rows of one format are not columns of it: the test above could fail
    assert not np.array_equal(qd(x.T, name.removesuffix("_2d")).T, qd(x, name.removesuffix("_2d")))


def test_a_tile_is_a_block_of_its_own():
    x = wild(22, (64, 64))
    got = qd(x, "mxfp4_2d:floor")
    for r, c in itertools.product((0, 32), (0, 32)):
        tile = x[r : r + 32, c : c + 32]
        scale = 2.0 ** oracle_exponent(float(np.abs(tile).max()), "E2M1", "floor")
        expected = np.copysign(nearest(np.abs(tile.astype(np.float64)) / scale, "E2M1") * scale, tile)
        assert_same_bits(got[r : r + 32, c : c + 32], expected)


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "mxfp4_2d"])
@pytest.mark.parametrize("shape", [(), (0,), (5, 0), (0, 5), (1,), (33,), (2, 3, 4, 37)], ids=str)
def test_every_shape_comes_back(name, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    got = quant_dequant(x, name)
    assert got.shape == x.shape
    assert Tally.from_vector(measure(x, name).tolist()).n == x.numel()
    if x.numel():
        expected, _, _ = oracle(x.reshape(1, -1).numpy() if x.dim() < 2 else x.numpy(), name)
        assert_same_bits(got.numpy(), expected.reshape(shape))


def test_a_strided_view_is_read_as_it_looks_and_left_alone():
    base = torch.randn(40, 90, generator=torch.Generator().manual_seed(4))
    before = base.clone()
    view = base.t()[::2, 3:]
    assert torch.equal(quant_dequant(view, "mxfp4"), quant_dequant(view.contiguous(), "mxfp4"))
    assert torch.equal(measure(view, "mxfp4"), measure(view.contiguous(), "mxfp4"))
    assert torch.equal(base, before)
