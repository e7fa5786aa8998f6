"""The command line: parse, call, print; one file a command, and what they share beside them.

Not here: work. What a command does is a function of another wing first, and its tables are in srdd.exporters.terminal.
A new command is a file with a function of its name, and a line in `app.COMMANDS`; an option that several commands
take goes to options.py, and a setting whose flag is called otherwise is a row in flags.py.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srdd.cli.app import main as main

__all__ = ["main"]


def __getattr__(name: str) -> Any:
    if name == "main":
        return import_module("srdd.cli.app").main
    raise AttributeError(f"module 'srdd.cli' has no attribute {name!r}")
