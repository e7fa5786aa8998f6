"""Zones in series: the best cuts by enumeration, steps found, and none in noise, outliers and ramps: counted."""

import math
import random
from collections.abc import Callable
from itertools import combinations, pairwise
from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srdd.analysis.outlying import around, outlying
from srdd.analysis.ramps import RHOS, likelihoods, ramp_of
from srdd.analysis.segmentation import PENALTY, best_runs, centred, cuts, cuts_of
from srdd.analysis.structure import Structure, structure_of

Draw = Callable[[random.Random, int], list[float]]


def run_cost(run: list[float], rho: float) -> float:
    """By definition, at the best of its levels: a parabola in the level, from its values at three."""

    def at(level: float) -> float:
        off = [value - level for value in run]
        return (1 - rho * rho) * off[0] ** 2 + fsum((b - rho * a) ** 2 for a, b in pairwise(off))

    low, middle, high = at(-1.0), at(0.0), at(1.0)
    bend, slope = (low + high) / 2 - middle, (high - low) / 2
    return middle - slope * slope / (4 * bend)


def total_cost(values: list[float], places: tuple[int, ...], rho: float = 0.0) -> float:
    return fsum(run_cost(values[a:b], rho) for a, b in pairwise([0, *places, len(values)]))


@given(st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=9), st.integers(1, 5))
def test_the_best_cuts_are_the_best_of_all(values: list[float], runs: int) -> None:
    runs = min(runs, len(values))
    least = min(total_cost(values, places) for places in combinations(range(1, len(values)), runs - 1))
    found = cuts_of(values, runs)
    assert len(found) == runs - 1
    assert total_cost(values, found) == pytest.approx(least, abs=1e-9)


@given(st.lists(st.integers(-5, 5).map(float), min_size=6, max_size=10), st.sampled_from(RHOS), st.integers(2, 3))
def test_the_best_runs_of_two_and_more_under_persistent_noise(values: list[float], rho: float, runs: int) -> None:
    values = centred(values)
    allowed = [
        places
        for places in combinations(range(1, len(values)), runs - 1)
        if all(b - a >= 2 for a, b in pairwise([0, *places, len(values)]))
    ]
    least = min(total_cost(values, places, rho) for places in allowed)
    squares, places = best_runs(values, runs, rho, 2)[-1]
    assert places in allowed
    assert squares == pytest.approx(least, abs=1e-9)
    assert total_cost(values, places, rho) == pytest.approx(least, abs=1e-9)


def noise(rho: float = 0.0, heavy: bool = False, outlier: float = 0.0, ramp: float = 0.0) -> Draw:
    def new(generator: random.Random) -> float:
        spread = fsum(generator.gauss(0, 1) ** 2 for _ in range(3)) if heavy else 1.0
        return generator.gauss(0, 1) / math.sqrt(spread)

    def draw(generator: random.Random, count: int) -> list[float]:
        values = [new(generator)]
        while len(values) < count:
            values.append(rho * values[-1] + math.sqrt(1 - rho**2) * new(generator))
        values[generator.randrange(count)] += outlier
        return [value + ramp * place / (count - 1) for place, value in enumerate(values)]

    return draw


def series_of(draw: Draw, count: int, length: int) -> list[list[float]]:
    generator = random.Random(length)
    return [draw(generator, length) for _ in range(count)]


@pytest.mark.parametrize(
    "draw",
    [
        *(noise(rho) for rho in (0.0, 0.5, 0.7, 0.9)),
        noise(heavy=True),
        noise(outlier=8.0),
        noise(0.9, outlier=5.0),
        noise(ramp=3.0),
        noise(0.5, ramp=10.0),
    ],
    ids=["white", "0.5", "0.7", "0.9", "t3", "outlier", "0.9 and outlier", "ramp", "0.5 and ramp"],
)
def test_noise_is_no_zone(draw: Draw) -> None:
    for length, count in ((6, 100), (12, 100), (28, 100), (61, 20)):
        false = sum(structure_of(values, 6).cuts != () for values in series_of(draw, count, length))
        assert false <= 0.05 * count, length


@pytest.mark.parametrize("at", [2, 3, 9, 14, 26])
def test_a_clear_step_is_found_exactly(at: int) -> None:
    generator = random.Random(at)
    series = [[(10.0 if i >= at else 0.0) + generator.gauss(0, 0.3) for i in range(28)] for _ in range(20)]
    found = [structure_of(values, 6).cuts for values in series]
    assert all(at in places for places in found)
    assert sum(places == (at,) for places in found) >= 19
    assert structure_of([0.2] * at + [0.4] * (28 - at), 6, 0.001).cuts == (at,)


def test_a_step_among_persistent_layers_is_found() -> None:
    stepped = [
        [value + 5 * (place >= 14) for place, value in enumerate(values)] for values in series_of(noise(0.5), 100, 28)
    ]
    found = [structure_of(values, 6).cuts for values in stepped]
    assert sum(len(places) == 1 and abs(places[0] - 14) <= 1 for places in found) >= 75


