"""A new exporter is one file: the family finds it, and the command that uses the family offers it."""

import inspect
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import pytest
from builders import make_report, tally

from srdd.exporters import check, report, rin, terminal

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[ModuleType, str], None]]:
    """Puts a module called `stub` into a family's folder."""
    names = []

    def put(family: ModuleType, code: str) -> None:
        (tmp_path / "stub.py").write_text(code, encoding="utf-8")
        monkeypatch.setattr(family, "__path__", [*family.__path__, str(tmp_path)])
        names.append(f"{family.__name__}.stub")

    yield put
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    make_report({"output": [[tally(0.2)] * 2, [tally(0.4)] * 2]}).save(path)
    return path


def test_a_form_of_rin_is_a_file(add: Callable[[ModuleType, str], None], document: Path, srdd: Run) -> None:
    known = list(rin.rin_exporters())
    code, _, said = srdd("multipliers", document, "--format", "stub")
    assert (code, "expected one of yaml, json, hydra, verl-fork\n" in said) == (2, True)
    add(rin, 'FORM, WARNING = "stub", "a stub"\ndef render(config): return f"{len(config.layer_multipliers)}\\n"')
    assert list(rin.rin_exporters()) == [*known, "stub"]
    code, printed, said = srdd("multipliers", document, "--format", "stub")
    assert (code, printed, said) == (0, "2\n", "srdd: warning: a stub\n")
    assert "hydra, verl-fork, stub\n" in srdd("multipliers", document, "--format", "none")[2]


def test_an_output_of_reports_is_a_file(
    add: Callable[[ModuleType, str], None], document: Path, tmp_path: Path, srdd: Run
) -> None:
    out = tmp_path / "out.stub"
    assert "use .csv, .html, .htm, .md, .png, .svg, .pdf\n" in srdd("report", document, "--out", out)[2]
    add(report, 'REPORT_SUFFIXES, USES = (".stub",), {"title"}\ndef render(bundle, choices): return choices.title')
    assert srdd("report", document, "--out", out, "--title", "mine")[0] == 0
    assert out.read_text(encoding="utf-8") == "mine"
    assert "--figure has no effect on .stub" in srdd("report", document, "--out", out, "--figure", "zones")[2]


def test_a_module_that_declares_nothing_is_none(add: Callable[[ModuleType, str], None]) -> None:
    before = rin.rin_exporters()
    add(rin, "def render(config):\n    return ''")
    assert rin.rin_exporters() == before


@pytest.mark.parametrize("name", [m.name for m in iter_modules(terminal.__path__) if m.name != "fitted"])
def test_every_document_is_shown_alike_in_a_terminal(name: str) -> None:
    out, document, *_ = inspect.signature(import_module(f"{terminal.__name__}.{name}").show).parameters.values()
    assert (out.name, out.annotation) == ("out", "Console")
    assert document.annotation not in ("int", "str", "bool"), "what is shown comes before how much of it"


@pytest.mark.parametrize("name", [m.name for m in iter_modules(check.__path__) if m.name != "text"])
def test_every_document_of_a_verdict_is_rendered_alike(name: str) -> None:
    signature = inspect.signature(import_module(f"{check.__name__}.{name}").render)
    assert (list(signature.parameters), signature.return_annotation) == (["verdict"], "str")
