"""Where things are printed: machine output on stdout, everything for people on a terminal or on stderr.

Not here: what is printed. Tables go to stdout only when it is a terminal, so `srdd show --json | jq` stays clean.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from srdd.errors import WriteError
from srdd.exporters.terminal import HungUpError

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 120  # rich would fall back to 80 and cut tables in CI logs


def people() -> Console:
    """A console for tables and messages that cuts no number; NO_COLOR is honoured by rich."""
    from srdd.exporters.terminal.fitted import FittedConsole

    to_stdout = sys.stdout.isatty()
    stream = sys.stdout if to_stdout else sys.stderr
    return FittedConsole(file=stream, width=None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)


def machine(text: str) -> None:
    """One JSON document, or whatever a program reads, on stdout. Raises WriteError where that is full."""
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise HungUpError from None
    except OSError as problem:
        hang_up()
        raise WriteError(f"cannot write to standard output: {problem.strerror}; make room, or redirect it") from None


def hang_up() -> None:
    """Nobody listens any more: what is left in buffers goes nowhere, instead of failing again when Python ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def problem(text: str) -> None:
    """One line on stderr."""
    _say(f"srdd: {text}\n")


def bug(error: Exception) -> None:
    """The traceback of what srdd did not expect, and a line that says so."""
    import traceback

    trace = "".join(traceback.format_exception(error))
    _say(f"{trace}srdd: this is a bug in srdd; please report it with the lines above\n")


def _say(text: str) -> None:
    """On stderr; where nobody reads it, the exit code still tells."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        hang_up()
