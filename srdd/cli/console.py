"""Where things are printed: results on stdout, tables and documents alike; progress and warnings on stderr.

With --json stdout holds the document and nothing else. Not here: what is printed, and streams that fail (streams.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, TextIO

from srdd.errors import WriteError
from srdd.exporters.terminal import HungUpError

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 120  # rich would fall back to 80 and cut tables in CI logs


def people() -> Console:
    """The console of results, on stdout: tables that cut no number. NO_COLOR is honoured by rich."""
    return _console(sys.stdout)


def aside() -> Console:
    """The console of what is no result, on stderr: what is about to happen, progress, warnings, where files went."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    from srdd.exporters.terminal.fitted import FittedConsole

    return FittedConsole(file=stream, width=None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)


def machine(text: str) -> None:
    """One JSON document, or whatever a program reads, on stdout: in UTF-8, as files are, whatever the terminal's is.

    A character of a file name that is no text is written as JSON does. Raises WriteError where stdout is full.
    """
    content = text if text.endswith("\n") else text + "\n"
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.flush()
        sys.stdout.buffer.write(content.encode("utf-8", "backslashreplace"))
    else:
        sys.stdout.write(content)
    sys.stdout.flush()


@contextmanager
def deciding(verdict: str = "") -> Iterator[None]:
    """For what is printed about a verdict, which the exit code tells: output that is lost does not change it.

    Where standard output has no room, `verdict` goes to standard error.
    """
    try:
        yield
        sys.stdout.flush()
    except HungUpError:
        return
    except WriteError as error:
        problem(f"error: {error}")
        if verdict:
            problem(verdict)


def document(kind: str, fields: Mapping[str, object]) -> None:
    """A document that is printed and never a file of its own, with its kind and version."""
    import json

    headed = {"schema_version": 1, "document": f"srdd-{kind}", **fields}
    machine(json.dumps(headed, indent=1, sort_keys=True, allow_nan=False))


def problem(text: str) -> None:
    """One line on stderr, also where a file's name has several or would colour the terminal."""
    _say(f"srdd: {''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)}\n")


def bug(error: BaseException, arguments: Sequence[str]) -> None:
    """What to pass on of what srdd did not expect: where it happened, in which version and doing what."""
    import platform
    import shlex
    import traceback
    from importlib.metadata import version

    trace = "".join(traceback.format_exception(error))
    place = f"srdd {version('srdd')}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    doing = shlex.join(["srdd", *arguments])
    _say(f"{trace}{place}: {doing}\nsrdd: this is a bug in srdd; please report it with the lines above\n")


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
