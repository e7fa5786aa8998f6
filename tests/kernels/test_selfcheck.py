"""A kernel that is wrong on this machine is found before it measures anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

import srdd
from srdd import kernels
from srdd.core.formats import FORMATS, BlockFormat, Element, Scale, parse_list
from srdd.errors import BackendError
from srdd.kernels import rounding, scales, selfcheck
from srdd.kernels.backend import Backend
from srdd.kernels.engine import Engine

CPU = torch.device("cpu")
THREE = parse_list(["mxfp4,nvfp4,mxfp8"])
EAGER = Backend("eager", "asked for by name")


def _plain_mx(row: BlockFormat) -> bool:
    return row.scale is Scale.E8M0 and not row.stochastic


def _forget() -> None:
    selfcheck.tallies_differ.cache_clear()
    selfcheck.values_differ.cache_clear()


@pytest.fixture(autouse=True)
def _checks_anew() -> Iterator[None]:
    _forget()
    yield
    _forget()


@pytest.fixture
def ties_go_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rounding by floor(a + 1/2) would do: wrong for ties only."""

    def half_up(a: Tensor, element: Element) -> Tensor:
        q = _nearest(a, element)
        up = _nearest(a.nextafter(torch.tensor(torch.inf)), element)
        return torch.where(up > q, up, q)

    monkeypatch.setattr("srdd.kernels.rounding.nearest", half_up)


_nearest = rounding.nearest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_eager_kernel_of_this_machine_is_right(dtype: torch.dtype) -> None:
    drawless = tuple(row for row in FORMATS.values() if not row.stochastic)
    assert selfcheck.tallies_differ(EAGER, drawless, CPU, dtype) is None
    assert selfcheck.values_differ(EAGER, drawless, CPU, dtype) is None
    assert selfcheck.checked(EAGER, THREE, CPU, dtype).reason == "asked for by name; agrees with the reference here"


def test_wrong_ties_are_found(ties_go_up: None) -> None:
    with pytest.raises(BackendError, match=r"backend eager on cpu .* mxfp4:even \w+ .* instead of .* device=cpu"):
        selfcheck.checked(EAGER, THREE, CPU, torch.float32)
    with pytest.raises(BackendError, match=r"mxfp4:even makes -?\d\S* of -?\d\S* instead of .* device=cpu"):
        selfcheck.checked(EAGER, THREE, CPU, torch.float32, selfcheck.values_differ)


@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4", "mxfp8", "mxint8", "mxfp6_e3m2", "mxfp4_2d"])
@pytest.mark.parametrize("factor", [1 + 2.0**-23, 1 - 2.0**-24])
def test_a_division_that_misses_by_one_ulp_is_found(spec: str, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all values by the same ulp: those beside a midpoint then fall on its other side."""
    round_to = rounding.round_to
    monkeypatch.setattr("srdd.kernels.expression.round_to", lambda y, *rest: round_to(y * factor, *rest))
    for differ in (selfcheck.tallies_differ, selfcheck.values_differ):
        with pytest.raises(BackendError, match=spec):
            selfcheck.checked(EAGER, parse_list([spec]), CPU, torch.float32, differ)


@pytest.mark.parametrize("spec", [f"{r.name}:{rule}" for r in FORMATS.values() for rule in r.rules if _plain_mx(r)])
@pytest.mark.parametrize("ulps", [-1, 1])
def test_a_scale_rule_that_misses_by_one_ulp_is_found(spec: str, ulps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    e8m0_bits = scales._e8m0_bits
    monkeypatch.setattr(scales, "_e8m0_bits", lambda amax, bits, fmt: e8m0_bits(amax, bits + ulps, fmt))
    with pytest.raises(BackendError, match=spec):
        selfcheck.checked(EAGER, parse_list([spec]), CPU, torch.float32)


def test_auto_falls_back_to_eager_and_says_why() -> None:
    def fused_is_wrong(backend: Backend, *rest: Any) -> str | None:
        return "mxfp4:even n 1 instead of 2" if backend.name == "fused" else None

    taken = selfcheck.checked(Backend("fused", "pays", strict=False), THREE, CPU, torch.float32, fused_is_wrong)
    assert (taken.name, taken.strict) == ("eager", False)
    assert "n 1 instead of 2" in taken.reason
    with pytest.raises(BackendError, match="n 1 instead of 2; take backend=eager"):
        selfcheck.checked(Backend("fused", "asked for by name"), THREE, CPU, torch.float32, fused_is_wrong)


def test_what_cannot_be_compared_is_said() -> None:
    stochastic = parse_list(["mxfp4,mxfp4_sr"])
    assert selfcheck.checked(EAGER, stochastic, CPU, torch.float32).reason.endswith("stochastic rounding")
    spec = Backend("reference", "asked for by name")
    assert selfcheck.checked(spec, THREE, CPU, torch.float32) is spec


def test_a_scan_checks_first(tiny_llama: Path, ties_go_up: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_llama)
    with pytest.raises(BackendError, match="reference's numbers"):
        srdd.scan(model, sites="weight", backend="eager")
    monkeypatch.undo()
    _forget()
    assert srdd.scan(model, sites="weight").settings.backend_reason.endswith("agrees with the reference here")


@pytest.mark.filterwarnings("default")  # torch's own compiler warns
def test_the_check_compiles_nothing_that_the_scan_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading of a scan takes the very graph that was checked."""
    try:
        chosen = kernels.choose("fused")
    except BackendError as error:
        pytest.skip(str(error))
    engine = Engine(compiled=True)
    monkeypatch.setattr("srdd.kernels.backend.FUSED", engine)
    selfcheck.checked(chosen, THREE, CPU, torch.float32)
    before = set(engine._bound)
    x = torch.randn(4, 64, 96)
    kernels.measure_each(x, THREE, backend=chosen)
    kernels.measure_many(x[0], THREE, backend=chosen, global_amax=x.abs().amax())
    assert set(engine._bound) == before
