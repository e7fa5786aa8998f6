"""Everything runs where the model is, on a device that has no float64 and shares no memory with the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from builders import make_rin
from kernel_cases import CASES, check_equal, check_sums, check_tally
from other_device import NAME, OtherDevice, move
from transformers import LlamaForCausalLM

import srdd
from srdd import kernels
from srdd.core.formats import FORMATS
from srdd.documents.rin import Schedule
from srdd.errors import BackendError
from srdd.kernels import precision
from srdd.noise import Injector
from srdd.runs.experiments.aqn import run_aqn
from srdd.runs.experiments.probe import measure_probe
from srdd.runs.impact.run import measure_impact

DRAWLESS = [row.name for row in FORMATS.values() if not row.stochastic]
IDS = torch.randint(0, 64, (2, 32), generator=torch.Generator().manual_seed(0))


def _open(folder: Path) -> LlamaForCausalLM:
    """With one kind of attention: torch has another for each device, and they differ in the last bits."""
    return LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def llama(tiny_llama: Path) -> LlamaForCausalLM:
    return _open(tiny_llama)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    monkeypatch.setattr(precision, "LACKING", frozenset({NAME}))
    with OtherDevice() as device:
        yield device


@pytest.fixture
def moved(tiny_llama: Path, device: torch.device) -> LlamaForCausalLM:
    return move(_open(tiny_llama), device)


def test_the_device_refuses_what_a_gpu_would(device: torch.device) -> None:
    x = torch.ones(4, device=device)
    assert x.device.type == NAME
    with pytest.raises(RuntimeError, match="found one on cpu"):
        x + torch.ones(4)
    with pytest.raises(TypeError, match="no float64"):
        x.double()
    assert (x + torch.tensor(1.0)).cpu().tolist() == [2.0] * 4


@pytest.mark.parametrize("case", ["bf16_patterns", "midpoints", "ragged_bad", "bad_blocks", "empty", "scalar"])
def test_kernels_stay_on_the_device(case: str, device: torch.device) -> None:
    x = CASES[case]
    for name in DRAWLESS:
        got = kernels.quant_dequant(x.to(device), name, backend="eager")
        assert got.device.type == NAME
        check_equal(x, kernels.quant_dequant(x, name, backend="eager"), got.cpu(), name)
    tallies = kernels.measure_many(x.to(device), DRAWLESS, backend="eager")
    assert tallies.device.type == "cpu"
    for name, row in zip(DRAWLESS, tallies, strict=True):
        check_tally(kernels.measure(x, name, backend="reference"), row, name)


def test_the_reference_says_that_it_needs_float64(device: torch.device) -> None:
    with pytest.raises(BackendError, match="float64, which elsewhere has not; take backend=eager"):
        kernels.measure(torch.ones(32, device=device), "mxfp4", backend="reference")


def test_a_scan_gives_the_numbers_of_the_cpu(llama: LlamaForCausalLM, moved: LlamaForCausalLM) -> None:
    here, there = (srdd.scan(model, IDS, formats="mxfp4,nvfp4") for model in (llama, moved))
    assert (here.settings.device, there.settings.device) == ("cpu", NAME)
    assert here.coverage == there.coverage
    for a, b in zip(here.sites, there.sites, strict=True):
        assert a.name == b.name
        for spec, row in a.formats.items():
            want, got = (torch.tensor(r.tally, dtype=torch.float64) for r in (row, b.formats[spec]))
            check_sums(want, got, f"{a.name} {spec}")
            assert row.blocks[:2] == b.formats[spec].blocks[:2]


def test_costs_are_measured_on_the_device(llama: LlamaForCausalLM, moved: LlamaForCausalLM) -> None:
    here, there = (measure_impact(m, IDS, "mxfp4", how=("layers",), noise=True).costs for m in (llama, moved))
    assert here is not None
    assert there is not None
    assert [row.kl.value for row in there.whole] == pytest.approx([row.kl.value for row in here.whole], rel=1e-5)
    assert [row.measured_kl.value for row in there.layers] == pytest.approx(
        [row.measured_kl.value for row in here.layers], rel=1e-5
    )


@pytest.mark.parametrize("relative", [False, True])
def test_noise_arrives_on_the_device(relative: bool, llama: LlamaForCausalLM, moved: LlamaForCausalLM) -> None:
    config = make_rin({0: 1.0, 1: 0.5, 2: 2.0}, relative=relative)
    stds = []
    for model in (llama, moved):
        with Injector(model, config, seed=1, evaluation="allow").applied(5, 10) as injection:
            stds.append([weight.std for weight in injection.touched])
    assert stds[1] == pytest.approx(stds[0], rel=1e-6)


def test_probe_and_experiment_run_on_the_device(moved: LlamaForCausalLM) -> None:
    probe = measure_probe(moved, IDS, "mxfp4", "w16a16,w4a4", sigmas=[0.1], seeds=(0,))
    schedule = Schedule(sigma_start=0.05, sigma_end=0.01, num_stages=4)
    experiment = run_aqn(
        moved, IDS, "mxfp4", [1.0, 2.0, 3.0], ranked_by="x", schedule=schedule, seeds=(0, 1), samples=1
    )
    assert probe.settings.device == experiment.settings.device == NAME


def test_nothing_widens_past_float64() -> None:
    """Backward cannot run here, so its code is read: `.double()` fails on MPS, `to_float64` does not."""
    package = Path(srdd.__file__).parent
    wide = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if ".double()" in path.read_text()}
    assert wide == {"kernels/precision.py", "kernels/reference.py"}
