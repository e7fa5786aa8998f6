"""FP8 with float32 scales: worked by hand, against casts of ml_dtypes and torch, and at the ends of float32."""

import ml_dtypes
import numpy as np
import pytest
import torch
from kernel_oracle import F32, TABLE, assert_same_bits, qd, tally, wild

from srdd.core.formats import ALL, FORMATS, parse
from srdd.core.tally import Tally

NAMES = ["fp8", "fp8_channel", "fp8_block"]
VARIANTS = [
    pytest.param(fmt, id=f"{n} {fmt.tile}")
    for n in NAMES
    for fmt in dict.fromkeys((FORMATS[n], FORMATS[n].for_weights))
]
FLT_MAX = float(np.finfo(F32).max)


def cast_by_ml_dtypes(y):
    return y.astype(ml_dtypes.float8_e4m3fn).astype(F32)


def cast_by_torch(y):
    return torch.from_numpy(y).to(torch.float8_e4m3fn).float().numpy()


def as_deployed(x, tile, cast):
    """Max of a tile by slices, its 448th part, a division, a clamp and somebody else's cast; x finite, two axes."""
    rows, columns = (int(min(side, n)) for side, n in zip(tile, x.shape, strict=True))
    q = np.empty_like(x)
    for r in range(0, x.shape[0], rows):
        for c in range(0, x.shape[1], columns):
            part = x[r : r + rows, c : c + columns]
            scale = np.abs(part).max() / F32(448)
            y = np.clip(part / scale, F32(-448), F32(448)) if scale > 0 else part * F32(0)
            q[r : r + rows, c : c + columns] = cast(y) * scale
    return q


# --- by hand ----------------------------------------------------------------------------------------------------


def test_fp8_by_hand():
    # s = 2 / 448 = 1 / 224: 2 is 448, .3 is 67.2 (codes 64, 72), .7 is 156.8 (codes 144, 160), 1e-5 is .00224, 1.15
    # of the smallest code 2^-9, and 4e-6 is less than half of it
    s = F32(2) / F32(448)
    x = [[2.0, 0.3, -0.7, 1e-5, -4e-6, -0.0]]
    assert_same_bits(qd(x, "fp8"), [[448 * s, 64 * s, -160 * s, F32(2.0**-9) * s, -0.0, -0.0]])
    counted = tally(x, "fp8")
    assert (counted.n, counted.nonzero, counted.deadzone, counted.clipped, counted.at_max) == (6, 5, 1, 0, 1)


def test_ties_go_to_the_even_code():
    # amax 448 makes the scale 1, so the midpoints of the codes are ties
    values = TABLE["E4M3"].astype(F32)
    middle = (values[1:] + values[:-1]) / 2
    even = np.where(np.arange(126) % 2 == 0, values[:-1], values[1:])
    for name in NAMES:
        x = np.stack([np.full(126, 448, dtype=F32), middle], axis=1)
        assert_same_bits(qd(x, name)[:, 1], even)
        assert_same_bits(qd(-x, name)[:, 1], -even)


def test_who_shares_a_scale():
    # one large number at [1, 1] of [200, 300]; a small one is 0 exactly where it shares the scale
    small, large = F32(1e-4), F32(1e3)
    x = np.full((200, 300), small, dtype=F32)
    x[1, 1] = large
    reaches = {
        "fp8": (slice(None), slice(None)),
        "fp8_channel": (1, slice(None)),
        "fp8_block": (1, slice(0, 128)),
        "weight": (slice(0, 128), slice(0, 128)),
    }
    for name, place in reaches.items():
        expected = np.full(x.shape, 448 * (small / F32(448)), dtype=F32)
        expected[place] = 0
        expected[1, 1] = 448 * (large / F32(448))
        fmt = parse("fp8_block").for_weights if name == "weight" else parse(name)
        assert_same_bits(qd(x, fmt), expected)


