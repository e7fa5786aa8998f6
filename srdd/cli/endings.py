"""How a command ends: the exit codes, a signal that asks it to end, and a bug that shows where it is.

0 is fine, 1 a check that failed, and means nothing else. What a shell reports for a process that a signal ended is
128 and the signal's number, and so it is here.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

NOT_RUN = 2
BUG = 70  # sysexits.h: internal software error
INTERRUPTED = 130  # Ctrl-C
HUNG_UP = 141  # the reader has gone, such as head
TERMINATED = 143  # kill, timeout, a scheduler


class TerminatedError(BaseException):
    """SIGTERM came. No Exception, like KeyboardInterrupt: whoever cleans up does, and nobody goes on."""


@dataclass
class Asked:
    """Which signal asked the process to end, if any. What is raised for it may not arrive: libraries catch it."""

    to_stop: int | None = None


@contextmanager
def terminable(asked: Asked | None = None) -> Iterator[None]:
    """Inside, SIGTERM raises TerminatedError, so that hooks and half files are taken back as after Ctrl-C.

    `asked` learns of it, and of Ctrl-C. Does nothing in a thread, and where somebody else listens to SIGTERM already.
    """
    asked = asked or Asked()
    of_ours = threading.current_thread() is threading.main_thread()
    if not of_ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    owner = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker, which knows nothing of this block
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not stop the cleaning up
        asked.to_stop = number
        raise TerminatedError

    def interrupt(number: int, frame: FrameType | None) -> None:
        asked.to_stop = number
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    pythons_own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if pythons_own:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if pythons_own:
            signal.signal(signal.SIGINT, signal.default_int_handler)
