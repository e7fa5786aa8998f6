"""Survival of an adapter, by hand and at its edges."""

from __future__ import annotations

import pytest
import torch

from srdd.core.formats import parse
from srdd.documents.adapter import Survival
from srdd.models.changes import LowRank
from srdd.models.files.adapter import Adapter
from srdd.models.sites import Site
from srdd.runs.scans.survival import adapter_part


def survived(w: torch.Tensor, change: LowRank, spec: str, rows: int | None = None) -> Survival:
    """Of one weight, read in chunks of so many rows."""
    site = Site("weight", "q_proj", "q_proj", "q_proj", 0, None, "weight", numel=w.numel())
    chunks = tuple(w.split(rows or len(w)))
    part = adapter_part(
        Adapter("a", None, None, {}), "merged", [(site, change, chunks)], [parse(spec)], backend="eager"
    )
    return part.survival[0]


def test_the_worked_number() -> None:
    """W = (6, 1, 1) and D = (0, 0.1, 0.3) in mxfp4: Q(W + D) = (6, 1, 1.5)."""
    row = survived(
        torch.tensor([[6.0, 1.0, 1.0]]), LowRank(torch.tensor([[0.0, 0.05, 0.15]]), torch.tensor([[1.0]]), 2.0), "mxfp4"
    )
    assert (row.n, row.moved, row.rank) == (3, 1, 1)
    assert row.survival == pytest.approx(1.5, rel=1e-6)
    assert row.relative_error == pytest.approx(0.5**0.5, rel=1e-6)
    assert row.sum_e2_apart == 0
    assert row.sum_e2_merged == pytest.approx(0.1**2 + 0.2**2, rel=1e-6)


def test_what_lies_below_every_step_does_not_arrive() -> None:
    """Weights on the grid and a change of a thousandth of its step: nothing moves, and all of it is lost."""
    w = torch.tensor([[6.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.5, 0.0]]).repeat(4, 4)
    row = survived(w, LowRank(torch.full((1, 32), 1e-3), torch.ones(4, 1), 0.5), "mxfp4")
    assert (row.moved, row.survival, row.relative_error) == (0, 0.0, 1.0)


def test_what_is_large_arrives() -> None:
    generator = torch.Generator().manual_seed(0)
    w, a, b = (torch.randn(shape, generator=generator) for shape in ((64, 64), (4, 64), (64, 4)))
    row = survived(w, LowRank(a, b, 8.0), "mxfp8")
    assert row.survival == pytest.approx(1, abs=0.01)
    assert row.relative_error is not None
    assert row.relative_error < 0.05


@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4", "fp8", "mxfp4_sr"])
@pytest.mark.parametrize("magnitude", [None, torch.linspace(0.5, 2, 256)])
def test_chunks_change_nothing(spec: str, magnitude: torch.Tensor | None) -> None:
    generator = torch.Generator().manual_seed(0)
    w, a, b = (torch.randn(shape, generator=generator) for shape in ((256, 64), (4, 64), (256, 4)))
    change = LowRank(a, b, 0.1, magnitude)
    whole, parts = survived(w, change, spec), survived(w, change, spec, 128)
    if "_sr" in spec:  # its draws go on from chunk to chunk
        assert parts.survival == pytest.approx(whole.survival, rel=0.05)
    else:
        assert parts.moved == whole.moved
        assert parts.sum_pd == pytest.approx(whole.sum_pd, rel=1e-12)


def test_stochastic_rounding_draws_the_same_for_both() -> None:
    w = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    row = survived(w, LowRank(torch.zeros(1, 64), torch.zeros(64, 1), 1.0), "mxfp4_sr")
    assert (row.moved, row.survival) == (0, None), "an adapter of zeros moves nothing"
