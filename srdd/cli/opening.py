"""What the commands that run a model on text share: opening it, and the sequences it runs on.

Not here: scans, which may need neither (scan_steps.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.calibration import Sequences
    from srdd.source import OpenModel


def open_with_text(
    out: Console,
    model: str,
    data: Path | None,
    *,
    text_column: str | None,
    samples: int,
    seq_len: int,
    seed: int,
    **opening: Any,
) -> tuple[OpenModel, Sequences]:
    """The model and its sequences; `opening` goes to open_model. Raises SourceError, CalibrationError, OptionError."""
    from rich.markup import escape

    from srdd import calibration
    from srdd.source import open_model

    out.print(f"Opening {escape(model)}")
    opened = open_model(model, **opening)
    config = opened.model.config
    sequences = calibration.load(
        data,
        opened.tokenizer,
        text_column=text_column,
        samples=samples,
        seq_len=seq_len,
        seed=seed,
        vocab_size=getattr(config, "vocab_size", None),
        max_seq_len=getattr(config, "max_position_embeddings", None),
    )
    return opened, sequences
