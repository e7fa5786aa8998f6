"""Opens a run: who the model is, where it computes, its sites, its tokens and its kernel, all checked, in one place.

Not here: opening models and texts (srdd.models.source, calibration.py), and measuring.

    run = open_loss_run(model, sequences, formats, backend=backend, identity=identity)
    ...
    Probe(model=run.identity, settings=ProbeSettings(..., **run.settings()), provenance=run.provenance())
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from srdd import kernels
from srdd.core.files import readable
from srdd.core.formats import BlockFormat
from srdd.documents.parts import Calibration, Model
from srdd.errors import CalibrationError
from srdd.kernels.backend import Backend
from srdd.kernels.selfcheck import Find, checked, tallies_differ, values_differ
from srdd.models.placement import device_of, dtype_of, refuse_nonfinite
from srdd.models.sites import SiteMap, find_sites
from srdd.models.wrapped import bare
from srdd.runs.calibration import Sequences
from srdd.runs.token_ids import token_ids_of

# (stage, done, total) after every step of a stage, e.g. "weights" (in values) or "activations" (in tokens)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Run:
    """What a run works on, and what its document says of it besides numbers."""

    identity: Model
    sites: SiteMap
    token_ids: Tensor  # [count, length]; empty when only weights are measured
    calibration: Calibration | None  # None then
    device: torch.device
    dtype: str
    backend: Backend
    started: float  # a reading of time.monotonic

    def settings(self) -> dict[str, Any]:
        """The fields that the settings of every document have."""
        return {
            "calibration": self.calibration,
            "device": self.device.type,
            "dtype": self.dtype,
            "backend": backend_used(self.backend)[0],
            "versions": versions(),
        }

    def provenance(self) -> dict[str, str | float | None]:
        """When, and how long it took until now."""
        return {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.started, 2),
        }


def open_run(
    model: nn.Module,
    sequences: Tensor | Sequences | None,
    formats: Sequence[BlockFormat],
    sites: SiteMap,
    *,
    elements: Callable[[int], int],
    backend: str = "auto",
    identity: Model | None = None,
) -> Run:
    """A run that measures tensors at `sites`; `elements` tells from the tokens how many values the kernel will see.

    Token ids are needed unless all sites are weights. Raises CalibrationError, BackendError.
    """
    started = time.monotonic()
    token_ids, calibration = torch.empty(0, 0, dtype=torch.int64, device="cpu"), None
    if any(site.kind != "weight" for site in sites.sites):
        token_ids, calibration = token_ids_of(sequences, model)
    kernel = kernel_for(backend, formats, elements(token_ids.numel()), device_of(model), dtype_of(model))
    return _opened(model, sites, token_ids, calibration, kernel, identity, started)


def open_loss_run(
    model: nn.Module,
    sequences: Tensor | Sequences,
    formats: Sequence[BlockFormat],
    *,
    repeats: int | None = None,
    backend: str = "auto",
    identity: Model | None = None,
) -> Run:
    """A run that measures losses of a quantized model; weights are quantized `repeats` times (None: once a sequence).

    Raises CalibrationError, SourceError for weights that are not finite, SiteError without Linears, BackendError.
    """
    started = time.monotonic()
    token_ids, calibration = token_ids_of(sequences, model)
    if token_ids.shape[1] < 2:
        raise CalibrationError(
            f"sequences of {token_ids.shape[1]} token(s) predict nothing; expected at least 2 tokens"
        )
    refuse_nonfinite(model)
    sites = find_sites(model, ("weight", "input"))
    work = sum(site.numel for site in sites.of("weight")) * (len(token_ids) if repeats is None else repeats)
    kernel = kernel_for(backend, formats, work, device_of(model), dtype_of(model), values_differ)
    return _opened(model, sites, token_ids, calibration, kernel, identity, started)


def kernel_for(
    backend: str,
    formats: Sequence[BlockFormat],
    elements: int,
    device: torch.device,
    dtype: torch.dtype,
    differ: Find = tallies_differ,
) -> Backend:
    """The kernel that will run, compared with the reference on this device. Raises BackendError."""
    chosen = kernels.choose(backend, elements=elements, formats=formats, device=device)
    return checked(chosen, formats, device, dtype, differ)


def backend_used(chosen: Backend) -> tuple[str, str]:
    """The backend that really ran, and why: `auto` falls back to eager when compilation fails on the way."""
    failed = kernels.fallback_reason()
    if chosen.name == "fused" and failed:
        return "eager", failed
    return chosen.name, chosen.reason


def identify(model: nn.Module, sites: SiteMap) -> Model:
    """Who a model in memory is, as far as it can tell: no hash, since there is no file."""
    config = getattr(model, "config", None)
    name = str(getattr(config, "_name_or_path", "") or type(model).__name__)
    first = next(model.parameters(), None)
    return Model(
        id=readable(name.rstrip("/").rsplit("/", 1)[-1] if name.startswith(("/", ".")) else name),
        architecture=type(bare(model)).__name__,
        layer_count=sites.layer_count,
        parameter_count=sites.parameters - sites.beside,
        dtype="none" if first is None else _name(first.dtype),
    )


def versions() -> dict[str, str]:
    """Of everything that the numbers may depend on."""
    versions = {"python": platform.python_version()}
    for package in ("srdd", "torch", "transformers", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def part_of(progress: Progress, part: int, parts: int) -> Progress:
    """The progress of one of several equal parts, as that of the whole."""
    return lambda stage, done, total: progress(stage, part * total + done, parts * total)


def silent(stage: str, done: int, total: int) -> None:
    """No progress is shown."""


def _opened(
    model: nn.Module,
    sites: SiteMap,
    token_ids: Tensor,
    calibration: Calibration | None,
    kernel: Backend,
    identity: Model | None,
    started: float,
) -> Run:
    return Run(
        identity=identity or identify(model, sites),
        sites=sites,
        token_ids=token_ids,
        calibration=calibration,
        device=device_of(model),
        dtype=_name(dtype_of(model)),
        backend=kernel,
        started=started,
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
