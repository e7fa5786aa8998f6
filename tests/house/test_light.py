"""What must not import torch does not, in a fresh interpreter; and the check itself can fail."""

import subprocess
import sys
from pathlib import Path

import pytest
from fresh_interpreter import loaded_by

from srdd.__main__ import SHORT
from srdd.cli.app import COMMANDS


@pytest.mark.parametrize(
    "code",
    [
        "import srdd",
        "import srdd; srdd.Report; srdd.merge",
        "import srdd.runs; dir(srdd.runs)",
        "import srdd.core; [getattr(srdd.core, name) for name in srdd.core.__all__]",
        "import srdd.documents as wing; [getattr(wing, name) for name in wing.__all__]",
        "import srdd.documents.report, srdd.analysis.rankings, srdd.exporters.terminal.report",
        "from srdd.cli.app import main; main(['--help'])",
        "from srdd.cli import main; main(['check', 'no-such-report.json', '--baseline', 'none.json'])",
        "from srdd.cli.app import main; main(['scan', '--help'])",
        "from srdd.cli.app import main; main(['formats'])",
        "from srdd.cli.app import main; main(['show', 'no-such-report.json'])",
        "import srdd.documents.schedule, srdd.noise.schedule",
        "from srdd.cli.app import main; main(['schedule', 'no-such.yaml', '--steps', '9'])",
        "import srdd.noise, srdd.noise.verl",
        "import srdd.models; dir(srdd.models)",
        "import srdd.analysis.zones, srdd.analysis.strategies, srdd.analysis.multipliers, srdd.analysis.advice",
        "import srdd.exporters.rin.hydra",
        "from srdd.cli.app import main; main(['zones', 'no-such-report.json'])",
        "from srdd.cli.app import main; main(['scan', '--model', 'x', '--quant', 'nonsense'])",
    ],
)
def test_stays_light(code: str) -> None:
    assert loaded_by(code) == []


def test_the_check_can_fail() -> None:
    assert "torch" in loaded_by("import srdd; srdd.scan")


def test_functions_are_not_hidden_by_modules_of_the_same_name() -> None:
    code = "import srdd, srdd.runs, srdd.runs.scans.model, srdd.documents.merging\n"
    code += "print(callable(srdd.scan), callable(srdd.merge), all(callable(getattr(srdd.runs, n)) for n in "
    code += "srdd.runs.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"]


def test_no_module_imports_typing_only_names_at_run_time() -> None:
    """`python -W error -m srdd --version` works from any folder."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "srdd", "--version"], capture_output=True, text=True, cwd=Path("/")
    )
    assert done.returncode == 0, done.stderr


def test_only_commands_on_reports_go_without_garbage_collection() -> None:
    """A model's tensors may sit in reference cycles, which only a collection frees."""
    assert set(SHORT) < set(COMMANDS)
    assert not {"scan", "impact", "probe", "report", "validate"} & set(SHORT)
    code = (
        "import gc, sys; from srdd.__main__ import main; sys.argv[1:] = [{!r}, '--help']; main(); print(gc.isenabled())"
    )
    for command, collects in ((SHORT[0], "False"), ("scan", "True")):
        done = subprocess.run([sys.executable, "-c", code.format(command)], capture_output=True, text=True, check=True)
        assert done.stdout.split()[-1] == collects
