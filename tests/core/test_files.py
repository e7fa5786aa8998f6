"""Files are complete or not there; nothing but a file is replaced; modes, owners and links stay."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from srdd.core import files
from srdd.core.files import check_new, check_writable, write_bytes, write_text
from srdd.errors import WriteError

Run = Callable[..., tuple[int, str, str]]


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    null = Path("/dev/null")
    check_new(null, force=False)
    write_text(null, "x" * 100_000)
    assert stat.S_ISCHR(null.stat().st_mode)
    link = tmp_path / "report.json"
    link.symlink_to(null)
    check_new(link, force=False)
    write_text(link, "x")
    assert link.is_symlink()
    assert stat.S_ISCHR(null.stat().st_mode)
    with pytest.raises(WriteError, match="cannot write /dev/full: No space left"):
        write_text(Path("/dev/full"), "x")


def test_a_pipe_and_a_socket_get_all_of_it(tmp_path: Path) -> None:
    text = "x" * 300_000  # more than a pipe holds
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, text)
    reader.join()
    assert read == [text]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with socket.socket(socket.AF_UNIX) as server:
        place = tmp_path / "socket"
        server.bind(str(place))
        server.listen()

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                read.append(b"".join(iter(lambda: peer.recv(65536), b"")).decode())

        reader = threading.Thread(target=serve)
        reader.start()
        write_text(place, text)
        reader.join()
    assert read[1] == text
    with pytest.raises(WriteError, match="Connection refused"):
        write_text(place, "nobody listens")


def test_links_are_followed_and_modes_are_kept(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to("real.json")
    write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    dangling = tmp_path / "dangling.json"
    dangling.symlink_to("later.json")
    write_text(dangling, "first")
    assert (tmp_path / "later.json").read_text() == "first"
    assert dangling.is_symlink()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    os.chown(path, 12345, 23456)
    write_text(path, "new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_what_a_dead_process_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    host = files._host()
    left = tmp_path / f".report.json.{host}-{dead.stdout.strip()}.abcdef"
    others = [
        tmp_path / f".report.json.{host}-{os.getppid()}.abcdef",  # a process that lives
        tmp_path / ".report.json.elsewhere-1.abcdef",  # on another machine
        tmp_path / f".other.json.{host}-{dead.stdout.strip()}.abcdef",
        tmp_path / f".report.json.{host}-notes.txt",
    ]
    for path in (left, *others):
        path.write_text("half")
    write_text(tmp_path / "report.json", "whole")
    assert not left.exists()
    assert all(path.exists() for path in others)


def test_a_place_that_cannot_be_written_is_found_by_trying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> tuple[int, str]:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.mkstemp", full)
        with pytest.raises(WriteError, match="Read-only file system; choose another place"):
            check_writable(tmp_path / "report.json")
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(WriteError, match="cannot write"):
            check_writable(tmp_path / name)
    write_bytes(tmp_path / ("x" * 250), b"as long as names may be")
    assert list(tmp_path.iterdir()) == [tmp_path / ("x" * 250)]


def test_a_command_leaves_the_device_in_place(srdd: Run, tmp_path: Path) -> None:
    from builders import make_report, tally

    make_report({"output": [[tally(0.3)] * 2] * 4}).save(tmp_path / "report.json")
    for _ in range(2):  # without --force: nothing is replaced
        code, _, said = srdd("multipliers", tmp_path / "report.json", "--format", "yaml", "--out", "/dev/null")
        assert code == 0, said
        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
