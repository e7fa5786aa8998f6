"""The modules of a family's folder that declare themselves exporters, so that adding one touches no other file.

Not here: what they must offer; each family's `__init__` says it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def declared(package: str, path: Iterable[str], name: str) -> Iterator[tuple[Any, Any]]:
    """The value of `name` and the module, for every module of `package` (in the folders `path`) that declares it."""
    for module in iter_modules(path):
        exporter = import_module(f"{package}.{module.name}")
        if hasattr(exporter, name):
            yield getattr(exporter, name), exporter
