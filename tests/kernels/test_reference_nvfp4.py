"""NVFP4 worked by hand and against the oracle."""

import numpy as np
import pytest
import torch
from kernel_oracle import F32, MIDPOINTS, assert_same_bits, nearest, oracle, qd, tally

# --- nvfp4 worked by hand ---------------------------------------------------------------------------------------


def nv_rows(*rows):
    """Blocks of 16 from short lists."""
    return np.array([[*row, *[0.0] * (16 - len(row))] for row in rows], dtype=F32)


NV_GIVEN = nv_rows(
    [2688.0, -448.0, 700.0],  # gmax / 2688 = 1, amax / 6 = 448; 700 / 448 = 1.5625
    [0.078, 0.03],  # amax / 6 = 0.013, in steps of 2^-9: 6.656
    [1.5 * 2.0**-9, 2.0**-10],  # amax / 6 = 2^-11, a quarter of E4M3's smallest
)
D7 = 7 * 2.0**-9
NV_EXPECTED = {
    # 0.078 / (7/512) = 5.7 -> 6, 0.03 / (7/512) = 2.19 -> 2; the third block's scale is zero
    "nvidia": nv_rows([2688, -448, 672], [6 * D7, 2 * D7], [0, 0]),
    # third block: d = 2^-9, 1.5 and a tie of 0.5 exactly on a code
    "min_subnormal": nv_rows([2688, -448, 672], [6 * D7, 2 * D7], [1.5 * 2.0**-9, 2.0**-10]),
    # d at least 2^-6: 0.078 * 64 = 4.99 -> 4, 0.03 * 64 = 1.92 -> 2; 0.1875 and 0.0625 -> 0
    "min_normal": nv_rows([2688, -448, 672], [4 / 64, 2 / 64], [0, 0]),
    # s_t is 1 anyway
    "single_level": nv_rows([2688, -448, 672], [4 / 64, 2 / 64], [0, 0]),
}


@pytest.mark.parametrize("rule", NV_EXPECTED)
def test_nvfp4_worked_by_hand_with_a_tensor_scale_of_one(rule):
    assert_same_bits(qd(NV_GIVEN, f"nvfp4:{rule}"), NV_EXPECTED[rule])


def test_nvfp4_counts_the_elements_lost_to_a_zero_scale():
    lost = tally(NV_GIVEN, "nvfp4:nvidia")
    assert (lost.n, lost.nonzero, lost.zero_scale, lost.deadzone, lost.clipped, lost.at_max) == (48, 7, 2, 2, 0, 2)
    kept = tally(NV_GIVEN, "nvfp4:min_normal")  # zeroed by rounding, not by a zero scale
    assert (kept.zero_scale, kept.deadzone) == (0, 2)


def test_nvfp4_step_by_step_in_float32():
    x = nv_rows([5.0, 1.0, -0.3], [0.7, 0.11, -0.02])
    s_t = F32(5.0) / F32(2688.0)
    assert float(s_t) == pytest.approx(0.00186012, abs=1e-8)
    # block 0: (5 / 6) / s_t = 448 give or take an ulp, and saturates there
    d0 = F32(448.0) * s_t
    # block 1: (0.7 / 6) / s_t = 62.72; E4M3 steps by 4 there: 64
    wanted = (F32(0.7) / F32(6.0)) / s_t
    assert 62 < wanted < 66
    d1 = F32(64.0) * s_t
    codes0 = np.array([6.0, 1.0, -0.5], dtype=F32)  # 5, 1, -.3 over .8333 = 6, 1.2, -.36
    codes1 = np.array([6.0, 1.0, -0.0], dtype=F32)  # .7, .11, -.02 over .11905 = 5.88, .924, -.168
    assert_same_bits(qd(x, "nvfp4:nvidia"), nv_rows(codes0 * d0, codes1 * d1))
    assert_same_bits(qd(x, "nvfp4:min_subnormal"), nv_rows(codes0 * d0, codes1 * d1))
    assert_same_bits(qd(x, "nvfp4:min_normal"), nv_rows(codes0 * d0, codes1 * d1))


