"""Student's t against scipy's, and the numbers of printed tables."""

import math

import pytest

from srdd.core.student import critical, tail


@pytest.mark.parametrize("degrees", [1, 2, 3, 7, 15, 31, 100, 1000])
@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 2.0, 5.0, 12.0, 40.0])
def test_the_tail_is_scipys(t: float, degrees: int) -> None:
    from scipy.stats import t as student

    assert tail(t, degrees) == pytest.approx(student.sf(t, degrees), rel=1e-9)


@pytest.mark.parametrize("tests", [1, 10, 1_000, 100_000])
@pytest.mark.parametrize("degrees", [1, 3, 15, 200])
def test_the_critical_value_is_scipys(degrees: int, tests: int) -> None:
    from scipy.stats import t as student

    assert critical(degrees, tests) == pytest.approx(student.isf(0.05 / tests, degrees), rel=1e-8)


def test_tables() -> None:
    assert critical(15) == pytest.approx(1.753, abs=5e-4)
    assert critical(10, level=0.025) == pytest.approx(2.228, abs=5e-4)
    assert critical(15, 1000) == pytest.approx(5.239, abs=5e-4)


def test_without_degrees_of_freedom_nothing_is_decided() -> None:
    assert critical(0) == math.inf
