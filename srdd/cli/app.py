"""The command line: parse, call, print. Exit 0 fine, 1 a check failed, 2 could not run, 130 interrupted.

Not here: work. Each command is one file that imports what it needs when it runs, so that `srdd --help` starts at once.
"""

from __future__ import annotations

import typer

from srdd.cli import console
from srdd.cli.advise import advise
from srdd.cli.check import check
from srdd.cli.compare import compare
from srdd.cli.formats import formats
from srdd.cli.impact import impact
from srdd.cli.multipliers import multipliers
from srdd.cli.report import report
from srdd.cli.scan import scan
from srdd.cli.schema import schema
from srdd.cli.show import show
from srdd.cli.validate import validate
from srdd.cli.zones import zones
from srdd.errors import SrddError

_INTERRUPTED = 130  # what a shell reports for Ctrl-C

app = typer.Typer(
    name="srdd",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Shows where MXFP4, NVFP4, MXFP8 and their kin hurt a language model.",
    epilog="Start with: srdd scan --model smollm2 --quant mxfp4",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.machine(version("srdd"))
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Shows where MXFP4, NVFP4, MXFP8 and their kin hurt a language model."""


for command in (scan, impact, validate, show, report, formats, schema, zones, multipliers, advise, compare, check):
    app.command()(command)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, return the exit code. A user's mistake becomes one line, a bug keeps its traceback."""
    try:
        code = app(arguments, standalone_mode=False)
    except SrddError as error:
        console.problem(f"error: {error}")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        console.problem("interrupted; nothing was written")
        return _INTERRUPTED
    except Exception as error:
        # typer's own usage errors (unknown option, missing value) know how to show themselves
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()
        return int(error.exit_code)
    if code == _INTERRUPTED:  # typer turns Ctrl-C inside a command into this code and says nothing
        console.problem("interrupted; nothing was written")
    return code if isinstance(code, int) else 0