def test_a_tensor_of_any_shape_has_one_scale_under_fp8_and_one_a_row_under_fp8_channel():
    x = wild(31, (2, 3, 5, 40), (0, 5))
    assert_same_bits(qd(x, "fp8"), qd(x.reshape(1, -1), "fp8").reshape(x.shape))
    assert_same_bits(qd(x, "fp8_channel"), qd(x.reshape(-1, 40), "fp8_channel").reshape(x.shape))
    assert_same_bits(qd(x[0, 0, 0], "fp8_channel"), qd(x, "fp8_channel")[0, 0, 0])


# --- against others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cast", [cast_by_ml_dtypes, cast_by_torch])
@pytest.mark.parametrize("fmt", VARIANTS)
def test_equals_the_casts_of_others_bit_for_bit(fmt, cast):
    x = wild(32, (150, 200))  # ragged for tiles of 128; rows from 2^-146 to 2^118
    assert_same_bits(qd(x, fmt), as_deployed(x, fmt.tile, cast))


@pytest.mark.parametrize("cast", [cast_by_ml_dtypes, cast_by_torch])
@pytest.mark.parametrize("fmt", VARIANTS)
def test_every_bfloat16_equals_the_casts_of_others(fmt, cast):
    patterns = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).float()
    x = patterns[patterns.isfinite()].view(-1, 256).numpy()  # rows of two binades, from subnormals to 2^127
    assert_same_bits(qd(x, fmt), as_deployed(x, fmt.tile, cast))


def test_amax_is_divided_by_448_and_x_by_the_scale():
    """A product with a rounded reciprocal, as some stacks compute, gives other numbers somewhere."""
    amax = (1 + np.arange(4096, dtype=F32) / F32(4096))[:, None]
    x = np.concatenate([amax, amax * (F32(68) / F32(448)), amax / 3], axis=1)  # 68 is a midpoint
    scale = amax / F32(448)
    assert_same_bits(qd(x, "fp8_channel"), cast_by_ml_dtypes(np.minimum(x / scale, F32(448))) * scale)
    for other in (x * (F32(448) / amax), x * (1 / scale), x / (amax * (1 / F32(448)))):
        assert (cast_by_ml_dtypes(np.minimum(other, F32(448))) != cast_by_ml_dtypes(np.minimum(x / scale, 448))).any()


