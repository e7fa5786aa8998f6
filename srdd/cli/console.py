"""Where things are printed: results on stdout, tables and documents alike; progress and warnings on stderr.

With --json stdout holds the document and nothing else. Not here: what is printed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from io import TextIOWrapper
from typing import TYPE_CHECKING, TextIO

from srdd.errors import WriteError
from srdd.exporters.terminal import HungUpError

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 120  # rich would fall back to 80 and cut tables in CI logs


def people() -> Console:
    """The console of results, on stdout: tables that cut no number. NO_COLOR is honoured by rich."""
    if isinstance(sys.stdout, TextIOWrapper):  # a bar that an old encoding lacks becomes a question mark, not a bug
        sys.stdout.reconfigure(errors="replace")
    return _console(sys.stdout)


def aside() -> Console:
    """The console of what is no result, on stderr: what is about to happen, progress, warnings, where files went."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    from srdd.exporters.terminal.fitted import FittedConsole

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


def document(kind: str, fields: Mapping[str, object]) -> None:
    """A document that is printed and never a file of its own, with its kind and version."""
    import json

    headed = {"schema_version": 1, "document": f"srdd-{kind}", **fields}
    machine(json.dumps(headed, indent=1, sort_keys=True, allow_nan=False))


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
