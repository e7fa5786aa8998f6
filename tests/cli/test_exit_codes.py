"""Exit codes are a contract, held from a real shell: 1 is a check that failed, and nothing that happens around it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import make_report, tally

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell is needed")
SRDD = f"{shlex.quote(sys.executable)} -m srdd"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
VERDICTS = [("worse.json", 1), ("base.json", 0)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_report({"weight": [[tally(0.2)]] * 4}).save(tmp_path / "base.json")
    make_report({"weight": [[tally(0.2)]] * 3 + [[tally(0.5, 5.0)]]}).save(tmp_path / "worse.json")
    return tmp_path


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, cwd=folder, env=os.environ | environment,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def program(code: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """`srdd check worse.json --baseline base.json` after `code`."""
    arguments = ["srdd", "check", "worse.json", "--baseline", "base.json"]
    run = f"{code}\nimport sys\nfrom srdd.__main__ import main\nsys.argv = {arguments}\nsys.exit(main())"
    return subprocess.run([sys.executable, "-c", run], capture_output=True, cwd=folder, check=False)


# --- streams ------------------------------------------------------------------------------------------------------

BROKEN = [
    ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1",
    "| true; exit ${PIPESTATUS[0]}", "2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}",
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize(("new", "verdict"), VERDICTS)
def test_no_stream_changes_a_verdict(broken: str, new: str, verdict: int, folder: Path) -> None:
    for form in ("", "--json"):
        assert shell(f"{SRDD} check {new} --baseline base.json {form} {broken}", folder).returncode == verdict


@pytest.mark.parametrize("words", ["zones nosuch.json", "zones base.json --nosuch", ""])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_mistake_stays_one(words: str, broken: str, folder: Path) -> None:
    assert shell(f"{SRDD} {words} {broken}", folder).returncode == 2


@pytest.mark.parametrize("words", ["--help", "check --help", "--version", "show base.json", "formats"])
def test_what_stdout_alone_would_hold(words: str, folder: Path) -> None:
    for broken, code in ((">&-", 0), (">&- 2>&-", 0), (">/dev/full", 2), ("| true; exit ${PIPESTATUS[0]}", 141)):
        done = shell(f"{SRDD} {words} {broken}", folder)
        assert done.returncode == code, (broken, done.stderr)
        assert done.stderr.count(b"\n") == (code == 2)


def test_a_lost_verdict_is_told_on_stderr(folder: Path) -> None:
    full, line = shell(f"{SRDD} check worse.json --baseline base.json >/dev/full", folder).stderr.splitlines()
    assert b"cannot write to standard output: No space left" in full
    assert line.startswith(b"srdd: FAILED")


@pytest.mark.parametrize(("new", "verdict"), VERDICTS)
@pytest.mark.parametrize("option", ["--junit", "--summary"])
def test_a_disk_that_fills_keeps_the_verdict_and_its_text(option: str, new: str, verdict: int, folder: Path) -> None:
    done = shell(f"{SRDD} check {new} --baseline base.json {option} /dev/full", folder)
    assert done.returncode == verdict
    assert done.stdout.startswith(b"FAILED" if verdict else b"PASSED")
    assert done.stderr == b"srdd: error: cannot write /dev/full: No space left on device\n"


def test_stderr_that_is_gone_loses_no_result(folder: Path) -> None:
    whole = shell(f"{SRDD} compare base.json worse.json", folder)
    assert b"More:" in whole.stderr
    for broken in ("2>&-", "2>/dev/full"):
        done = shell(f"{SRDD} compare base.json worse.json {broken}", folder)
        assert (done.returncode, done.stdout) == (0, whole.stdout)


def test_a_file_never_gets_the_number_of_a_closed_stream(folder: Path) -> None:
    code = "import os\nos.close(1)\nfrom srdd.cli import streams\nwith streams.guarded():\n    os.open('f', 577)\n"
    done = subprocess.run([sys.executable, "-c", f"{code}    os.write(1, b'lost')"], cwd=folder, check=False)
    assert done.returncode == 0
    assert (folder / "f").read_bytes() == b""


def test_a_pipe_that_does_not_block_gets_all(folder: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with subprocess.Popen([sys.executable, "-m", "srdd", "schema"], stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        time.sleep(1)  # the pipe holds less than the schema
        with os.fdopen(reader, "rb") as pipe:
            assert json.load(pipe)["title"] == "Report"
        assert process.wait(timeout=60) == 0


# --- names, encodings and places ----------------------------------------------------------------------------------

NAMES = [b"caf\xe9", b"two\nlines", b"[red]", b"[bold", b"\x1b[31m", "é漢".encode()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("environment", [{}, ASCII], ids=["utf-8", "ascii"])
def test_no_name_changes_a_verdict(name: bytes, environment: dict[str, str], folder: Path) -> None:
    inside = os.path.join(os.fsencode(folder), name)
    os.mkdir(inside)
    new, base, page = name + b"-new.json", name + b"-base.json", name + b".xml"
    for report, given in ((b"worse.json", new), (b"base.json", base)):
        os.link(os.path.join(os.fsencode(folder), report), os.path.join(inside, given))

    def srdd(*words: bytes) -> subprocess.CompletedProcess[bytes]:
        command = [os.fsencode(sys.executable), b"-m", b"srdd", *words]
        return subprocess.run(command, capture_output=True, cwd=inside, env=os.environ | environment, check=False)

    assert srdd(b"check", new, b"--baseline", base, b"--junit", page).returncode == 1
    assert srdd(b"check", base, b"--baseline", base, b"--verbose").returncode == 0
    assert os.path.exists(os.path.join(inside, page))
    for words in ([b"compare", base, new], [b"check", base, b"--baseline", base]):
        done = srdd(*words, b"--json")
        assert (done.returncode, done.stderr) == (0, b"")
        assert json.loads(done.stdout)["document"]
    gone = srdd(b"zones", b"no" + new)
    assert (gone.returncode, gone.stderr.count(b"\n")) == (2, 1)
    assert b"\x1b" not in gone.stderr


def test_a_model_whose_folder_is_no_text(tiny_llama: Path, folder: Path) -> None:
    os.mkdir(inside := os.path.join(os.fsencode(folder), b"caf\xe9"))
    for file in os.scandir(tiny_llama):
        os.symlink(file.path, os.path.join(os.fsdecode(inside), file.name))
    words = [sys.executable, "-m", "srdd", "scan", inside, "--sites", "weight", "--quant", "mxfp4", "--json"]
    done = subprocess.run(words, capture_output=True, cwd=folder, check=True)
    report = json.loads((folder / "srdd-report.json").read_text())
    assert report["model"]["id"] == json.loads(done.stdout)["model"] == "caf\\xe9"
    assert shell(f"{SRDD} check srdd-report.json --baseline srdd-report.json", folder).returncode == 0


@pytest.mark.parametrize(
    "environment",
    [
        ASCII, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"COLUMNS": "20"}, {"FORCE_COLOR": "1"}, {"HOME": "/nonexistent"},
        {"TMPDIR": "/nonexistent"}, {"PYTHONWARNINGS": "error"}, {"PYTHONOPTIMIZE": "1"}, {"PYTHONUNBUFFERED": "1"},
        {"GITHUB_STEP_SUMMARY": "/dev/full"},
    ],
    ids=lambda environment: "-".join(environment),
)  # fmt: skip
def test_no_environment_changes_a_verdict(environment: dict[str, str], folder: Path) -> None:
    for new, verdict in VERDICTS:
        done = shell(f"{SRDD} check {new} --baseline base.json", folder, **environment)
        assert done.returncode == verdict
        assert b"FAILED" in done.stdout if verdict else b"PASSED" in done.stdout


def test_a_folder_that_was_deleted(folder: Path) -> None:
    gone = "mkdir gone; cd gone; rmdir ../gone;"
    for new, verdict in VERDICTS:
        assert (
            shell(f"{gone} {SRDD} check '{folder}/{new}' --baseline '{folder}/base.json'", folder).returncode == verdict
        )
    files = "--junit a.xml --summary b.md"
    done = shell(f"{gone} {SRDD} check '{folder}/base.json' --baseline '{folder}/base.json' {files}", folder)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


# --- bugs and signals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raised",
    [
        "KeyError('x')", "MemoryError()", "RecursionError()", "SystemExit(0)", "SystemExit(1)", "EOFError()",
        "BrokenPipeError(32, 'x')", "OSError(28, 'No space')", "GeneratorExit()",
        "UnicodeEncodeError('ascii', 'x', 0, 1, '')",
    ],
)  # fmt: skip
def test_a_bug_is_70_and_has_what_to_pass_on(raised: str, folder: Path) -> None:
    code = f"from srdd.documents.report import Report\ndef broken(path): raise {raised}\nReport.load = broken"
    done = program(code, folder)
    *_, place, last = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (70, b"")
    assert done.stderr.lstrip().startswith(b"Traceback")
    assert place.startswith("srdd ")
    assert place.endswith(": srdd check worse.json --baseline base.json")
    assert last == "srdd: this is a bug in srdd; please report it with the lines above"


def test_recursion_without_end_is_70(folder: Path) -> None:
    code = "from srdd.documents.report import Report\ndef deep(path): return deep(path)\nReport.load = deep"
    assert program(code, folder).returncode == 70


def test_a_broken_installation_is_70(folder: Path) -> None:
    done = program("import sys\nsys.modules['typer'] = None", folder)
    assert (done.returncode, done.stdout) == (70, b"")
    assert b"typer" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_a_library_makes_an_error_of(number: int, code: int, folder: Path) -> None:
    swallowed = f"""
import os
from srdd.documents.report import Report
from srdd.errors import SourceError
def load(path):
    try:
        os.kill(os.getpid(), {int(number)})
        while True:
            pass
    except BaseException:
        raise SourceError("a module cannot be imported") from None
Report.load = load
"""
    done = program(swallowed, folder)
    assert (done.returncode, done.stderr.count(b"\n")) == (code, 1)
    assert b"no file was left half written" in done.stderr