def test_two_steps_in_a_short_model_and_none_in_a_flat_one() -> None:
    assert cuts([1.0] * 3 + [5.0] * 3 + [2.0] * 3, 6, 0.1) == (3, 6)
    assert cuts([1.0] * 3 + [5.0] * 3 + [2.0] * 3, 1, 0.1) == ()
    assert cuts([0.3] * 28, 6, 0.001) == cuts([0.3] * 28, 6) == ()
    assert cuts([0.3], 6) == cuts([0.1, 0.9], 6) == ()


def test_the_worked_number() -> None:
    step = [1.0] * 4 + [5.0] * 4
    _, line, bend = likelihoods(centred(step), 0.1)
    assert min(line, bend) == pytest.approx(-0.3, abs=0.05)
    assert best_runs(centred(step), 2, 0.0, 2)[1] == (pytest.approx(0, abs=1e-12), (4,))
    assert 8 * math.log(0.01) + PENALTY == pytest.approx(-25.8, abs=0.1)
    assert cuts(step, 6, 0.1) == (4,)


def test_zones_that_leave_most_unexplained_are_none() -> None:
    # a small step, certain over 126 layers, but layers of one side differ more than the sides do
    generator = random.Random(0)
    values = [1.0 * (place >= 63) + generator.gauss(0, 1) for place in range(126)]
    assert cuts(values, 6) == ()
    assert cuts([value + 3.0 * (place >= 63) for place, value in enumerate(values)], 6) == (63,)


@pytest.mark.parametrize("at", range(8))
def test_one_layer_is_an_outlier_and_no_zone(at: int) -> None:
    values = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
    values[at] = 9.0
    assert outlying(values) == [at]
    assert structure_of(values, 6) == Structure(outliers=(at,))
    assert structure_of([-value for value in values], 6).outliers == (at,)


def test_what_sticks_out_of_nothing() -> None:
    assert outlying([1.0, 1.0, 1.0, 9.0]) == []  # four values: which are the rest?
    assert outlying([float(place) for place in range(9)]) == []
    assert outlying([1.2**place for place in range(28)]) == []
    assert outlying([0.0] * 5 + [9.0] * 5) == outlying([9.0, 9.0] + [0.0] * 8) == []
    assert outlying([0.0] * 9 + [1.0]) == [9]
    assert outlying([0.0] * 9 + [1.0], floor=0.25) == []  # 1 is not beyond 4 x 0.25
    assert outlying([0.0] * 9 + [1.0], floor=0.24) == [9]
    assert [around([3.0, 5.0, 4.0, 8.0], place) for place in range(4)] == [(4, 6), (3, 8), (3, 8), (3, 5)]


def test_an_outlier_moves_no_cut() -> None:
    values = [1.0, 2.0, 1.0, 9.0, 1.0, 2.0, 5.0, 6.0, 5.0, 6.0, 5.0, 6.0]
    assert structure_of(values, 6) == Structure(cuts=(6,), outliers=(3,))
    beside = [1.0, 1.1, 1.0, 1.1, 1.0, -7.0, 5.0, 5.1, 5.0, 5.1, 5.0]
    assert structure_of(beside, 6) == Structure(cuts=(6,), outliers=(5,))  # it belongs to the run before it


def test_a_ramp_is_told_as_one() -> None:
    rising = structure_of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 6)
    assert (rising.cuts, rising.outliers) == ((), ())
    assert rising.ramp is not None
    assert (rising.ramp.shape, rising.ramp.turn) == ("rises", None)
    assert (rising.ramp.first, rising.ramp.last) == pytest.approx((1, 8))
    generator = random.Random(1)
    for length in (6, 12, 28, 61):
        noisy = [20 - 20 * place / (length - 1) + generator.gauss(0, 1) for place in range(length)]
        falling = ramp_of(noisy)
        assert falling is not None
        assert falling.shape == "falls"
        assert falling.first - falling.last == pytest.approx(20, abs=4)
    assert ramp_of([1.0, 2.0, 3.0, 4.0]) is None
    assert ramp_of([0.3] * 28, 0.001) is None


@pytest.mark.parametrize("up", [1.0, -1.0])
def test_a_bend_and_a_curved_ramp(up: float) -> None:
    arch = structure_of([up * math.sin(math.pi * place / 27) for place in range(28)], 6, 0.001)
    assert arch.cuts == ()
    assert arch.ramp is not None
    assert arch.ramp.shape == ("rises, then falls" if up > 0 else "falls, then rises")
    assert arch.ramp.turn in (13, 14)
    curved = structure_of([up * math.exp(place / 7) for place in range(28)], 6, 0.001)
    assert curved.cuts == ()
    assert curved.ramp is not None
    assert curved.ramp.shape == ("rises" if up > 0 else "falls")


def test_noise_is_seldom_a_ramp() -> None:
    for draw in (noise(), noise(0.5), noise(0.9), noise(heavy=True)):
        for length, count in ((6, 200), (28, 100)):
            told = sum(structure_of(values, 6).ramp is not None for values in series_of(draw, count, length))
            assert told <= 0.05 * count, length


def test_the_turn_of_a_bend_counts_outliers() -> None:
    values = [math.sin(math.pi * place / 27) for place in range(28)]
    values[3] = 9.0
    found = structure_of(values, 6, 0.001)
    assert found.outliers == (3,)
    assert found.ramp is not None
    assert found.ramp.turn in (13, 14, 15)