def test_nvfp4_single_level_by_hand():
    # 5 / 6 = .8333 -> E4M3 .8125 (steps of 1/16): the block holds 4.875 and 5 clips; .7 / 6 = .11667 -> .1171875
    x = nv_rows([5.0, 1.0, -0.3], [0.7, 0.11, -0.02])
    assert_same_bits(
        qd(x, "nvfp4:single_level"),
        nv_rows([4.875, 0.8125, -0.5 * 0.8125], [6 * 0.1171875, 0.1171875, -0.0]),
    )
    counted = tally(x, "nvfp4:single_level")
    assert (counted.clipped, counted.at_max) == (1, 2)
    assert counted.sum_e2_clipped == 0.125**2


def test_nvfp4_global_amax_replaces_the_tensor_maximum():
    x = nv_rows([5.0, 1.0], [0.7, 0.11])
    same = qd(x, "nvfp4", global_amax=5.0)
    assert_same_bits(same, qd(x, "nvfp4"))
    assert_same_bits(same, qd(x, "nvfp4", global_amax=torch.tensor(5.0, dtype=torch.float64)))
    # 2688 / 1024 makes s_t = 2^-10; s_b saturates at 448, so d = 0.4375 and the largest value is 2.625
    clipped = tally(x, "nvfp4", global_amax=2688 / 1024)
    assert_same_bits(qd(x, "nvfp4", global_amax=2688 / 1024)[0, :2], [2.625, 0.875])
    assert (clipped.clipped, clipped.sum_e2_clipped) == (1, (5 - 2.625) ** 2)
    # rows alone, given the whole tensor's maximum, come out as in the whole tensor
    assert_same_bits(qd(x[1:], "nvfp4", global_amax=5.0), same[1:])
    assert not np.array_equal(qd(x[1:], "nvfp4"), same[1:])


def test_nvfp4_global_amax_of_zero_or_nothing_gives_zeros():
    x = nv_rows([5.0, -1.0])
    assert_same_bits(qd(x, "nvfp4", global_amax=0.0), nv_rows([0.0, -0.0]))
    assert tally(x, "nvfp4", global_amax=0.0).zero_scale == 2


@pytest.mark.parametrize("rule", ["nvidia", "min_subnormal", "min_normal", "single_level"])
@pytest.mark.parametrize("exponent", [-149, -140, -120, -60, 0, 60, 120])
def test_nvfp4_matches_the_oracle_at_every_size_of_tensor(rule, exponent):
    rng = np.random.default_rng(exponent + 200)
    x = (rng.standard_normal((8, 50)) * 2.0 ** rng.integers(-8, 1, (8, 50)) * 2.0**exponent).astype(F32)
    expected, _, _ = oracle(x, f"nvfp4:{rule}")
    assert_same_bits(qd(x, f"nvfp4:{rule}"), expected)


@pytest.mark.parametrize("gmax", [1.0, 3.7, 100.3, 0.0123, 2.0**-60 * 1.1])
def test_nvfp4_rounds_every_step_to_float32_in_the_order_given(gmax):
    # amax within three ulp of where the block scale is a tie of two E4M3 numbers: every rounding shows there
    s_t = F32(gmax) / F32(2688)
    ties = (MIDPOINTS["E4M3"] * 6 * float(s_t)).astype(F32)
    amax = np.concatenate([(ties.view(np.int32) + ulp).view(F32) for ulp in range(-3, 4)])
    x = nv_rows([gmax], *([a, a / 3] for a in amax[amax < gmax]))
    expected, scale, _ = oracle(x, "nvfp4:nvidia")
    assert_same_bits(qd(x, "nvfp4:nvidia"), expected)
    # the test has teeth: a division contracted into a product of divisors, or into a reciprocal, moves some scales
    largest = np.abs(x).max(axis=1)
    for wanted in (largest / (F32(6) * s_t), largest * (F32(1) / F32(6)) / s_t):
        assert (nearest(wanted.astype(np.float64), "E4M3").astype(F32) * s_t != scale[:, 0]).any()
