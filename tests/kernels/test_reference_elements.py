"""Elements against independent casts, and scale rules at their thresholds."""

import math

import ml_dtypes
import numpy as np
import pytest
from kernel_oracle import EMAX, F32, MIDPOINTS, MX_OF_ELEMENT, TABLE, above, assert_same_bits, below, qd, tally

from srdd.core.formats import parse

# --- elements against ml_dtypes ---------------------------------------------------------------------------------


def int8_cast(x):
    return np.clip(np.rint(x.astype(np.float64) * 64), -127, 127) / 64


def ml_cast(dtype, largest):
    # ml_dtypes overflows to NaN or infinity where MX saturates, so saturate first
    return lambda x: np.clip(x, -largest, largest).astype(dtype).astype(F32)


CAST = {
    "E2M1": ml_cast(ml_dtypes.float4_e2m1fn, 6.0),
    "E2M3": ml_cast(ml_dtypes.float6_e2m3fn, 7.5),
    "E3M2": ml_cast(ml_dtypes.float6_e3m2fn, 28.0),
    "E4M3": ml_cast(ml_dtypes.float8_e4m3fn, 448.0),
    "E5M2": ml_cast(ml_dtypes.float8_e5m2, 57344.0),
    "INT8": int8_cast,
}


def points(element):
    """Every code, every midpoint, the values past the largest, each with its float32 neighbours, both signs."""
    largest, top = TABLE[element][-1], 2.0 ** (EMAX[element] + 1)
    past = [(largest + top) / 2, 2 * largest - TABLE[element][-2]]
    at = np.array([*TABLE[element], *MIDPOINTS[element], *past], dtype=F32)
    every = np.concatenate(
        [at, np.nextafter(at, F32(np.inf)), np.nextafter(at, F32(-np.inf)), [np.nextafter(F32(top), F32(0))]]
    )
    every = every[(every >= 2.0**-40) & (every < top) | (every == 0)]
    return np.concatenate([every, -every]).astype(F32)


@pytest.mark.parametrize("exponent", [0, -1, 1, 12, -60, 100])
@pytest.mark.parametrize("element", MX_OF_ELEMENT)
def test_every_code_and_midpoint_matches_an_independent_cast(element, exponent):
    # The largest value in front fixes the block's scale: under `floor` nothing below twice 2^emax moves it.
    values = points(element)
    values = np.concatenate([values, np.zeros(-len(values) % 31, dtype=F32)]).reshape(-1, 31)
    blocks = np.concatenate([np.full((len(values), 1), TABLE[element][-1], dtype=F32), values], axis=1)
    expected = np.ldexp(CAST[element](blocks).astype(F32), exponent)
    assert_same_bits(qd(np.ldexp(blocks, exponent), f"{MX_OF_ELEMENT[element]}:floor"), expected)


@pytest.mark.parametrize("element", MX_OF_ELEMENT)
def test_the_decoded_code_table_is_the_one_of_the_formats(element):
    assert tuple(TABLE[element]) == parse(MX_OF_ELEMENT[element]).element.magnitudes


@pytest.mark.parametrize(
    ("element", "dtype"),
    [
        ("E2M1", ml_dtypes.float4_e2m1fn),
        ("E2M3", ml_dtypes.float6_e2m3fn),
        ("E3M2", ml_dtypes.float6_e3m2fn),
        ("E4M3", ml_dtypes.float8_e4m3fn),
        ("E5M2", ml_dtypes.float8_e5m2),
    ],
    ids=["E2M1", "E2M3", "E3M2", "E4M3", "E5M2"],
)
def test_every_bit_pattern_of_ml_dtypes_is_a_fixed_point(element, dtype):
    bits = parse(MX_OF_ELEMENT[element]).element.bits
    values = np.arange(2**bits, dtype=np.uint8).view(dtype).astype(F32)
    values = values[np.isfinite(values)]
    blocks = np.full((len(values), 32), TABLE[element][-1], dtype=F32)
    blocks[:, 7] = values
    assert len(set(np.abs(values).tolist())) == len(TABLE[element])
    assert_same_bits(qd(blocks, f"{MX_OF_ELEMENT[element]}:floor"), blocks)


# --- scale rules at their thresholds ----------------------------------------------------------------------------


