"""What of an adapter survives, in numbers by hand."""

import math

import pytest

from srdd.core.adapters import relative_error, survival
from srdd.documents.adapter import Survival, joined

ROW = {"name": "q_proj", "role": "q_proj", "rank": 4, "format": "mxfp4:even", "n": 3, "moved": 1}
SUMS = {"sum_w2": 38.9, "sum_d2": 0.1, "sum_pd": 0.15, "sum_r2": 0.05, "sum_e2_apart": 0.0, "sum_e2_merged": 0.05}


def test_the_worked_number() -> None:
    """D = (0, 0.1, 0.3) arrives as P = (0, 0, 0.5)."""
    assert survival(0.15, 0.1) == pytest.approx(1.5)
    assert relative_error(0.05, 0.1) == pytest.approx(math.sqrt(0.5))


def test_an_adapter_that_adds_nothing_has_no_survival() -> None:
    assert math.isnan(survival(0.0, 0.0))
    assert math.isnan(relative_error(0.0, 0.0))
    row = Survival.model_validate({**ROW, **SUMS, "sum_d2": 0.0})
    assert (row.survival, row.relative_error, row.relative_size) == (None, None, 0.0)


def test_what_follows_from_sums_is_never_trusted() -> None:
    row = Survival.model_validate({**ROW, **SUMS, "survival": 7.0, "sqnr_merged_db": 99.0})
    assert row.survival == pytest.approx(1.5)
    assert row.sqnr_apart_db is None, "exact"
    assert row.sqnr_merged_db == pytest.approx(10 * math.log10(38.9 / 0.05))


def test_many_weights_are_ratios_of_sums() -> None:
    one = Survival.model_validate({**ROW, **SUMS})
    other = one.model_copy(update={"sum_pd": 0.0, "sum_d2": 0.3, "rank": 8, "moved": 0})
    both = joined([one, other], "all")
    assert (both.name, both.n, both.moved, both.rank) == ("all", 6, 1, 8)
    assert both.survival == pytest.approx(0.15 / 0.4)
