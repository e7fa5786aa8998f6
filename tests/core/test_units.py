"""Which sequences are one unit, and the errors that follow: by hand, and as algebra."""

import math
from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srdd.core.metrics import BY_NAME
from srdd.core.tally import Tally
from srdd.core.uncertainty import (
    by_unit,
    jackknife,
    leave_one_out,
    mean_and_error,
    means_without_each,
    standard_errors,
    sums_by_unit,
    tallies_by_unit,
)
from srdd.core.units import ENOUGH, units_of

NUMBERS = st.floats(-10, 10, allow_subnormal=False)


@pytest.mark.parametrize(
    ("documents", "offsets", "expected"),
    [
        ("", [], ()),
        ("a", [0], (0,)),
        ("aabc", [0, 8, 0, 0], (0, 0, 1, 2)),
        ("abca", [8, 0, 0, 0], (0, 1, 2, 0)),
        ("aaaaaaaaaa", range(10), (0, 0, 1, 2, 3, 4, 4, 5, 6, 7)),
        ("aaaaaaaaaa", range(10, 0, -1), (0, 1, 2, 3, 3, 4, 5, 6, 7, 7)),
        ("aaa", [0, 8, 16], (0, 1, 2)),
        ("a" * 15 + "b", range(16), (*[0] * 15, 1)),
    ],
)
def test_units_by_hand(documents: str, offsets: list[int], expected: tuple[int, ...]) -> None:
    assert units_of(documents, list(offsets)) == expected


@given(st.integers(1, 100))
def test_one_document_gives_enough_blocks_of_neighbours(count: int) -> None:
    units = units_of(["a"] * count, range(count))
    assert len(set(units)) == min(count, ENOUGH)
    assert list(units) == sorted(units)
    sizes = [units.count(unit) for unit in set(units)]
    assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 999)), min_size=1, unique=True), st.randoms())
def test_the_order_of_sequences_changes_no_unit(sequences: list[tuple[str, int]], random: object) -> None:
    shuffled = list(sequences)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert members(sequences) == members(shuffled)


def members(sequences: list[tuple[str, int]]) -> set[frozenset[tuple[str, int]]]:
    units = units_of([name for name, _ in sequences], [offset for _, offset in sequences])
    return {frozenset(s for s, u in zip(sequences, units, strict=True) if u == unit) for unit in units}


def test_units_of_unequal_size_by_hand() -> None:
    """0, 1 of one document and 2 of another: without the first 2, without the second 0.5."""
    assert means_without_each([0.0, 1.0, 2.0], (0, 0, 1)) == [2.0, 0.5]
    assert by_unit([0.0, 1.0, 2.0], (0, 0, 1)) == pytest.approx([0.25, 1.75], rel=1e-12)
    assert mean_and_error([0.25, 1.75]) == pytest.approx((1.0, 0.75), rel=1e-12)
    tallies = [Tally(n=1, sum_e=value) for value in (0.0, 1.0, 2.0)]
    errors = standard_errors(tallies_by_unit(tallies, (0, 0, 1)))
    assert errors["bias"] == pytest.approx(0.75, rel=1e-12)


def test_a_ratio_of_sums_by_hand() -> None:
    """Noise 1 + 3 of one document over 100 each, 2 over 50 of the other: rms sqrt(0.04) and sqrt(0.02)."""
    tallies = [Tally(n=1, sum_x2=x, sum_e2=e) for x, e in ((100, 1), (100, 3), (50, 2))]
    replicates = [math.sqrt(2 / 50), math.sqrt(4 / 200)]
    expected = abs(replicates[0] - replicates[1]) / 2
    assert standard_errors(tallies_by_unit(tallies, (0, 0, 1)))["relative_rms"] == pytest.approx(expected, rel=1e-12)


def test_one_unit_has_no_error() -> None:
    assert means_without_each([1.0, 2.0], (0, 0)) == []
    assert by_unit([1.0, 2.0], (0, 0)) == [1.5]
    assert math.isnan(standard_errors(tallies_by_unit([Tally(n=1), Tally(n=2)], (0, 0)))["bias"])
    assert by_unit([3.0], None) == [3.0]


@given(st.lists(NUMBERS, min_size=2, max_size=20))
def test_sequences_of_their_own_are_as_they_were(values: list[float]) -> None:
    own = tuple(range(len(values)))
    assert by_unit(values, None) == values
    assert by_unit(values, own) == pytest.approx(values, abs=1e-12)
    assert mean_and_error(by_unit(values, own))[1] == pytest.approx(stdev(values) / math.sqrt(len(values)), abs=1e-12)
    tallies = [Tally(n=1, sum_e=value) for value in values]
    assert tallies_by_unit(tallies, own) == tallies


def grouped(draw: st.DrawFn) -> tuple[list[float], list[float], tuple[int, ...]]:
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=20).filter(lambda names: len(set(names)) > 1))
    count = len(names)
    first, second = (draw(st.lists(NUMBERS, min_size=count, max_size=count)) for _ in range(2))
    return first, second, units_of(names, range(count))


GROUPED = st.composite(grouped)()


@given(GROUPED)
def test_one_number_per_unit_has_the_mean_and_the_jackknife_of_all(case: tuple[list[float], ...]) -> None:
    values, _, units = case
    mean, error = mean_and_error(by_unit(values, units))  # type: ignore[arg-type]
    assert mean == pytest.approx(math.fsum(values) / len(values), abs=1e-11)
    assert error == pytest.approx(jackknife(means_without_each(values, units)), abs=1e-11)  # type: ignore[arg-type]
    tallies = [Tally(n=1, sum_e=value) for value in values]
    replicates = [BY_NAME["bias"].of(t) for t in leave_one_out(tallies_by_unit(tallies, units))]  # type: ignore[arg-type]
    assert error == pytest.approx(jackknife(replicates), abs=1e-11)


@given(GROUPED)
def test_differences_by_unit_are_those_of_the_values(case: tuple[list[float], ...]) -> None:
    first, second, units = case
    apart = [a - b for a, b in zip(by_unit(first, units), by_unit(second, units), strict=True)]  # type: ignore[arg-type]
    together = by_unit([a - b for a, b in zip(first, second, strict=True)], units)  # type: ignore[arg-type]
    assert apart == pytest.approx(together, abs=1e-10)


def test_sums_by_unit() -> None:
    assert sums_by_unit([1.0, 2.0, 4.0], (1, 0, 1)) == [2.0, 5.0]
    assert sums_by_unit([1.0, 2.0], None) == [1.0, 2.0]
