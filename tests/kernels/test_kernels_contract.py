"""What the kernel refuses, and how the backend is chosen."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from srdd import kernels
from srdd.core.tally import IS_MAX, WIDTH, Tally
from srdd.errors import BackendError, FormatError, TensorError
from srdd.kernels import backend, engine


@pytest.fixture(autouse=True)
def _no_fallback_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_fallback", [])


@pytest.fixture
def failing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.exc import CppCompileError

    def fail(self: engine.Engine, expression: engine.Expression, *args: object) -> object:
        if self.compiled:
            raise CppCompileError(["g++", "x.cpp"], "cannot execute cc1plus")
        return eager_call(self, expression, *args)

    eager_call = engine.Engine.call
    monkeypatch.setattr(engine.Engine, "call", fail)
    monkeypatch.setattr(backend, "_missing", lambda device: None)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool, torch.complex64], ids=str)
def test_only_real_floats_are_taken(dtype: torch.dtype) -> None:
    x = torch.ones(32, dtype=dtype)
    for call in (kernels.measure, kernels.quant_dequant):
        with pytest.raises(TensorError, match=str(dtype)):
            call(x, "mxfp4")


def test_stochastic_rounding_needs_a_generator() -> None:
    with pytest.raises(TensorError, match=r"mxfp4_sr.*generator"):
        kernels.measure(torch.ones(32), "mxfp4_sr")


def test_the_generator_must_live_with_the_tensor() -> None:
    with pytest.raises(TensorError, match="generator is on cpu, the tensor on meta"):
        kernels.measure(torch.ones(32, device="meta"), "mxfp4_sr", generator=torch.Generator())


@pytest.mark.parametrize("amax", [float("inf"), float("nan"), -1.0, 1e39, torch.tensor(torch.inf)])
def test_a_scale_is_made_of_a_finite_magnitude(amax: torch.Tensor | float) -> None:
    for call in (kernels.measure, kernels.quant_dequant):
        with pytest.raises(TensorError, match=r"global_amax (inf|nan|-1|1e\+39): expected a magnitude"):
            call(torch.ones(32), "nvfp4", global_amax=amax)


@pytest.mark.parametrize("backend", ["eager", "reference"])
def test_a_batch_of_nothing(backend: str) -> None:
    assert kernels.measure_each(torch.zeros(0, 4, 32), ["mxfp4"], backend=backend).shape == (0, 1, WIDTH)
    assert kernels.measure_each(torch.zeros(3, 4, 32), [], backend=backend).shape == (3, 0, WIDTH)
    with pytest.raises(TensorError, match="a stack of tensors"):
        kernels.measure_each(torch.tensor(1.0), ["mxfp4"], backend=backend)


def test_every_failure_of_the_compiler_is_known_as_one() -> None:
    from torch._dynamo.exc import FailOnRecompileLimitHit, Unsupported
    from torch._inductor.exc import CppCompileError

    for error in (FailOnRecompileLimitHit("limit"), Unsupported("op", "gb"), CppCompileError(["g++"], "no")):
        assert engine.is_compile_error(error)
    of_triton = type("OutOfResources", (Exception,), {"__module__": "triton.runtime.errors"})
    assert engine.is_compile_error(of_triton())
    assert not engine.is_compile_error(RuntimeError("of the arithmetic"))


def test_triton_is_told_not_to_fuse_multiplications_into_additions() -> None:
    """On a GPU q - x of a value on nvfp4's grid would else leave the rounding of q, where the error is zero."""
    from torch._inductor import config
    from torch._inductor.codegen.triton import TritonKernel

    assert TritonKernel.triton_meta_common()["enable_fp_fusion"]
    with config.patch(engine._options()):
        told = TritonKernel.triton_meta_common()
    assert not told["enable_fp_fusion"]
    assert told["disable_ftz"]


def test_unknown_format() -> None:
    with pytest.raises(FormatError, match="mxfp5"):
        kernels.measure(torch.ones(32), "mxfp5")


def test_no_formats_is_an_empty_answer() -> None:
    assert kernels.measure_many(torch.ones(32), ()).shape == (0, WIDTH)


def test_the_input_is_left_alone() -> None:
    x = torch.randn(4, 64)
    copy = x.clone()
    kernels.quant_dequant(x, "nvfp4", backend="eager")
    assert torch.equal(x, copy)


def test_merge_adds_sums_and_keeps_the_larger_maximum() -> None:
    a, b = (torch.arange(WIDTH, dtype=torch.float64) * k for k in (1, 2))
    merged = kernels.merge(a, b)
    assert Tally.from_vector(merged.tolist()) == Tally.from_vector(a.tolist()) + Tally.from_vector(b.tolist())
    assert merged[-2:].tolist() == b[-2:].tolist()  # the worst block is the noisier one: not a sum
    assert kernels.merge(torch.stack([a, b]), torch.stack([b, a])).tolist() == [merged.tolist()] * 2
    assert sum(IS_MAX) == 2


def test_unknown_backend_names_those_that_exist() -> None:
    with pytest.raises(BackendError, match=r"fast.*reference, eager, fused"):
        kernels.choose("fast")


def test_fused_by_name_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendError, match=r"no C\+\+ compiler.*no-such-compiler.*install"):
        kernels.choose("fused")


def test_auto_without_a_compiler_is_eager_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    backend = kernels.choose("auto", elements=10**12, formats=("mxfp4",))
    assert backend.name == "eager"
    assert "no C++ compiler" in backend.reason


def test_auto_weighs_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_missing", lambda device: None)
    assert kernels.choose("auto", elements=10**5, formats=("mxfp4",)).name == "eager"
    assert kernels.choose("auto").name == "eager"
    for formats in (("mxfp4",), ("mxfp4", "nvfp4", "mxfp8")):  # every format compiled must be repaid too
        for device, repays in backend.REPAYS.items():
            enough = repays * (1 + len(formats)) // len(formats) + 1
            assert kernels.choose("auto", elements=enough - 2, formats=formats, device=device).name == "eager"
            assert kernels.choose("auto", elements=enough, formats=formats, device=device).name == "fused"
    assert backend.REPAYS["cuda"] > backend.REPAYS["cpu"]  # a GPU runs the eager kernel a hundred times as fast


def test_a_backend_is_a_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        kernels.choose("eager").name = "fused"  # type: ignore[misc]


@pytest.mark.usefixtures("failing_compiler")
def test_by_name_a_failing_compilation_is_an_error() -> None:
    with pytest.raises(BackendError, match="cc1plus"):
        kernels.measure(torch.ones(32), "mxfp4", backend="fused")
    assert kernels.fallback_reason() is None


@pytest.mark.usefixtures("failing_compiler")
def test_under_auto_a_failing_compilation_falls_back_once_and_is_recorded() -> None:
    chosen = kernels.choose("auto", elements=10**12, formats=("mxfp4",))
    assert chosen.name == "fused"
    x = torch.randn(4, 64)
    want = kernels.measure(x, "mxfp4_sr", generator=torch.Generator().manual_seed(1), backend="eager")
    got = kernels.measure(x, "mxfp4_sr", generator=torch.Generator().manual_seed(1), backend=chosen)
    assert torch.equal(want, got)
    assert "cc1plus" in (kernels.fallback_reason() or "")
    again = kernels.choose("auto", elements=10**12, formats=("mxfp4",))
    assert again.name == "eager"
    assert "cc1plus" in again.reason
