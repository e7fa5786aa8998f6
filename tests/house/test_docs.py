"""What is written down is true: commands in the README, examples that run, formats of the table that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from srdd.analysis.strategies import STRATEGIES
from srdd.cli.app import COMMANDS, build
from srdd.core.formats import FORMATS, SYNONYMS, Rule
from srdd.core.metrics import MAIN

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


GROUPED = [
    f"{g.name} {c.callback.__name__}"
    for g in build(COMMANDS).registered_groups
    for c in g.typer_instance.registered_commands
]


@pytest.mark.parametrize("command", [*COMMANDS, *GROUPED])
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"srdd {command}" in README


@pytest.mark.parametrize("name", [*FORMATS, *SYNONYMS, *(rule.value for rule in Rule), *MAIN])
def test_every_format_rule_and_main_metric_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in README


def test_no_metric_of_the_readme_is_invented() -> None:
    from srdd.core.metrics import BY_NAME

    table = re.findall(r"^\| `(\w+)` \|", README.partition("## What it costs")[0], re.M)
    assert set(table) == set(MAIN) <= set(BY_NAME)


def test_every_strategy_is_in_the_readme_and_no_other() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", README.partition("## From report")[2].partition("\n## ")[0], re.M)
    assert rows == list(STRATEGIES)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(example)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "measured std / asked" if example.stem == "train_with_noise" else "dB" in done.stdout
    if example.stem == "scan_in_memory":
        assert "layers [2]" in done.stdout, "the planted outlier layer is found"
