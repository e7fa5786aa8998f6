"""Documents as JSON or YAML.

Keys keep the order in which the document declares them, so that a reader meets provenance first. JSON has no numbers
as keys: a layer 0 is written "0" there, and loading the file gives 0 back.

Not here: the form of the report itself (report.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from srdd.core.files import write_text
from srdd.errors import SettingError

SUFFIXES = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}


def render(document: BaseModel, form: str) -> str:
    """The document as "json" or "yaml"; what is None is left out."""
    if form == "json":
        return json.dumps(document.model_dump(mode="json", exclude_none=True), indent=1, ensure_ascii=False) + "\n"
    import yaml

    class Dumper(yaml.SafeDumper):
        """Lists of numbers on one line."""

    def numbers_on_one_line(dumper: Any, values: list[Any]) -> Any:
        return dumper.represent_sequence(
            "tag:yaml.org,2002:seq", values, flow_style=all(isinstance(value, int | float) for value in values)
        )

    Dumper.add_representer(list, numbers_on_one_line)
    tree = document.model_dump(mode="python", exclude_none=True)
    text: str = yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def save(document: BaseModel, path: str | Path) -> None:
    """Write the document as its file name says, .yaml or .json. Raises SettingError and WriteError."""
    path = Path(path)
    write_text(path, render(document, form_of(path.suffix)))


def form_of(suffix: str) -> str:
    """The form that a file name's suffix asks for. Raises SettingError."""
    form = SUFFIXES.get(suffix.lower())
    if form is None:
        told = repr(suffix) if suffix else "a name without suffix"
        raise SettingError("out", None, f"cannot tell the format of the output from {told}; use {', '.join(SUFFIXES)}")
    return form
