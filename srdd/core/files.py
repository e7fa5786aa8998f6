"""Writing files so that nothing is ever half there.

Not here: what is written. A file appears under its name only when it is complete: it is written beside its place under
a temporary name and renamed, so a full disk or Ctrl-C leaves the old file, or none.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from srdd.errors import OptionError, ReportError


def check_writable(path: Path) -> None:
    """Raise ReportError now rather than after a long scan when `path` cannot be written."""
    folder = path.parent
    if path.is_dir():
        raise ReportError(f"cannot write {path}: it is a folder; give a file name")
    if not folder.is_dir():
        raise ReportError(f"cannot write {path}: folder {folder} does not exist; create it or choose another place")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ReportError(f"cannot write {path}: no permission; choose another place with --out")


def check_new(path: Path, *, force: bool) -> None:
    """As `check_writable`, and raise OptionError when `path` exists and `force` does not allow to replace it."""
    check_writable(path)
    if path.exists() and not force:
        raise OptionError(f"{path} exists; choose another name or replace it with --force")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` completely or not at all. Raises ReportError, e.g. on a full disk."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`, for what is no text."""
    check_writable(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # a temporary file is private; a report is as public as any new file
        temporary.replace(path)
    except BaseException as problem:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if isinstance(problem, OSError):
            reason = problem.strerror or str(problem)
            raise ReportError(f"cannot write {path}: {reason}; what was there before is untouched") from problem
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
