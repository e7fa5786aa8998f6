"""The command line: parse, call, print.

Exit 0 fine, 1 a check failed, 2 could not run, 70 a bug, 130 interrupted, 141 nobody reads the output any more, 143
terminated.

Not here: work. Each command is one file that imports what it needs when it runs, so that `srdd --help` starts at once.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from importlib import import_module
from typing import Any

import typer

from srdd.cli import console, endings
from srdd.cli.flags import as_option
from srdd.errors import SrddError
from srdd.exporters.terminal import HungUpError


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.machine(version("srdd"))
        raise typer.Exit


def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Shows where MXFP4, NVFP4, MXFP8 and their kin hurt a language model."""


# One line each in `srdd --help`; a command's own --help has the rest. Each is the function of its name in the module of
# its name, imported when it is wanted: all fifteen take some 30 ms.
COMMANDS = {
    "scan": "Measure weights, inputs and outputs; write a report.",
    "show": "Show a report, or what probe or experiment wrote.",
    "report": "Write a page to look at (.html), pictures, Markdown or CSV.",
    "formats": "List formats: values, blocks, scale rules, Gaussian baselines.",
    "schema": "Print the JSON Schema of the report.",
    "zones": "Find contiguous zones of layers with similar error.",
    "multipliers": "Turn a report into relative noise per layer (rin.yaml).",
    "schedule": "Print and plot the noise of a rin.yaml over a training.",
    "advise": "Say what to do about which layers, and why.",
    "merge": "Join reports of parts of a run, or of a scan and its costs.",
    "compare": "Compare checkpoints, formats or rules layer by layer.",
    "check": "Gate a checkpoint in CI: 0 held, 1 worse, 2 not comparable.",
    "impact": "Measure what quantization costs, down to KL.",
    "validate": "Say which cheap scores predict the measured cost.",
    "probe": "Measure how much noise each quantization mode bears.",
}


def build(commands: Collection[str]) -> typer.Typer:
    """The command line with these commands, and the group of experiments when all are wanted."""
    made = typer.Typer(
        name="srdd",
        callback=options,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # help by rich would double the time of --help
        pretty_exceptions_enable=False,
        epilog="Start with: srdd scan --model smollm2 --quant mxfp4",
    )
    for name in commands:
        made.command(short_help=COMMANDS[name])(getattr(import_module(f"srdd.cli.{name}"), name))
    if len(commands) == len(COMMANDS):
        from srdd.cli.experiment import experiment

        made.add_typer(experiment, name="experiment")
    return made


def _app_for(arguments: list[str]) -> typer.Typer:
    """The named command alone: Typer reads the options of all that it is given, which takes longer than `zones`."""
    return build(_command_of(arguments) or COMMANDS)


def _command_of(arguments: list[str]) -> list[str]:
    return [name for name in arguments[:1] if name in COMMANDS]


def _show_usage_error(error: Any, given: list[str]) -> None:
    """One line where typer has four. The help that a bare `srdd` gets comes as such an error too, and stays whole."""
    text = error.format_message()
    if "\n" in text:
        error.show()
        return
    path = error.ctx.command_path if getattr(error, "ctx", None) else " ".join(["srdd", *_command_of(given)])
    console.problem(f"error: {text[:1].lower()}{text[1:].rstrip('.')}; see `{path} --help`")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, return the exit code. A user's mistake becomes one line, a bug shows its traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with endings.terminable():
            code = _app_for(given)(given, prog_name="srdd", standalone_mode=False)
    except SrddError as error:
        console.problem(f"error: {error.told(as_option)}")
        return endings.NOT_RUN
    except HungUpError:
        console.hang_up()
        return endings.HUNG_UP
    except (KeyboardInterrupt, typer.Abort):
        return _stopped("interrupted", endings.INTERRUPTED)
    except endings.TerminatedError:
        return _stopped("terminated", endings.TERMINATED)
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):
            _show_usage_error(error, given)  # typer's own: an unknown option, a missing value
            return int(error.exit_code)
        console.bug(error)
        return endings.BUG
    if code == endings.INTERRUPTED:  # typer turns Ctrl-C inside a command into this code and says nothing
        return _stopped("interrupted", code)
    return code if isinstance(code, int) else 0


def _stopped(how: str, code: int) -> int:
    console.problem(f"{how}; no file was left half written")
    return code
