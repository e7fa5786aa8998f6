"""Documents of srdd as JSON or YAML.

Not here: what they hold, and the report itself, which has a form of its own (report.py). Keys keep the order in which
the document declares them, so that a reader meets provenance first. Worked number: {0: 1.5} is written "0: 1.5" in
YAML and "0": 1.5 in JSON, whose keys are strings; loading either through the document's model gives 0 back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from srdd.core.files import write_text
from srdd.errors import OptionError

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
    """Write the document as its file name says, .yaml or .json. Raises OptionError and ReportError."""
    path = Path(path)
    write_text(path, render(document, form_of(path.suffix)))


def form_of(suffix: str) -> str:
    """The form that a file name's suffix asks for. Raises OptionError."""
    form = SUFFIXES.get(suffix.lower())
    if form is None:
        found = repr(suffix) if suffix else "a name without suffix"
        raise OptionError(f"cannot tell the format of the output from {found}; use {', '.join(SUFFIXES)}")
    return form
