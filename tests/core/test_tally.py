"""Tally's algebra, and what it promises about `measure`: that order, chunks and powers of two do not matter."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srdd.core.formats import FORMATS, parse
from srdd.core.tally import FIELDS, IS_MAX, Tally
from srdd.kernels.reference import measure

COUNTS = ("n", "nonzero", "deadzone", "clipped", "at_max", "nonfinite", "excluded", "zero_scale")
DETERMINISTIC = [row for row in FORMATS.values() if not row.stochastic]
MX_SPECS = [f"{row.name}:{rule.value}" for row in DETERMINISTIC if row.name.startswith("mx") for rule in row.rules]

# Whole numbers far below 2^53: float64 adds them exactly, so the laws hold exactly and may be asked for exactly.
whole = st.integers(-(2**40), 2**40).map(float)
tallies = st.lists(whole, min_size=len(FIELDS), max_size=len(FIELDS)).map(
    lambda v: Tally.from_vector([abs(x) if is_max else x for x, is_max in zip(v, IS_MAX, strict=True)])
)
# Matrices of normal float32 numbers with few bits, so that ties, deadzone and clipping are common.
values = st.one_of(
    st.just(0.0),
    st.just(-0.0),
    st.builds(lambda m, e, s: s * m * 2.0**e, st.integers(1, 255), st.integers(-12, 4), st.sampled_from([1, -1])),
)
columns = 40  # ragged for blocks of 16 and of 32


def matrices(rows):
    return st.integers(1, rows).flatmap(
        lambda r: st.lists(values, min_size=columns, max_size=columns * 2).map(
            # a short list of values laid out over r rows, each row rolled further, keeps examples small
            lambda v: np.stack([np.roll(v, 7 * i)[:columns] for i in range(r)]).astype(np.float32)
        )
    )


def tally(x, spec, **options):
    return Tally.from_vector(measure(torch.from_numpy(np.ascontiguousarray(x)), spec, **options).tolist())


def assert_same_measurement(got, expected):
    """Counts and maxima exactly; sums to 1e-12 of the sum of their terms' sizes (signed terms may cancel)."""
    size = {"sum_x": expected.sum_abs_x, "sum_e": expected.sum_abs_e}
    for name in FIELDS:
        have, want = getattr(got, name), getattr(expected, name)
        if name.startswith("sum_"):
            assert have == pytest.approx(want, rel=0, abs=1e-12 * size.get(name, abs(want))), name
        else:
            assert have == want, name


# --- the algebra ------------------------------------------------------------------------------------------------


@given(tallies, tallies, tallies)
def test_merge_is_associative(a, b, c):
    assert (a + b) + c == a + (b + c)


@given(tallies, tallies)
def test_merge_is_commutative(a, b):
    assert a + b == b + a


@given(tallies)
def test_the_empty_tally_is_zero(a):
    assert a + Tally() == a
    assert Tally() + a == a
    assert sum([a], Tally()) == a


@given(tallies, tallies)
def test_merge_adds_sums_and_takes_the_larger_maximum(a, b):
    for name in FIELDS:
        one, other = getattr(a, name), getattr(b, name)
        assert getattr(a + b, name) == (max(one, other) if name in ("max_abs_x", "max_abs_e") else one + other)


def test_the_maxima_are_the_only_fields_that_do_not_add():
    assert [name for name, is_max in zip(FIELDS, IS_MAX, strict=True) if is_max] == ["max_abs_x", "max_abs_e"]


def test_adding_a_number_to_a_tally_is_a_type_error():
    with pytest.raises(TypeError):
        Tally() + 1.0
    with pytest.raises(TypeError):
        sum([Tally(n=1)])  # starts from 0; the docstring's way is sum(tallies, Tally())


# --- vectors and mappings ---------------------------------------------------------------------------------------


@given(tallies)
def test_vector_and_mapping_round_trip(a):
    assert Tally.from_vector(a.vector()) == a
    assert Tally.from_mapping(dict(zip(FIELDS, a.vector(), strict=True))) == a
    backwards = dict(reversed(list(zip(FIELDS, a.vector(), strict=True))))
    assert Tally.from_mapping(backwards) == a


def test_vector_follows_the_order_of_fields():
    assert Tally(**{name: float(i) for i, name in enumerate(FIELDS)}).vector() == [float(i) for i in range(len(FIELDS))]


def test_from_vector_makes_floats_of_integers():
    assert all(type(value) is float for value in Tally.from_vector(range(len(FIELDS))).vector())


