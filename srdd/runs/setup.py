"""What a report says of a run besides numbers: who the model is, which tokens it saw, which kernel ran, when.

Not here: measuring (scanner.py, impact/). Worked number: two sequences of 512 tokens are identified by two hashes of 16
hexadecimal digits; the same sequence twice is refused.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

from srdd import kernels
from srdd.documents.schema import Calibration, Model
from srdd.errors import CalibrationError
from srdd.kernels.backend import Backend
from srdd.models.modules import require_module
from srdd.models.sites import SiteMap
from srdd.runs.calibration import Sequences

# (stage, done, total) after every step of it; stages are "weights" (in values) and "activations" (in tokens)
Progress = Callable[[str, int, int], None]


def identify(model: nn.Module, found: SiteMap) -> Model:
    """Who a model in memory is, as far as it can tell: no hash, since there is no file."""
    config = getattr(model, "config", None)
    name = str(getattr(config, "_name_or_path", "") or type(model).__name__)
    return Model(
        id=name.rstrip("/").rsplit("/", 1)[-1] if name.startswith(("/", ".")) else name,
        architecture=type(model).__name__,
        layer_count=found.layer_count,
        parameter_count=found.parameters,
        dtype=str(next((p.dtype for p in model.parameters()), "none")).removeprefix("torch."),
    )


def token_ids_of(sequences: Tensor | Sequences | None, model: nn.Module) -> tuple[Tensor, Calibration]:
    """Token ids [count, length] and what the report says of them. Raises CalibrationError, also for ids that the model
    has no embedding of: on a GPU such an id ends every later use of the device.
    """
    require_module(model)
    if sequences is None:
        raise CalibrationError("activations need token ids: pass sequences [count, length], or sites='weight'")
    if not isinstance(sequences, Tensor | Sequences):
        raise CalibrationError(
            f"expected token ids as a torch tensor [count, length], found {type(sequences).__name__}; convert them, "
            "e.g. torch.tensor(rows), or tokenizer(texts, return_tensors='pt').input_ids without padding"
        )
    ids = sequences if isinstance(sequences, Tensor) else sequences.token_ids
    if ids.dim() != 2 or ids.dtype not in (torch.int64, torch.int32) or ids.numel() == 0:
        raise CalibrationError(f"expected token ids as integers [count, length], found {ids.dtype} {tuple(ids.shape)}")
    known = _vocabulary(model)
    if known is not None and not 0 <= int(ids.min()) <= int(ids.max()) < known:
        raise CalibrationError(
            f"found token ids {int(ids.min())} to {int(ids.max())}, this model has 0 to {known - 1}; "
            "use its own tokenizer"
        )
    hashes = [hashlib.sha256(row.to(torch.int64).numpy().tobytes()).hexdigest()[:16] for row in ids.cpu()]
    if len(set(hashes)) != len(hashes):
        raise CalibrationError("a calibration sequence occurs twice; its weight and the standard errors would be wrong")
    if isinstance(sequences, Tensor):
        return ids, Calibration(source="token ids given", seq_len=ids.shape[1], sequence_hashes=hashes)
    return ids, Calibration(
        source=sequences.source,
        data_sha256=sequences.data_sha256,
        seq_len=ids.shape[1],
        sequence_hashes=hashes,
        dropped=sequences.dropped,
        seed=sequences.seed,
    )


def _vocabulary(model: nn.Module) -> int | None:
    """How many token ids the model has embeddings for; None when it does not tell."""
    find = getattr(model, "get_input_embeddings", None)
    try:
        table = find() if callable(find) else None
    except NotImplementedError:  # transformers' answer where there is none
        return None
    count = getattr(table, "num_embeddings", None)
    return count if isinstance(count, int) else None


def used(chosen: Backend) -> tuple[str, str]:
    """The backend that really ran: `auto` falls back to eager when compilation fails on the way."""
    failed = kernels.fallback_reason()
    if chosen.name == "fused" and failed:
        return "eager", failed
    return chosen.name, chosen.reason


def device_name(device: torch.device) -> str:
    """The kind of device, "cpu", or which GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    """Of what the numbers may depend on."""
    versions = {"python": platform.python_version()}
    for package in ("srdd", "torch", "transformers", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def provenance(started: float) -> dict[str, str | float | None]:
    """When and how long; `started` is a reading of time.monotonic."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 2),
    }


def _silent(stage: str, done: int, total: int) -> None:
    """No progress."""
