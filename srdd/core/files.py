"""Writing files so that none is ever left half written, and nothing but a file is ever replaced.

A file appears under its name only when it is complete: it is written next to its place under a temporary name and then
renamed, so a full disk or Ctrl-C leaves the old file, or none. A link is followed, and a file keeps its mode and owner.
Devices, pipes and sockets are written to as they stand. What a killed process left beside a file is cleared away by the
next one that writes it.

Not here: which file a command writes.

Worked number: rin.yaml is written as .rin.yaml.HOST-PID.xxxxxxxx; that file of a process that is no more is removed.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from srdd.errors import WriteError, setting

_LONGEST = 100  # characters of a name inside a temporary one, which may have 255


def check_writable(path: Path) -> None:
    """Raise WriteError now rather than after a long scan when `path` cannot be written, by trying beside it."""
    folder = path.parent
    if _mode(path) is not None and stat.S_ISDIR(_mode(path) or 0):
        raise WriteError(f"cannot write {path}: it is a folder; give a file name")
    if not folder.is_dir():
        raise WriteError(f"cannot write {path}: folder {folder} does not exist; create it or choose another place")
    if is_special(path):
        return
    target = _target(path)
    try:
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "no permission")
        descriptor, name = _temporary(target)
        os.close(descriptor)
        os.unlink(name)
    except PermissionError:
        raise WriteError(f"cannot write {path}: no permission; choose another place") from None
    except OSError as problem:
        raise WriteError(f"cannot write {path}: {problem.strerror or problem}; choose another place") from None


def check_new(path: Path, *, force: bool) -> None:
    """As `check_writable`, and raise WriteError when a file exists there and `force` does not allow replacing it."""
    check_writable(path)
    if path.exists() and not is_special(path) and not force:
        raise WriteError(f"{path} exists; choose another name or replace it with {setting('force')}")


def readable(name: str | Path) -> str:
    """The name of a file as text: bytes of it that are no UTF-8, as b"caf\\xe9" has one, are written as \\xe9.

    Python keeps such bytes as surrogates, which neither JSON nor pydantic can hold.
    """
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_special(path: Path) -> bool:
    """True for a device, a pipe or a socket, also behind a link: written to and never replaced."""
    mode = _mode(path)
    return mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` completely or not at all. Raises WriteError, e.g. on a full disk."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`, for bytes."""
    if is_special(path):
        _write_into(path, content)
        return
    check_writable(path)
    target = _target(path)
    _clear(target)
    temporary = None
    try:
        descriptor, temporary = _temporary(target)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _keep_mode(temporary, target)
        os.replace(temporary, target)
    except BaseException as problem:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        if isinstance(problem, OSError):
            reason = problem.strerror or str(problem)
            raise WriteError(f"cannot write {path}: {reason}; what was there before is untouched") from problem
        raise


def _write_into(path: Path, content: bytes) -> None:
    try:
        if stat.S_ISSOCK(_mode(path) or 0):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
                peer.connect(str(path))
                peer.sendall(content)
            return
        with path.open("wb", buffering=0) as file:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) or 0 :]
    except OSError as problem:
        raise WriteError(f"cannot write {path}: {problem.strerror or problem}") from problem


def _target(path: Path) -> Path:
    """The file itself: a link stays one, and what it points to is replaced."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _mode(path: Path) -> int | None:
    """Of what is there, behind a link too; None for nothing. Raises WriteError for a name that cannot be one."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise WriteError(f"cannot write {path}: {reason}; choose another name") from None


def _temporary(target: Path) -> tuple[int, str]:
    return tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:_LONGEST]}.{_host()}-{os.getpid()}.")


def _host() -> str:
    return re.sub(r"\W", "", platform.node())[:40] or "host"


def _keep_mode(temporary: str, target: Path) -> None:
    """A temporary file is private; a report is as public as any new file, or as the file that it replaces."""
    try:
        old = target.stat()
    except FileNotFoundError:
        os.chmod(temporary, 0o666 & ~_umask())
        return
    with suppress(PermissionError):  # only root may give a file away
        if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(temporary, old.st_uid, old.st_gid)
    os.chmod(temporary, stat.S_IMODE(old.st_mode))


def _clear(target: Path) -> None:
    """Remove what processes of this machine that are no more left beside the file."""
    begin = f".{target.name[:_LONGEST]}.{_host()}-"
    with suppress(OSError):
        for name in os.listdir(target.parent):
            process = name[len(begin) :].partition(".")[0]
            if name.startswith(begin) and process.isdigit() and not _is_alive(int(process)):
                with suppress(OSError):
                    os.unlink(target.parent / name)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's process, or no number of one
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
