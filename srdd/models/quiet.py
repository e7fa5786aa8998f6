"""Silences the progress bars and notes of transformers and the hub's client; srdd says itself what happens.

The settings are put back on leaving, also after an error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bar and nothing below an error from transformers inside the block."""
    from transformers.utils import logging as hf

    level, bars = hf.get_verbosity(), hf.is_progress_bar_enabled()
    hf.set_verbosity(logging.ERROR)
    hf.disable_progress_bar()
    try:
        yield
    finally:
        hf.set_verbosity(level)
        if bars:
            hf.enable_progress_bar()


@contextmanager
def loading_reports() -> Iterator[list[str]]:
    """The tables that transformers logs while it loads weights. Its errors point at them, and nobody else sees them."""
    logger, told = logging.getLogger("transformers.modeling_utils"), _Kept()
    level, spreads = logger.level, logger.propagate
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.addHandler(told)
    try:
        yield told.messages
    finally:
        logger.removeHandler(told)
        logger.propagate = spreads
        logger.setLevel(level)


class _Kept(logging.Handler):
    """Keeps what is logged, and passes errors on as they would have gone."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        if record.levelno >= logging.ERROR:
            logging.getLogger("transformers").handle(record)


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Nothing below an error from the hub's client inside the block: without a network it logs every retry."""
    from huggingface_hub.utils import logging as hub

    level = hub.get_verbosity()
    hub.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub.set_verbosity(level)