@pytest.mark.parametrize("length", [0, len(FIELDS) - 1, len(FIELDS) + 1])
def test_from_vector_refuses_another_length(length):
    with pytest.raises(ValueError, match=f"expected {len(FIELDS)} sums, found {length}"):
        Tally.from_vector([0.0] * length)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"sum_e2": None}, r"missing \['sum_e2'\], unknown \[\]", id="missing"),
        pytest.param({"sum_e3": 1.0}, r"missing \[\], unknown \['sum_e3'\]", id="unknown"),
        pytest.param({"n": None, "N": 1.0}, r"missing \['n'\], unknown \['N'\]", id="misspelt"),
    ],
)
def test_from_mapping_refuses_other_names(change, message):
    named = {**dict.fromkeys(FIELDS, 0.0), **change}
    with pytest.raises(ValueError, match=message):
        Tally.from_mapping({name: value for name, value in named.items() if value is not None})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_is_finite_sees_one_bad_field(value):
    assert Tally(n=1.0).is_finite
    assert not Tally(zero_scale=value).is_finite


# --- chunks, order, powers of two -------------------------------------------------------------------------------


@pytest.mark.parametrize("row", DETERMINISTIC, ids=lambda row: row.spec)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_measuring_in_chunks_of_rows_changes_nothing(row, data):
    x = data.draw(matrices(5))
    x = np.repeat(x, row.block[0], axis=0)  # a 2-D tile must not be cut
    cut = data.draw(st.integers(0, len(x) // row.block[0])) * row.block[0]
    gmax = float(np.abs(x).max())
    parts = [tally(chunk, row, global_amax=gmax) for chunk in (x[:cut], x[cut:])]
    assert_same_measurement(sum(parts, Tally()), tally(x, row))


@pytest.mark.parametrize("row", DETERMINISTIC, ids=lambda row: row.spec)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_order_of_blocks_does_not_matter(row, data):
    rows, width = row.block
    x = data.draw(matrices(4))[:, :32]
    x = np.repeat(x, rows, axis=0)
    blocks = [x[r : r + rows, c : c + width] for r in range(0, len(x), rows) for c in range(0, 32, width)]
    shuffled = data.draw(st.permutations(blocks))
    assert_same_measurement(tally(np.concatenate(shuffled), row), tally(x, row))


@pytest.mark.parametrize("spec", MX_SPECS)
@settings(max_examples=20, deadline=None)
@given(x=matrices(3), k=st.integers(-80, 80))
def test_a_power_of_two_changes_no_mx_metric(spec, x, k):
    # sums scale by 2^k to their power, exactly; counts and sum_rel have power 0
    power = {
        **dict.fromkeys(("sum_x", "sum_e", "sum_abs_x", "sum_abs_e", "max_abs_x", "max_abs_e"), 1),
        **dict.fromkeys(("sum_x2", "sum_e2", "sum_e2_clipped", "sum_e2_deadzone", "sum_q2", "sum_xq"), 2),
        "sum_x4": 4,
    }
    before, after = tally(x, spec), tally(np.ldexp(x, k), spec)
    for name in FIELDS:
        assert getattr(after, name) == math.ldexp(getattr(before, name), k * power.get(name, 0)), name


def test_a_factor_that_is_no_power_of_two_does_change_a_tally():
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    before, after = tally(x, "mxfp4:floor"), tally(x * np.float32(1.3), "mxfp4:floor")
    assert before.sum_rel != pytest.approx(after.sum_rel, rel=1e-3)


@settings(max_examples=50, deadline=None)
@given(x=matrices(3))
@pytest.mark.parametrize("spec", ["mxfp4:floor", "mxfp8:rceil", "nvfp4:nvidia"])
def test_fields_of_one_measurement_agree_with_each_other(spec, x):
    t = tally(x, spec)
    assert t.n == x.size
    assert 0 <= t.zero_scale <= t.deadzone <= t.nonzero <= t.n
    assert t.clipped <= t.at_max <= t.nonzero
    assert t.sum_e2_clipped + t.sum_e2_deadzone <= t.sum_e2 * (1 + 1e-12)
    # (x + e)^2 = q^2 and x (x + e) = x q, summed; the terms' sizes bound what rounding may do
    slack = 1e-12 * (t.sum_x2 + t.sum_q2)
    assert t.sum_e2 == pytest.approx(t.sum_q2 - 2 * t.sum_xq + t.sum_x2, rel=0, abs=4 * slack)
    assert t.max_abs_x <= t.sum_abs_x * (1 + 1e-12)
    assert t.clipped == 0 or not parse(spec).never_clips


def test_counts_and_maxima_and_sums_cover_every_field():
    sums = [name for name in FIELDS if name.startswith("sum_")]
    assert sorted([*COUNTS, "max_abs_x", "max_abs_e", *sums]) == sorted(FIELDS)
