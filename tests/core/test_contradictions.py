"""Tallies that lie are found, and no tally of any backend, format and tensor is called a liar."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import CASES, SPECS

from srdd import kernels
from srdd.core.contradictions import INVARIANTS, contradiction
from srdd.core.formats import parse
from srdd.core.tally import FIELDS, Tally
from srdd.core.uncertainty import total

TRUE = Tally.from_vector(kernels.measure(torch.randn(64, 64), "mxfp4:floor", backend="reference").tolist())


def _hard() -> dict[str, torch.Tensor]:
    """What is large beside what is small, from float32's least to its largest, equal values, and every bit pattern."""
    g = torch.Generator().manual_seed(5)
    cases: dict[str, torch.Tensor] = {}
    for size in (1e-45, 1e-38, 1e-30, 1.0, 1e10, 1e30, 3e38):
        cases[f"normal {size:g}"] = torch.randn(40, 96, generator=g).clamp(-4, 4) / 4 * size
        cases[f"all {size:g}"] = torch.full((50, 70), size)
        for among in (1e-3, 1e-45):
            cases[f"{size:g} among {among:g}"] = torch.full((33, 64), among)
            cases[f"{size:g} among {among:g}"][3, 7] = size
    for huge, tiny in ((2.0**127, 1e-8), (2.0**40, 1e-11), (1.0, 2.0**-80), (2.0**17, 2.0**-133)):
        cases[f"{huge:g} on the grid, {tiny:g} below it"] = torch.full((4, 32), tiny)
        cases[f"{huge:g} on the grid, {tiny:g} below it"][:, 0] = huge
    cases["heavy tails"] = torch.randn(300, 64, generator=g) / torch.randn(300, 64, generator=g)
    cases["log-normal"] = torch.exp((torch.randn(300, 64, generator=g) * 20).clamp(-85, 85))
    cases["on the grid"] = torch.randint(-6, 7, (64, 64), generator=g).float()
    cases["sparse"] = torch.randn(64, 64, generator=g) * (torch.rand(64, 64, generator=g) < 0.01)
    cases["NaN alone"] = torch.full((4, 40), math.nan)
    cases["bits"] = torch.randint(-(2**31), 2**31 - 1, (500, 64), generator=g).to(torch.int32).view(torch.float32)
    return cases


HARD = CASES | _hard()


def broken_by(changes: dict[str, float], tally: Tally = TRUE, stochastic: bool = False) -> str:
    values = dict(zip(FIELDS, tally.vector(), strict=True)) | changes
    found = contradiction([values[name] for name in FIELDS], stochastic=stochastic)
    return "" if found is None else found.said


# --- none of the true ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_true_tally_is_refused(backend: str, dtype: torch.dtype) -> None:
    merged: dict[str, list[Tally]] = {spec: [] for spec in SPECS}
    for name, x in HARD.items():
        generator = torch.Generator().manual_seed(3)
        rows = kernels.measure_many(x.to(dtype), SPECS, generator=generator, backend=backend).tolist()
        for spec, sums in zip(SPECS, rows, strict=True):
            if all(map(math.isfinite, sums)):  # nvfp4 may pass float32's largest number; no report holds that
                assert contradiction(sums, stochastic=parse(spec).stochastic) is None, (name, spec)
                merged[spec].append(Tally.from_vector(sums))
    for spec, tallies in merged.items():
        for some in (tallies, tallies[::2], tallies[::-3]):
            assert contradiction(total(some).vector(), stochastic=parse(spec).stochastic) is None, spec


@pytest.mark.filterwarnings("default")  # torch's own compiler warns
def test_no_tally_of_the_compiled_kernel_is_refused() -> None:
    specs = ("mxfp4:even", "mxint8:floor")
    for name, x in HARD.items():
        for spec, sums in zip(specs, kernels.measure_many(x, specs, backend="fused").tolist(), strict=True):
            assert contradiction(sums) is None, (name, spec)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=80),
    st.sampled_from(SPECS),
    st.sampled_from(["reference", "eager"]),
)
def test_no_small_tensor_is_refused(values: list[float], spec: str, backend: str) -> None:
    sums = kernels.measure(torch.tensor(values), spec, generator=torch.Generator().manual_seed(1), backend=backend)
    if sums.isfinite().all():
        assert contradiction(sums.tolist(), stochastic=parse(spec).stochastic) is None


def test_nothing_measured_is_no_lie() -> None:
    assert contradiction(Tally().vector()) is None
    assert contradiction(Tally(n=8).vector()) is None
    assert contradiction(Tally(nonfinite=1, excluded=32).vector()) is None


# --- all of the false ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -1e6, 1e300])
def test_no_sum_is_infinite_negative_or_beyond_the_others(field: str, value: float) -> None:
    signed = field in ("sum_x", "sum_e")
    assert broken_by({field: value}), (field, signed)


@pytest.mark.parametrize("field", [name for name in FIELDS if name not in ("sum_x", "sum_e")])
def test_a_negative_sum_is_called_so(field: str) -> None:
    """By its own name, also where other lines would find it."""
    assert broken_by({field: -1.0}) == f"{field} is negative"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n": TRUE.n + 0.5}, "a count is no whole number"),
        ({"nonzero": TRUE.n + 1}, "more values are not zero than there are"),
        (
            {"deadzone": TRUE.nonzero, "sum_rel": TRUE.nonzero}
            | dict.fromkeys(("at_max", "clipped", "sum_e2_clipped"), 0),
            "the noise power of what",
        ),
    ],
)  # fmt: skip
def test_a_lie_is_named(changes: dict[str, float], said: str) -> None:
    assert broken_by(changes).startswith(said)


def test_an_exact_copy_has_no_deadzone() -> None:
    """Every error taken away, and the rest made to agree: what became zero still tells."""
    exact = dict.fromkeys(("sum_e", "sum_e2", "sum_e2_clipped", "sum_e2_deadzone", "sum_abs_e", "max_abs_e"), 0.0)
    exact |= {"sum_q2": TRUE.sum_x2, "sum_xq": TRUE.sum_x2}
    assert "no error" in broken_by(exact)
    assert "no error" in broken_by(exact | {"sum_rel": TRUE.deadzone})
    assert "nothing has an error" in broken_by(exact | {"sum_rel": 0, "deadzone": 0})
    assert broken_by(exact | {"sum_rel": 0, "deadzone": 0, "clipped": 0}) == ""


def test_stochastic_rounding_alone_may_double_a_value() -> None:
    """0.3 of a step that went up to 1: an error of 0.7, larger than the value."""
    up = Tally(
        n=1, nonzero=1, sum_x=0.3, sum_x2=0.09, sum_x4=0.0081, sum_e=0.7, sum_e2=0.49, sum_abs_x=0.3, sum_abs_e=0.7,
        sum_rel=7 / 3, sum_q2=1, sum_xq=0.3, max_abs_x=0.3, max_abs_e=0.7,
    )  # fmt: skip
    assert broken_by({}, up, stochastic=True) == ""
    assert broken_by({}, up) == "relative errors are beyond 1"


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1e3, 1e9]), min_size=1))
def test_lines_that_follow_find_nothing_of_their_own(changes: dict[str, float]) -> None:
    """They are left out of the fast check: what breaks one of them must break another."""
    values = dict(zip(FIELDS, TRUE.vector(), strict=True)) | changes
    names = {"near": 1 + 2.0**-15, "tiny": 2.0**-126}
    follows = [line.formula for line in INVARIANTS if line.follows]
    if not all(eval(formula, dict(names), values) for formula in follows):
        assert broken_by(changes)
