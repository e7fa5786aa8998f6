"""The tally of pairs against a brute force in plain Python, value by value, and against the reference's own."""

import math

import numpy as np
import pytest
import torch

from srdd.core.blocks import EXACT, EXPONENT_OF_0, LOWEST_DB, NO_SCALE, STEP_DB
from srdd.core.contradictions import contradiction
from srdd.core.formats import parse
from srdd.core.tally import FIELDS, Tally
from srdd.kernels import reference
from srdd.kernels.pairs import measure_pairs

SPECIAL = [0.0, -0.0, 1.0, -6.0, 7.5, 1e-30, 3e38, -1e-45, 448.0, math.nan, math.inf]


def brute(x: np.ndarray, q: np.ndarray, scale: np.ndarray, width: int, largest: float, held: float) -> Tally:
    """Every field by its definition, in Python floats."""
    sums = dict.fromkeys(Tally.__dataclass_fields__, 0.0)
    del sums["blocks"]
    sqnr: dict[int, int] = {}
    scales: dict[int, int] = {}
    worst, number = (0.0, 0), 0
    for row in range(x.shape[0]):
        for first in range(0, x.shape[1], width):
            cut = slice(first, first + width)
            pairs = [*zip(map(float, x[row, cut]), map(float, q[row, cut]), map(float, scale[row, cut]), strict=True)]
            signal = noise = 0.0
            if not all(math.isfinite(a) and math.isfinite(b) for a, b, _ in pairs):
                sums["nonfinite"] += sum(not (math.isfinite(a) and math.isfinite(b)) for a, b, _ in pairs)
                sums["excluded"] += len(pairs)
                number += 1
                continue
            for a, b, s in pairs:
                e, limit = b - a, float(np.float32(largest) * np.float32(abs(s)))
                sums["n"] += 1
                sums["nonzero"] += a != 0
                sums["deadzone"] += a != 0 and b == 0
                clipped = limit > 0 and abs(a) > float(np.float32(limit) * np.float32(held))
                sums["clipped"] += clipped
                sums["at_max"] += limit > 0 and abs(b) == limit
                sums["zero_scale"] += limit == 0 and a != 0
                for name, term in {
                    "sum_x": a, "sum_x2": a * a, "sum_x4": a**4 if abs(a) < 1e70 else math.inf, "sum_e": e,
                    "sum_e2": e * e, "sum_e2_clipped": e * e * clipped, "sum_e2_deadzone": e * e * (a != 0 and b == 0),
                    "sum_abs_x": abs(a), "sum_abs_e": abs(e), "sum_rel": abs(e) / abs(a) if a else 0.0,
                    "sum_q2": b * b, "sum_xq": a * b,
                }.items():  # fmt: skip
                    sums[name] += term
                sums["max_abs_x"], sums["max_abs_e"] = max(sums["max_abs_x"], abs(a)), max(sums["max_abs_e"], abs(e))
                signal, noise = signal + a * a, noise + e * e
            if signal > 0:
                db = 10 * math.log10(signal / noise) if noise else math.inf
                at = EXACT if db == math.inf else min(max(math.floor((db - LOWEST_DB) / STEP_DB), 0), EXACT)
                sqnr[at] = sqnr.get(at, 0) + 1
                s = abs(pairs[0][2])
                at = math.frexp(s)[1] - 1 + EXPONENT_OF_0 if s else NO_SCALE
                scales[at] = scales.get(at, 0) + 1
            if noise > worst[0]:
                worst = noise, number
            number += 1
    found = Tally(**sums)
    counted = measure_counts(sqnr), measure_counts(scales), worst
    object.__setattr__(found, "expected", counted)
    return found


def measure_counts(bins: dict[int, int]) -> tuple[float, ...]:
    if not bins:
        return ()
    return (float(min(bins)), *(float(bins.get(at, 0)) for at in range(min(bins), max(bins) + 1)))


