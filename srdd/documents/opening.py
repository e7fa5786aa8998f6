"""Opening a document of any kind from its file: whatever is wrong with it becomes one line.

Not here: what documents hold (report.py, probe.py, ...). A new kind of document is a row in `_KINDS`.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from pydantic import ValidationError
from pydantic_core import from_json

from srdd.documents.parts import Document
from srdd.errors import OptionError, ReportError

# what a file says it is -> the class of it; imported when such a file is met
_KINDS = {
    "srdd-report": ("srdd.documents.report", "Report"),
    "srdd-scan": ("srdd.documents.report", "Report"),  # version 1
    "srdd-impact": ("srdd.documents.report", "Report"),  # version 1 of costs
    "srdd-baseline": ("srdd.documents.baseline", "Baseline"),
    "srdd-probe": ("srdd.documents.probe", "Probe"),
    "srdd-experiment": ("srdd.documents.experiment", "Experiment"),
    "srdd-faults": ("srdd.documents.fault", "Faults"),
    "srdd-rin": ("srdd.documents.rin", "RinConfig"),
    "srdd-audit": ("srdd.documents.audit", "Audit"),
    "srdd-zones": ("srdd.documents.zones", "ZoneMap"),
}
_YAML = (".yaml", ".yml")
D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class Opened(Generic[D]):
    """A document and the bytes it was read from, for provenance and for pages that embed the file."""

    document: D
    content: bytes

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@overload
def open_document(path: str | Path, kind: type[D]) -> Opened[D]: ...
@overload
def open_document(path: str | Path, kind: None = None) -> Opened[Document]: ...
def open_document(path: str | Path, kind: type[Document] | None = None) -> Opened[Any]:
    """The document at `path`; "-" is standard input. `kind` is its class, None for whatever the file says it is.

    A Report is read from any version; version 1 had costs in a document of their own.
    Raises ReportError in one line: missing, cut in half, from the future, another kind of document, not valid.
    """
    name = str(path)
    wanted = _kind_of(None) if kind is None else kind
    content = read_bytes(path, wanted.CALLED, f"write one with `srdd {wanted.COMMAND}`")
    is_yaml = Path(path).suffix.lower() in _YAML if kind is None else kind.IS_YAML
    expected = f"{'YAML or ' if is_yaml else ''}JSON that `srdd {wanted.COMMAND}` wrote"
    text = decoded(content, name, wanted.CALLED, expected)
    tree = _yaml(text, name) if is_yaml else _json(text, name)
    if kind is None and isinstance(tree, dict):
        wanted = _kind_of(tree.get("document"))
    return Opened(document_of(tree, wanted, name), content)


def document_of(tree: Any, kind: type[D], name: str = "the document") -> D:
    """A document from parsed JSON or YAML; `name` is for messages. Raises ReportError in one line."""
    if not isinstance(tree, dict):
        raise ReportError(f"{name} is no {kind.CALLED}: found {_type(tree)}, expected an object")
    try:
        return kind.from_tree(tree, name)
    except ValidationError as problem:
        raise ReportError(f"{name} is no valid {kind.CALLED}: {_said(problem)}") from problem
    except OptionError as problem:  # what a validator of ours refuses, e.g. a schedule whose noise grows
        raise ReportError(f"{name} is no valid {kind.CALLED}: {problem}") from problem


def read_bytes(path: str | Path, called: str, remedy: str) -> bytes:
    """The bytes of a file, "-" of standard input. Raises ReportError; `remedy` is what to do when it is missing."""
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    except FileNotFoundError:
        raise ReportError(f"no {called} at {path}; {remedy}") from None
    except IsADirectoryError:
        raise ReportError(f"{path} is a folder, expected the file of a {called}; {remedy}") from None
    except OSError as problem:
        raise ReportError(f"cannot read the {called} {path}: {problem.strerror}") from problem


def decoded(content: bytes, name: str, called: str, expected: str) -> str:
    """The text of a file. Raises ReportError when it is not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ReportError(f"{name} is no {called}: found bytes that are no UTF-8 text, expected {expected}") from None


def _kind_of(named: object) -> type[Document]:
    module, kind = _KINDS.get(str(named), _KINDS["srdd-report"])
    found: type[Document] = getattr(import_module(module), kind)
    return found


def _json(text: str, name: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)  # several times faster than json
    except ValueError as problem:
        raise ReportError(
            f"{name} is no complete JSON document ({problem}); it may be cut off: write it anew"
        ) from problem


def _yaml(text: str, name: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)  # JSON is YAML
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(problem, "problem", None) or getattr(problem, "reason", None) or type(problem).__name__
        raise ReportError(f"{name} is no YAML{place}: {what}; correct it, or write it anew") from problem
    except (ValueError, RecursionError) as problem:  # a date that is none, a number too long, brackets without end
        raise ReportError(f"{name} is no YAML: {problem}; correct it, or write it anew") from problem


def _type(tree: Any) -> str:
    return "nothing" if tree is None else f"a {type(tree).__name__}"


def _said(problem: ValidationError) -> str:
    """The first error; an unknown key comes before the missing one that it was probably meant to be."""
    errors = problem.errors()
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    place = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        text = first["msg"].removeprefix("Value error, ")
        return f"{place}: {text}" if place else text
    beside = [e["loc"] for e in errors if e["type"] == "missing" and e["loc"][:-1] == first["loc"][:-1]]
    missing = ", ".join(".".join(map(str, loc)) for loc in beside)
    return f"unknown key {place!r}" + (f"; missing: {missing}" if missing else "; leave it out")