# --- the ends of float32 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_amax_is_never_clipped_where_scales_are_normal(name):
    """448 * (amax / 448) may lie an ulp below amax; that is rounding."""
    amax = np.concatenate([(1 + np.arange(1 << 14) / (1 << 14)) * 2.0**e for e in (-117, 0, 100)]).astype(F32)
    x = np.concatenate([amax[:, None], -amax[:, None]], axis=1)
    if name == "fp8":
        found = sum((tally([row], name) for row in x[:: len(x) // 512]), Tally())
    else:
        found = tally(x, name)
        assert np.any(448 * (amax / F32(448)) < amax)
    assert (found.clipped, found.at_max) == (0, found.n)


def test_a_subnormal_scale_clips_and_one_of_zero_zeroes():
    tiny = F32(2.0**-149)
    # 627 / 448 = 1.4 rounds to one smallest number: all above 448 of them is clipped
    x = np.array([[627, 400, -300, 0]], dtype=F32) * tiny
    for name in NAMES:
        assert_same_bits(qd(x, name), np.array([[448, 384, -288, 0]], dtype=F32) * tiny)  # 400: a tie of 384 and 416
        assert (tally(x, name).clipped, tally(x, name).zero_scale) == (1, 0)
    # 224 / 448 is a tie and goes to zero; 225 / 448 to the smallest number
    for name in NAMES:
        lost = np.array([[224, -3.0]], dtype=F32) * tiny
        assert_same_bits(qd(lost, name), [[0.0, -0.0]])
        assert (tally(lost, name).zero_scale, tally(lost, name).deadzone, tally(lost, name).clipped) == (2, 2, 0)
        assert tally(lost, name).blocks.zeroed == 1
        assert_same_bits(qd([[225 * tiny]], name), [[224 * tiny]])  # codes 224 and 240


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_numbers_stay_finite(name):
    top = np.array([[F32(FLT_MAX), np.nextafter(F32(FLT_MAX), F32(0)), -F32(FLT_MAX) / 2]], dtype=F32)
    assert np.isfinite(qd(top, name)).all()
    assert qd(top, name)[0, 0] == F32(FLT_MAX)


@pytest.mark.parametrize("fmt", VARIANTS)
def test_a_nan_spoils_a_run_of_32_and_leaves_the_scale_alone(fmt):
    x = wild(33, (130, 200), (0,))
    x[5, 70], x[129, 199] = np.nan, -np.inf
    got = qd(x, fmt)
    spoiled = np.zeros(x.shape, dtype=bool)
    spoiled[5, 64:96], spoiled[129, 192:] = True, True
    clean = np.where(np.isfinite(x), x, 0)
    assert np.array_equal(np.isnan(got), spoiled)
    assert_same_bits(got[~spoiled], qd(clean, fmt)[~spoiled])
    assert (tally(x, fmt).excluded, tally(x, fmt).nonfinite) == (40, 2)


# --- a scale that is given, and blocks --------------------------------------------------------------------------


def test_a_given_amax_is_a_static_scale_of_fp8_alone():
    x = np.array([[5.0, 1.0, -0.3]], dtype=F32)
    assert_same_bits(qd(x, "fp8", global_amax=5.0), qd(x, "fp8"))
    s = F32(2) / F32(448)
    assert_same_bits(qd(x, "fp8", global_amax=2.0), [[448 * s, 224 * s, -F32(64) * s]])
    clipped = tally(x, "fp8", global_amax=2.0)
    assert (clipped.clipped, clipped.at_max) == (1, 1)
    assert clipped.sum_e2_clipped == pytest.approx(9, rel=1e-6)
    assert_same_bits(qd(x, "fp8", global_amax=0.0), [[0.0, 0.0, -0.0]])
    for name in ("fp8_channel", "fp8_block"):
        assert_same_bits(qd(x, name, global_amax=2.0), qd(x, name))


@pytest.mark.parametrize("fmt", VARIANTS)
def test_blocks_are_the_runs_of_mxfp8(fmt):
    x = wild(34, (130, 200), (0,))
    blocks, of_mx = tally(x, fmt).blocks, tally(x, "mxfp8").blocks
    assert blocks.count == of_mx.count == 130 * 7
    scales = sum(blocks.scales[1:])
    assert scales == 130 * 7
    if fmt.tile == (ALL, ALL):
        assert len(blocks.scales) == 2, "one scale, in one bin"


def test_a_run_far_below_its_tensor_is_seen_in_blocks_and_not_in_sums():
    x = np.ones((4, 64), dtype=F32) * np.linspace(0.5, 1, 64, dtype=F32)
    x[:, 32:] *= F32(3e-6)  # around half of the smallest code
    whole, alone = tally(x, "fp8"), tally(x, "mxfp8")
    assert whole.sum_e2 == pytest.approx(alone.sum_e2, rel=0.5)
    assert whole.blocks.sqnr_db(0.25) < 13 < 25 < alone.blocks.sqnr_db(0.25)


@pytest.mark.parametrize("fmt", VARIANTS)
def test_what_is_stored_in_fp8_comes_back_to_the_last_bit_of_its_scale(fmt):
    """448 * s / 448 may miss s by an ulp, and no code moves: a checkpoint measured in its own format has no error."""
    x = wild(35, (150, 200), (0,))
    once = qd(x, fmt)
    twice = qd(once, fmt)
    assert (np.abs(twice.astype(np.float64) - once) <= 2.0**-23 * np.abs(once)).all()
    assert (twice == once).mean() > 0.5
    assert tally(once, fmt).blocks.sqnr_db(0.01) == np.inf, "every block counts as exact"
