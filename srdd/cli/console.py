"""Where things are printed: machine output on stdout, everything for people on a terminal or on stderr.

Not here: what is printed. Tables go to stdout only when it is a terminal, so `srdd show --json | jq` stays clean.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 120  # rich would fall back to 80 and cut tables in CI logs


def people() -> Console:
    """A console for tables and messages that cuts no number; NO_COLOR is honoured by rich."""
    from srdd.cli.fitted import FittedConsole

    to_stdout = sys.stdout.isatty()
    stream = sys.stdout if to_stdout else sys.stderr
    return FittedConsole(file=stream, width=None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)


def machine(text: str) -> None:
    """One JSON document, or whatever a program reads, on stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def problem(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"srdd: {text}\n")