def shared_exponent(fmt, rule, amax):
    """The exponent the kernel chose, read off what survives: 2^j does exactly when it is no less than the smallest
    subnormal of the block (at half of it, a tie, the even code is zero)."""
    element = parse(fmt).element
    step = element.emin - element.mantissa_bits  # the smallest subnormal is 2^step in units of the scale
    guess = max(math.frexp(amax)[1] - 1 - element.emax + step, -145)
    candidates = [guess + j for j in range(-4, 24) if 2.0 ** (guess + j) <= amax]
    block = np.array([amax, *(2.0**j for j in candidates), *[0.0] * (31 - len(candidates))], dtype=F32)
    alive = [j for j, q in zip(candidates, qd(block, f"{fmt}:{rule}")[1:], strict=False) if q != 0]
    assert alive
    assert len(alive) < len(candidates), "every candidate survived: the probe is blind"
    return min(alive) - step


THRESHOLDS = [
    # fmt, rule, the smallest significand that takes one exponent more (worked by hand from the rules)
    ("mxfp4", "floor", None),
    ("mxfp4", "rceil", above(1.5)),  # 6 / 4
    ("mxfp4", "ceil", above(1.0)),
    ("mxfp4", "even", 1.75),
    ("mxfp4", "even_m1", 1.75),
    ("mxfp6_e2m3", "floor", None),
    ("mxfp6_e2m3", "rceil", above(1.875)),  # 7.5 / 4
    ("mxfp6_e2m3", "ceil", above(1.0)),
    ("mxfp6_e2m3", "even", 1.9375),
    ("mxfp6_e2m3", "even_m1", 1.75),
    ("mxfp6_e3m2", "floor", None),
    ("mxfp6_e3m2", "rceil", above(1.75)),  # 28 / 16
    ("mxfp6_e3m2", "ceil", above(1.0)),
    ("mxfp6_e3m2", "even", 1.875),
    ("mxfp6_e3m2", "even_m1", 1.75),
    ("mxfp8_e4m3", "floor", None),
    ("mxfp8_e4m3", "rceil", above(1.75)),  # 448 / 256
    ("mxfp8_e4m3", "ceil", above(1.0)),
    ("mxfp8_e4m3", "even", 1.9375),
    ("mxfp8_e4m3", "even_m1", 1.75),
    ("mxfp8_e5m2", "floor", None),
    ("mxfp8_e5m2", "rceil", above(1.75)),  # 57344 / 32768
    ("mxfp8_e5m2", "ceil", above(1.0)),
    ("mxfp8_e5m2", "even", 1.875),
    ("mxfp8_e5m2", "even_m1", 1.75),
    ("mxint8", "floor", None),
    ("mxint8", "rceil", above(127 / 64)),
    ("mxint8", "ceil", above(1.0)),
    ("mxint8", "even", 2 - 2**-7),
    ("mxint8", "even_m1", 1.75),
]


@pytest.mark.parametrize("k", [0, 1, -20, 90])
@pytest.mark.parametrize(("fmt", "rule", "threshold"), THRESHOLDS, ids=[f"{f}:{r}" for f, r, _ in THRESHOLDS])
def test_scale_rule_steps_exactly_at_its_threshold(fmt, rule, threshold, k):
    base = k - EMAX[parse(fmt).element.name]
    assert shared_exponent(fmt, rule, 2.0**k) == base
    if threshold is None:
        assert shared_exponent(fmt, rule, below(2.0 ** (k + 1))) == base
    else:
        assert shared_exponent(fmt, rule, below(threshold) * 2.0**k) == base
        assert shared_exponent(fmt, rule, threshold * 2.0**k) == base + 1
    assert shared_exponent(fmt, rule, 2.0 ** (k + 1)) == base + 1