def codes(generator: np.random.Generator, shape: tuple[int, int], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Random codes of E2M1 under random scales of blocks, some of them 0."""
    grid = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    blocks = -(-shape[1] // width)
    scale = np.exp2(generator.integers(-6, 3, (shape[0], blocks))).astype(np.float32)
    scale[generator.random(scale.shape) < 0.1] = 0
    scale = scale.repeat(width, 1)[:, : shape[1]]
    return generator.choice(grid, shape) * generator.choice([-1, 1], shape).astype(np.float32) * scale, scale


@pytest.mark.parametrize("shape", [(1, 1), (3, 32), (7, 50), (129, 96), (300, 1000), (0, 32)])
@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4", "fp8_channel"])
@pytest.mark.parametrize("special", [False, True])
def test_every_field_by_its_definition(shape: tuple[int, int], spec: str, special: bool) -> None:
    generator, fmt = np.random.default_rng(sum(shape)), parse(spec)
    width = fmt.block[1]
    x = generator.standard_normal(shape).astype(np.float32)
    x[generator.random(shape) < 0.1] = 0
    q, scale = codes(generator, shape, width)
    if special:
        where = generator.random(shape) < 0.02
        x[where] = generator.choice(SPECIAL, shape)[where]
        where = generator.random(shape) < 0.005
        q[where] = generator.choice([math.nan, math.inf], shape)[where]
    held = 1 + 2.0**-22 if spec == "fp8_channel" else 1.0
    with np.errstate(over="ignore"):
        expected = brute(x, q, scale, width, 6.0, held)
    vector = measure_pairs(*map(torch.from_numpy, (x, q, scale)), fmt, 6.0)
    found = Tally.from_vector(vector.tolist())
    for name in Tally.__dataclass_fields__:
        if name != "blocks":
            a, b = getattr(found, name), getattr(expected, name)
            whole = name in ("n", "nonzero", "deadzone", "clipped", "at_max", "nonfinite", "excluded", "zero_scale")
            assert a == b if whole else a == pytest.approx(b, rel=1e-12, abs=1e-300), name
    sqnr, scales, worst = expected.expected  # type: ignore[attr-defined]
    assert found.blocks.sqnr == sqnr
    assert found.blocks.scales == scales
    if worst[0]:
        assert found.blocks.worst == pytest.approx(worst, rel=1e-12)
    assert contradiction(vector.tolist(), codes=True) is None


@pytest.mark.parametrize("spec", ["mxfp4", "mxfp4:floor", "nvfp4", "mxfp6_e3m2", "mxfp8", "mxfp8_e5m2"])
def test_rounded_values_have_the_tally_of_rounding(spec: str) -> None:
    """q and scales of the reference's own blocks: the same counts, the same sums."""
    fmt = parse(spec)
    x = torch.randn(40, 3 * fmt.block[1], generator=torch.Generator().manual_seed(1)) * 3
    blocks = reference._quantize(x, fmt, None, None)
    q, scale = (reference._from_blocks(t.expand_as(blocks.q).contiguous(), x.shape, fmt.block) for t in (blocks.q, blocks.scale))  # fmt: skip # noqa: E501
    ours = measure_pairs(x, q.float(), scale.float(), fmt, fmt.element.max)
    theirs = reference.measure(x, fmt)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_the_worked_number() -> None:
    x, q = torch.tensor([[7.0, -1.0, 0.1, 0.0]]), torch.tensor([[6.0, -1.0, 0.0, 0.0]])
    found = Tally.from_vector(measure_pairs(x, q, torch.ones(1, 4), parse("mxfp4"), 6.0).tolist())
    assert (found.clipped, found.at_max, found.deadzone, found.n) == (1, 1, 1, 4)
    assert found.sum_e2 == pytest.approx(1.01)


def test_codes_may_be_any() -> None:
    """The sign turned, an error where x is zero, a clipped value that is not at the maximum: true, and not refused."""
    x, q = torch.tensor([[1.0, -2.0, 0.0, 9.0]]), torch.tensor([[-6.0, 2.0, 3.0, 0.0]])
    vector = measure_pairs(x, q, torch.ones(1, 4), parse("mxfp4"), 6.0).tolist()
    assert contradiction(vector, codes=True) is None
    assert contradiction(vector) is not None
    assert Tally.from_vector(vector).sum_xq == -10.0
    for name, change in {"sum_e2": -1.0, "deadzone": 5.0, "n": 2.0, "sum_q2": 1e9}.items():
        changed = [change if field == name else value for field, value in zip(FIELDS, vector, strict=False)]
        assert contradiction(changed, codes=True) is not None, name
