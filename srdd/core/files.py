"""Writing files so that none is ever left half written.

A file appears under its name only when it is complete: it is written next to its place under a temporary name and then
renamed, so a full disk or Ctrl-C leaves the old file, or none.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from srdd.errors import WriteError, setting


def check_writable(path: Path) -> None:
    """Raise WriteError now rather than after a long scan when `path` cannot be written."""
    folder = path.parent
    if path.is_dir():
        raise WriteError(f"cannot write {path}: it is a folder; give a file name")
    if not folder.is_dir():
        raise WriteError(f"cannot write {path}: folder {folder} does not exist; create it or choose another place")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise WriteError(f"cannot write {path}: no permission; choose another place")


def check_new(path: Path, *, force: bool) -> None:
    """As `check_writable`, and raise WriteError when `path` exists and `force` does not allow replacing it."""
    check_writable(path)
    if path.exists() and not force:
        raise WriteError(f"{path} exists; choose another name or replace it with {setting('force')}")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` completely or not at all. Raises WriteError, e.g. on a full disk."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`, for bytes."""
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
            raise WriteError(f"cannot write {path}: {reason}; what was there before is untouched") from problem
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