@pytest.mark.parametrize(
    ("spec", "given", "expected"),
    [
        # scale 2^-1: the block holds 0, .25, .5, .75, 1, 1.5, 2, 3
        pytest.param("mxfp4:floor", [3.9, 1.25, 1.75, 0.125, -0.875], [3, 1, 2, 0, -1], id="mxfp4-floor-3.9-clips"),
        # scale 1: 0, .5, 1, 1.5, 2, 3, 4, 6
        pytest.param("mxfp4:even", [3.9, 1.25, 1.75, 0.125, -0.875], [4, 1, 2, 0, -1], id="mxfp4-even-3.9-steps-up"),
        pytest.param("mxfp4:even", [below(3.5), 2.5], [3, 2], id="mxfp4-even-3.5-less-ulp-stays"),
        pytest.param("mxfp4:even", [3.5, 2.5], [4, 2], id="mxfp4-even-3.5-steps-up-and-ties-to-4"),
        pytest.param("mxfp4:rceil", [6.0, 5.0, 0.25], [6, 4, 0], id="mxfp4-rceil-6-fits"),
        pytest.param("mxfp4:rceil", [above(6.0), 5.0, 0.5], [6, 4, 0], id="mxfp4-rceil-6-plus-ulp-steps-up"),
        pytest.param("mxfp4:floor", [above(6.0), 5.0, 0.5], [6, 4, 0.5], id="mxfp4-floor-6-plus-ulp-clips"),
        pytest.param("mxfp4:ceil", [4.0, 0.5, 2.5], [4, 0.5, 2], id="mxfp4-ceil-4-is-a-power"),
        pytest.param("mxfp4:ceil", [above(4.0), 0.5, 2.5], [4, 0, 2], id="mxfp4-ceil-4-plus-ulp-steps-up"),
        pytest.param("mxfp8_e4m3:floor", [957.0, 1.0], [896, 1], id="e4m3-floor-957-is-896"),
        pytest.param("mxfp8_e4m3:rceil", [957.0, 1.0], [960, 1], id="e4m3-rceil-957-is-960"),
        pytest.param("mxfp8_e4m3:even", [957.0, 1.0], [896, 1], id="e4m3-even-957-is-896"),
        pytest.param("mxfp8_e4m3:even_m1", [957.0, 1.0], [960, 1], id="e4m3-even-m1-957-is-960"),
        pytest.param("mxfp8_e5m2:rceil", [1.0, 1.125, -1.375], [1, 1, -1.5], id="e5m2-ties"),
        pytest.param("mxint8:floor", [1.999, 1 / 128, 3 / 128], [127 / 64, 0, 2 / 64], id="int8-clips-and-ties"),
    ],
)
def test_block_worked_by_hand(spec, given, expected):
    assert_same_bits(qd(given, spec), expected)


@pytest.mark.parametrize("rule", ["floor", "rceil", "ceil", "even", "even_m1"])
@pytest.mark.parametrize("fmt", MX_OF_ELEMENT.values())
def test_exponent_is_never_below_minus_127(fmt, rule):
    # 2^-127 is itself a float32 subnormal; by the rules alone these would take exponents from -127 - emax downwards
    for amax in (2.0**-127, 1.984375 * 2.0**-128, 2.0**-128):
        assert shared_exponent(fmt, rule, amax) == -127


def test_subnormals_worked_by_hand():
    # scale 2^-127: 2^-128 is the smallest code, 1.5 * 2^-127 = 3 * 2^-128 one too, 2^-129 a tie that goes to zero
    given = [2.0**-128, 3 * 2.0**-128, 2.0**-129, -(2.0**-129), above(2.0**-129), 2.0**-149, -(2.0**-149)]
    expected = [2.0**-128, 3 * 2.0**-128, 0.0, -0.0, 2.0**-128, 0.0, -0.0]
    assert_same_bits(qd(given, "mxfp4:floor"), expected)
    counted = tally(given, "mxfp4:floor")
    assert (counted.n, counted.nonzero, counted.deadzone, counted.zero_scale) == (7, 7, 4, 0)


def test_exponent_is_never_above_127():
    # INT8 alone gets there: above 127/64 * 2^127 rceil would need 2^128. The scale stays 2^127 and the value clips.
    largest = float(np.finfo(F32).max)
    for rule in ("floor", "rceil", "ceil", "even", "even_m1"):
        assert_same_bits(
            qd([largest, 2.0**121, 2.0**120, -largest], f"mxint8:{rule}"),
            np.array([127 / 64, 1 / 64, 0, -127 / 64]) * 2.0**127,
        )
        assert tally([largest, 1.0], f"mxint8:{rule}").clipped == 1
