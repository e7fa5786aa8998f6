"""Stochastic rounding: neighbours, mean, seeds."""

import numpy as np
import pytest
import torch
from kernel_oracle import F32, FAR, NEAR, SPECS, TABLE, assert_same_bits, oracle, qd, seeded, tally, wild

from srdd.core.formats import parse
from srdd.core.tally import Tally
from srdd.kernels.reference import measure, quant_dequant

# --- stochastic rounding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mxfp4_sr", "nvfp4_sr"])
def test_same_seed_same_result_and_another_seed_another(name):
    x = torch.randn(16, 64, generator=seeded(0))
    first = quant_dequant(x, name, generator=seeded(7))
    assert torch.equal(first, quant_dequant(x, name, generator=seeded(7)))
    assert not torch.equal(first, quant_dequant(x, name, generator=seeded(8)))
    assert torch.equal(measure(x, name, generator=seeded(7)), measure(x, name, generator=seeded(7)))
    generator = seeded(7)
    quant_dequant(x, name, generator=generator)
    assert not torch.equal(first, quant_dequant(x, name, generator=generator)), "a generator moves on"


def test_measure_draws_as_quant_dequant_does():
    x = torch.randn(16, 64, generator=seeded(0))
    q = quant_dequant(x, "mxfp4_sr", generator=seeded(7)).double()
    counted = Tally.from_vector(measure(x, "mxfp4_sr", generator=seeded(7)).tolist())
    assert counted.sum_e2 == pytest.approx(((q - x) ** 2).sum().item(), rel=1e-12)


def test_deterministic_formats_leave_the_generator_alone():
    generator = seeded(7)
    before = generator.get_state()
    quant_dequant(torch.randn(4, 64, generator=seeded(0)), "mxfp4", generator=generator)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if parse(spec).stochastic])
def test_stochastic_rounding_takes_one_of_the_two_neighbours_on_the_deterministic_scale(spec):
    x = wild(31, (40, 75), NEAR if spec.startswith("nv") else FAR)
    got = qd(x, spec, generator=seeded(1))
    _, scale, _ = oracle(x, spec)
    size, scale = np.abs(x).astype(np.float64), np.where(scale > 0, scale, np.inf)
    place = size / scale
    if spec.startswith("nv"):
        place = place.astype(F32).astype(np.float64)  # the quotient of two float32 is rounded to float32
    scale[np.isinf(scale)] = 0
    low = TABLE["E2M1"][np.searchsorted(TABLE["E2M1"], place, side="right") - 1] * scale
    high = TABLE["E2M1"][np.minimum(np.searchsorted(TABLE["E2M1"], place, side="left"), 7)] * scale
    took_low, took_high = (np.abs(got) == side.astype(F32) for side in (low, high))
    assert (took_low | took_high).all()
    assert (took_low & ~took_high).sum() > 100
    assert (took_high & ~took_low).sum() > 100
    assert np.array_equal(np.signbit(got), np.signbit(x))


@pytest.mark.parametrize("spec", ["mxfp4_sr:rceil", "mxfp4_sr:ceil", "nvfp4_sr:nvidia"])
def test_stochastic_rounding_is_unbiased(spec):
    # One block drawn many times. x / scale lies p of the way between codes lo and hi, so a draw has mean x and
    # standard deviation (hi - lo) sqrt(p (1 - p)); a code itself (p = 0) must come back every time.
    draws, size = 40_000, parse(spec).block_size
    rng = np.random.default_rng(41)
    block = np.concatenate([[6.0, -3.0, 0.25, 0.01, 5.0, 0.0], rng.uniform(-6, 6, size - 6)]).astype(F32)
    options = {"global_amax": 2688.0} if spec.startswith("nv") else {}  # s_t = 1, s_b = 6 / 6: d = 1, nothing clips
    scale = {"mxfp4_sr:rceil": 1.0, "mxfp4_sr:ceil": 2.0, "nvfp4_sr:nvidia": 1.0}[spec]
    got = qd(np.tile(block, (draws, 1)), spec, generator=seeded(5), **options).astype(np.float64)
    magnitude = np.abs(block.astype(np.float64)) / scale
    low = TABLE["E2M1"][np.searchsorted(TABLE["E2M1"], magnitude, side="right") - 1]
    high = TABLE["E2M1"][np.searchsorted(TABLE["E2M1"], magnitude, side="left")]
    error = np.sqrt((magnitude - low) * (high - magnitude) / draws) * scale
    assert (np.abs(got.mean(axis=0) - block) <= 4 * error).all()
    assert (error > 0).sum() == size - 3  # all but 6, -3 and 0
    assert (got[:, error > 0].std(axis=0) > 0).all()


def test_a_draw_of_zero_leaves_a_code_where_it_is(monkeypatch):
    # torch.rand can return 0.0, once in 2^24; P(up) of a code is 0, so it must not go up even then
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.zeros(*shape, dtype=torch.float32))
    codes = [*TABLE["E2M1"], *-TABLE["E2M1"][1:]]
    assert_same_bits(qd(codes, "mxfp4_sr:rceil"), codes)
    assert_same_bits(qd([6.0, 2.01, -0.51], "mxfp4_sr:rceil"), [6.0, 3.0, -1.0])


def test_stochastic_rounding_saturates_where_a_rule_clips():
    x = np.full((50, 32), 7.0, dtype=F32)
    counted = tally(x, "mxfp4_sr:floor", generator=seeded(1))
    assert (counted.clipped, counted.at_max, counted.sum_e) == (1600, 1600, -1600)
