"""The face of the wing: every name is there, none needs more than documents do, and nothing speaks in flags."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fresh_interpreter import loaded_by

import srdd.analysis

# what people read as it is, in pages and Markdown: the words of the overview
SPOKEN = {"overview.py"}
MODULES = [path for path in Path(srdd.analysis.__file__).parent.rglob("*.py") if path.name not in SPOKEN]


@pytest.mark.parametrize("name", srdd.analysis.__all__)
def test_every_name_is_there(name: str) -> None:
    assert callable(getattr(srdd.analysis, name))
    assert name in dir(srdd.analysis)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'guide'"):
        srdd.analysis.guide  # noqa: B018


def test_the_face_is_light() -> None:
    assert loaded_by("import srdd.analysis as a; [getattr(a, name) for name in a.__all__]") == []
    code = "import sys, srdd.analysis; print([m for m in ('pydantic', 'numpy', 'scipy', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_text_names_a_flag(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert [text for text in texts if re.search(r"(^|[\\s`'(])--[a-z]", text)] == []
