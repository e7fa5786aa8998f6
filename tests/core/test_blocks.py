"""Counts of single blocks: by hand, and their algebra."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srdd import kernels
from srdd.core.blocks import (
    EXACT,
    SCALE_BINS,
    SQNR_BINS,
    Blocks,
    added,
    all_added,
    block_number,
    block_place,
    compact,
    without,
    worst_of,
)
from srdd.core.tally import Tally

rows = st.lists(st.integers(0, 50), min_size=0, max_size=30)


def blocks(counts: dict[int, int]) -> Blocks:
    row = [0.0] * SQNR_BINS
    for place, count in counts.items():
        row[place] = float(count)
    return Blocks(compact(row))


def test_a_row_is_kept_from_its_first_bin_to_its_last() -> None:
    assert compact([0, 0, 3, 0, 1, 0]) == (2, 3, 0, 1)
    assert compact([0, 0]) == ()


@given(rows, rows)
def test_rows_add_bin_by_bin_and_can_be_taken_apart(a: list[int], b: list[int]) -> None:
    size = max(len(a), len(b))
    whole = [x + y for x, y in zip(a + [0] * (size - len(a)), b + [0] * (size - len(b)), strict=True)]
    assert added(compact(a), compact(b)) == compact(whole) == added(compact(b), compact(a))
    assert without(Blocks(compact(whole)), Blocks(compact(b))) == Blocks(compact(a))


@given(st.lists(rows, max_size=6))
def test_many_rows_add_as_one_after_another(many: list[list[int]]) -> None:
    one_by_one: tuple[float, ...] = ()
    for row in many:
        one_by_one = added(one_by_one, compact(row))
    assert all_added([compact(row) for row in many]) == one_by_one


def test_the_worst_of_many_is_the_first_of_the_noisiest() -> None:
    assert worst_of([(), (1.0, 5.0), [2.0, 7.0], (2.0, 8.0), ()]) == (2.0, 7.0)
    assert worst_of([]) == worst_of([(), ()]) == ()


def test_the_worst_block_is_the_noisier_one() -> None:
    quiet, loud = Blocks(worst=(1.0, 7.0)), Blocks(worst=(2.0, 3.0))
    assert (quiet + loud).worst == (loud + quiet).worst == (2.0, 3.0)
    assert (quiet + Blocks()).worst == (1.0, 7.0)


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ({80: 1}, 0.5, 20.25),  # 20 to 20.5 dB, the middle of the bin
        ({80: 2, 84: 2}, 0.5, 20.5),  # all of the first bin
        ({80: 1, 84: 3}, 0.5, 22 + 0.5 / 3),
        ({80: 99, 84: 1}, 0.01, 20 + 0.5 / 99),
        ({80: 1, EXACT: 3}, 0.5, math.inf),
    ],
)
def test_quantiles(counts: dict[int, int], share: float, expected: float) -> None:
    assert blocks(counts).sqnr_db(share) == pytest.approx(expected)


def test_no_blocks_have_no_quantile() -> None:
    assert math.isnan(Blocks().sqnr_db(0.5))


def test_what_a_kernel_counts() -> None:
    """Blocks of nvfp4: one on the grid, one of zeros, one with a NaN, one that is too small for any scale."""
    x = torch.zeros(4, 16)
    x[0, 0] = 6.0
    x[2, 3] = torch.nan
    x[3, :] = 1e-7
    counted = Tally.from_vector(kernels.measure(x, "nvfp4", backend="reference").tolist()).blocks
    assert counted.count == 2
    assert counted.zeroed == 1
    assert counted.sqnr == (40, 1, *[0] * (EXACT - 41), 1)  # 0 dB: all of it is lost; and exact
    assert counted.worst == (pytest.approx(16e-14), 3)


def test_places_of_blocks() -> None:
    """A row of 100 columns is 4 blocks of 32, the last one short; 7 of 16."""
    assert block_place(602, 100, (1, 32)) == (150, 64)
    assert block_place(18, 100, (32, 32)) == (128, 64)
    assert block_number(150, 100, (1, 32)) == 600
    assert block_number(128, 100, (32, 32)) == 16
    assert SCALE_BINS == 278


@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4", "mxfp4_2d", "nvfp4_2d"])
@pytest.mark.parametrize("shape", [(64, 96), (40, 50), (3, 37, 45)], ids=str)
def test_the_worst_block_is_found_where_it_is(spec: str, shape: tuple[int, ...]) -> None:
    """One value far above the rest, off the grid: its block holds nearly all of the noise."""
    from srdd.core.formats import parse

    x = torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 0.01
    flat = x.view(-1, shape[-1])
    row, column = len(flat) - 2, shape[-1] - 3
    flat[row, column] = 5.0
    flat[row, column - 1] = -3.7
    block = parse(spec).block
    for backend in ("reference", "eager"):
        counted = Tally.from_vector(kernels.measure(flat, spec, backend=backend).tolist()).blocks
        found = block_place(int(counted.worst[1]), shape[-1], block)
        assert found == (row // block[0] * block[0], column // block[1] * block[1])


def test_a_factor_that_means_nothing_moves_sums_and_not_the_median() -> None:
    """One massive value among Gaussian ones, times 1 to 1.9: what E8M0 scales do not care about."""
    x = torch.randn(512, 64, generator=torch.Generator().manual_seed(5))
    x[7, 9] = 700.0
    tallies = [Tally.from_vector(kernels.measure(x * f, "mxfp4", backend="eager").tolist()) for f in (1, 1.2, 1.5, 1.9)]
    classic = [10 * math.log10(t.sum_x2 / t.sum_e2) for t in tallies]
    medians = [t.blocks.sqnr_db(0.5) for t in tallies]
    assert max(classic) - min(classic) > 3
    assert max(medians) - min(medians) < 0.3
