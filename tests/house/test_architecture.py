"""docs/architecture.md is true: its paths exist, its wings are the tree, and "to add" means one file.

Additions are made to a copy of the package and seen to arrive, each in an interpreter of its own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from builders import make_report, tally

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
WINGS = ("core", "documents", "kernels", "models", "noise", "runs", "analysis", "exporters", "cli")


def test_the_package_holds_three_modules_and_nine_wings() -> None:
    held = {path.name for path in (ROOT / "srdd").iterdir() if path.name != "__pycache__"}
    assert held == {"__init__.py", "__main__.py", "errors.py", "py.typed", *WINGS}
    assert re.findall(r"^\| `(\w+)` \|", DOC.partition("## The wings")[2].partition("\n## ")[0], re.M) == list(WINGS)
    assert {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - {"__pycache__"} == {*WINGS, "house"}


@pytest.mark.parametrize("wing", WINGS)
def test_every_wing_says_what_it_is(wing: str) -> None:
    face = (ROOT / "srdd" / wing / "__init__.py").read_text(encoding="utf-8")
    assert len(face.partition('"""')[2].partition('"""')[0].split()) > 30
    assert "__all__" in face or wing == "exporters"  # whose folders have the faces


def test_every_path_of_the_document_exists() -> None:
    paths = re.findall(rf"`((?:{'|'.join(WINGS)}|tests|benchmarks)/[\w/.]+?)(?::\w+)?`", DOC)
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).exists() and not (ROOT / "srdd" / path).exists()] == []


def test_every_name_behind_a_colon_is_there() -> None:
    for path, name in re.findall(rf"`((?:{'|'.join(WINGS)})/[\w/]+\.py):(\w+)`", DOC):
        assert re.search(rf"\b{name}\b", (ROOT / "srdd" / path).read_text(encoding="utf-8")), (path, name)


def test_the_rule_is_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert " > ".join(layers) in DOC
    forbidden = next(contract for contract in contracts if contract["type"] == "forbidden")
    assert forbidden["source_modules"] == ["srdd.core", "srdd.documents", "srdd.analysis", "srdd.exporters"]


def test_every_error_stands_in_the_document_with_its_code() -> None:
    from srdd import errors

    rows = dict(re.findall(r"^\| `([a-z-]+)` \| `(\w+)` \|", DOC, re.M))
    bases = {"SrddError", "OptionError"}  # never raised themselves
    classes = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.SrddError) and name not in bases
    }
    assert rows == {kind.code: name for name, kind in classes.items()}


class Copy:
    """A copy of the package in which one file is changed or added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "srdd", folder / "srdd", ignore=shutil.ignore_patterns("__pycache__"))

    def insert(self, path: str, before: str, text: str) -> None:
        file = self.folder / "srdd" / path
        old = file.read_text(encoding="utf-8")
        assert old.count(before) == 1
        file.write_text(old.replace(before, text + before), encoding="utf-8")

    def add(self, path: str, text: str) -> None:
        file = self.folder / "srdd" / path
        assert not file.exists()
        file.write_text(text, encoding="utf-8")

    def python(self, code: str) -> str:
        return self._run("-c", code)

    def srdd(self, *arguments: str) -> str:
        return self._run("-m", "srdd", *arguments)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    make_report({"weight": [[tally(0.1 + 0.02 * i)] for i in range(6)]}).save(tmp_path / "report.json")
    return Copy(tmp_path)


def test_a_format_is_a_row(copy: Copy) -> None:
    copy.insert("core/formats.py", '    _nv("nvfp4"),\n', '    _mx("mxfp4_8", E2M1, Rule.EVEN, block=(1, 8)),\n')
    said = copy.python(
        "import torch, srdd; from torch import nn\n"
        "x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))\n"
        "a, b = (srdd.quant_dequant(x, 'mxfp4_8', backend=name) for name in ('reference', 'eager'))\n"
        "wide = srdd.quant_dequant(x, 'mxfp4')\n"
        "model = nn.Sequential(nn.Linear(64, 16))\n"
        "report = srdd.scan(model, None, 'mxfp4_8:floor,mxfp4:floor', sites='weight')\n"
        "print(bool((a == b).all()), bool((a == wide).all()))\n"
        "print(all(15 < measured.value('sqnr_db') < 22 for measured in report.sites[0].formats.values()))\n"
    )
    assert said.split() == ["True", "False", "True"]
    assert {row["name"]: row["bits_per_value"] for row in json.loads(copy.srdd("formats", "--json"))["formats"]}[
        "mxfp4_8"
    ] == 5.0


def test_a_metric_is_a_row(copy: Copy) -> None:
    row = '    Metric("mean_square", "", "down", lambda t: _ratio(t.sum_x2, t.n), "mean of x^2"),\n'
    copy.insert("core/metrics.py", '    Metric("at_max_ratio"', row)
    copy.python("from srdd import Report; Report.load('report.json').save('again.json')")
    stored = json.loads((copy.folder / "again.json").read_text())["sites"][0]["formats"]["mxfp4:even"]["metrics"]
    assert stored["mean_square"] > 0
    copy.srdd("report", "again.json", "--out", "sites.csv")
    assert "mean_square" in (copy.folder / "sites.csv").read_text()
    assert json.loads(copy.srdd("zones", "again.json", "--metric", "mean_square", "--json"))["zones"]
    copy.srdd("report", "again.json", "--out", "page.html", "--metric", "mean_square")


def test_an_exporter_of_reports_is_a_file(copy: Copy) -> None:
    copy.add(
        "exporters/report/text.py",
        'REPORT_SUFFIXES, USES = (".txt",), frozenset()\n'
        "def render(bundle, view):\n    return f'{bundle.report.model.id} has {len(bundle.report.sites)} sites\\n'\n",
    )
    copy.srdd("report", "report.json", "--out", "a.txt")
    assert (copy.folder / "a.txt").read_text().endswith("has 6 sites\n")


def test_a_form_of_rin_is_a_file(copy: Copy) -> None:
    copy.add(
        "exporters/rin/mine.py", "FORM = 'mine'\ndef render(config):\n    return str(len(config.layer_multipliers))\n"
    )
    assert copy.srdd("multipliers", "report.json", "--format", "mine").strip() == "6"


def test_a_strategy_is_a_row(copy: Copy) -> None:
    row = '    "none": Strategy("only layer 0", (), lambda s, o: Multipliers({i: float(i == 0) for i in s.layers})),\n'
    copy.insert("analysis/strategies.py", '    "variable": Strategy(', row)
    made = json.loads(copy.srdd("multipliers", "report.json", "--strategy", "none", "--json"))
    assert made["layer_multipliers"] == {"0": 1.0} | {str(i): 0.0 for i in range(1, 6)}
