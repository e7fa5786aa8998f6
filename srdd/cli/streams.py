"""Standard output and error for as long as a command runs, so that where they lead decides nothing but what is read.

A stream that was closed before the start goes nowhere. What standard error does not take is dropped: an exit code still
tells. What standard output does not take is said once, as WriteError on a full disk and as HungUpError where the reader
has left, by whoever writes: rich, typer or srdd. Afterwards it goes nowhere, so that nothing fails again at the end.

Not here: what is printed, and what a command does about it (console.py).
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from srdd.errors import WriteError
from srdd.exporters.terminal import HungUpError


class _Aside(io.FileIO):
    """Standard error: whatever happens to it, the work goes on."""

    gone = False

    def write(self, data: Any, /) -> int:
        if not self.gone:
            try:
                return _patiently(super().write, self.fileno(), data)
            except OSError as problem:
                self.gone = True
                self.failed(problem)
        return memoryview(data).nbytes

    def failed(self, problem: OSError) -> None:
        """Nothing to do: what is lost is not the result."""


class _Result(_Aside):
    """Standard output: what is lost is the result."""

    def failed(self, problem: OSError) -> None:
        if isinstance(problem, BrokenPipeError):
            raise HungUpError from None
        reason = problem.strerror or problem
        raise WriteError(f"cannot write to standard output: {reason}; make room, or redirect it") from None


def _patiently(write: Callable[[Any], int | None], descriptor: int, data: Any) -> int:
    """A stream that does not block, as some parents leave them, says None where it has no room yet."""
    while (written := write(data)) is None:
        select.select([], [descriptor], [])
    return written


@contextmanager
def guarded() -> Iterator[None]:
    """Inside, sys.stdin, stdout and stderr are as above. Streams that a caller has put there are left alone."""
    before = sys.stdin, sys.stdout, sys.stderr
    _occupy_standard_descriptors()
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115  (it stays open, as a standard stream does)
    sys.stdout = _wrapped(sys.stdout, sys.__stdout__, _Result, "replace")  # a bar that ASCII lacks is a question mark
    sys.stderr = _wrapped(sys.stderr, sys.__stderr__, _Aside, "backslashreplace")
    try:
        yield
    finally:
        with suppress(HungUpError, WriteError):
            sys.stdout.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def _wrapped(stream: Any, real: Any, kind: type[_Aside], errors: str) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8", errors=errors)
    if stream is not real:
        return stream  # type: ignore[no-any-return]
    stream.flush()
    raw = kind(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, errors, line_buffering=stream.line_buffering or kind is _Aside
    )


def _occupy_standard_descriptors() -> None:
    """Else the next file that is opened would get the number of a closed stream, and hold what C libraries print."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
