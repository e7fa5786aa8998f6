"""Opening a document of any kind from its file, in one line of words where that fails.

Not here: what the documents hold (report.py, impact.py, probe.py, experiment.py, zones.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from srdd.documents.experiment import Experiment
from srdd.documents.impact import Impact
from srdd.documents.probe import Probe
from srdd.documents.report import Document, Report, _content, _parse, _validated, from_document
from srdd.documents.zones import ZoneMap
from srdd.errors import OptionError, ReportError

if TYPE_CHECKING:
    from srdd.documents.experiment import Experiment
    from srdd.documents.probe import Probe


def load_any(path: Path) -> Report | Impact | Probe | Experiment:
    """A report, or an impact, probe or experiment document as it is. Raises ReportError."""
    from srdd.documents.experiment import Experiment
    from srdd.documents.probe import Probe

    document = _parse(_content(path), path)
    kinds: dict[str, type[Impact] | type[Probe] | type[Experiment]] = {
        "srdd-impact": Impact,
        "srdd-probe": Probe,
        "srdd-experiment": Experiment,
    }
    kind = kinds.get(document.get("document", "")) if isinstance(document, dict) else None
    return from_document(document, str(path)) if kind is None else _validated(kind, document, str(path))


def load_impact(path: Path) -> Impact:
    """An impact document as it is, not as a report. Raises ReportError."""
    return _load_as(Impact, "impact", path)


def load_probe(path: Path) -> Probe:
    """A probe document. Raises ReportError."""
    from srdd.documents.probe import Probe

    return _load_as(Probe, "probe", path)


def load_experiment(path: Path) -> Experiment:
    """An experiment document. Raises ReportError."""
    from srdd.documents.experiment import Experiment

    return _load_as(Experiment, "experiment", path, "experiment aqn")


def _load_as(kind: type[Document], what: str, path: Path, command: str = "") -> Document:
    document = _parse(_content(path, f"{what} document", command or what), path)
    if not isinstance(document, dict) or document.get("document") != f"srdd-{what}":
        raise ReportError(f"{path} is no {what} document; write one with `srdd {command or what} --out {path}`")
    return _validated(kind, document, str(path))


def load_zones(path: Path) -> ZoneMap:
    """The zone map that `srdd zones --out` writes, YAML or JSON. Raises OptionError in one line."""
    import yaml

    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
        if not isinstance(tree, dict) or tree.get("document") != "srdd-zones":
            raise OptionError(f"{path} is no srdd-zones document; write one with `srdd zones --out {path}`")
        return ZoneMap.model_validate(tree)
    except FileNotFoundError:
        raise OptionError(f"no file {path}; write one with `srdd zones --out {path}`") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise OptionError(f"cannot read {path}: {problem}") from problem
    except yaml.YAMLError as problem:
        raise OptionError(f"{path} is no YAML: {' '.join(str(problem).split())}") from problem
    except ValidationError as problem:
        first = problem.errors()[0]
        raise OptionError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from problem
