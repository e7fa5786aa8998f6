"""What the commands that run a model on text share: checking options, opening it, and the sequences it runs on.

Not here: the scan's own steps, which may need neither (scan_steps.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from rich.console import Console

    from srdd.models.source import OpenModel
    from srdd.runs.calibration import Sequences


def open_with_text(
    out: Console,
    model: str,
    data: Path | None,
    *,
    text_column: str | None,
    samples: int,
    seq_len: int,
    batch_size: int,
    seed: int,
    backend: str,
    **opening: Any,
) -> tuple[OpenModel, Sequences]:
    """The model and its sequences; `opening` goes to open_model. Raises SourceError, CalibrationError, OptionError."""
    from rich.markup import escape

    from srdd.models.source import open_model
    from srdd.runs import calibration

    check_options(
        data,
        text_column=text_column,
        samples=samples,
        seq_len=seq_len,
        batch_size=batch_size,
        seed=seed,
        backend=backend,
        dtype=opening["dtype"],
        device=opening["device"],
        device_map=opening.get("device_map"),
    )
    out.print(f"Opening {escape(model)}")
    opened = open_model(model, **opening)
    sequences = calibration.load_sequences(
        data,
        opened.tokenizer,
        text_column=text_column,
        samples=samples,
        seq_len=seq_len,
        seed=seed,
        **text_limits(opened.model.config),
    )
    return opened, sequences


def text_limits(config: Any) -> dict[str, int | None]:
    """How many token ids and positions a model has; one with a vision part has them in its text configuration."""
    names = {"vocab_size": "vocab_size", "max_seq_len": "max_position_embeddings"}
    text = getattr(config, "text_config", None)
    return {key: getattr(config, name, getattr(text, name, None)) for key, name in names.items()}


def check_options(
    data: Path | None,
    *,
    text_column: str | None,
    samples: int,
    seq_len: int,
    batch_size: int,
    seed: int,
    backend: str,
    dtype: str,
    device: str,
    device_map: str | None,
) -> None:
    """What can be refused before a model is opened, which may take minutes. Raises SrddError as running it would."""
    from srdd.models import source
    from srdd.runs import calibration

    calibration.check(data, text_column=text_column, samples=samples, seq_len=seq_len, batch_size=batch_size, seed=seed)
    check_backend(backend, source.check_options(dtype, device, device_map))


def check_backend(backend: str, device: torch.device | str = "cpu") -> None:
    """Raises BackendError for a kernel that is unknown, or cannot run on the device."""
    from srdd import kernels
    from srdd.errors import BackendError

    try:
        kernels.choose(backend, device=device)
    except BackendError as problem:
        raise BackendError(f"--backend {backend}: {problem}") from None


def refuse_unused(options: Mapping[str, object], when: str) -> None:
    """An option without effect is a mistake worth a word, not something to ignore. Raises OptionError."""
    from srdd.errors import OptionError

    given = [name for name, value in options.items() if value is not None and value is not False and value != []]
    if given:
        verb, them = ("has", "it") if len(given) == 1 else ("have", "them")
        raise OptionError(f"{', '.join(given)} {verb} no effect {when}; leave {them} out")
