"""The command line: parse, call, print.

Exit 0 fine, 1 a check failed, 2 could not run, 70 a bug, 130 interrupted, 141 nobody reads the output any more, 143
terminated.

Not here: work. Each command is one file that imports what it needs when it runs, so that `srdd --help` starts at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection
from importlib import import_module
from typing import Any

import typer

from srdd.cli import console, endings, help, streams
from srdd.cli.flags import as_option
from srdd.errors import SrddError, WriteError
from srdd.exporters.terminal import HungUpError


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.machine(version("srdd"))
        raise typer.Exit


def options(
    version: bool = typer.Option(False, "--version", "-V", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Shows where MXFP4, NVFP4, MXFP8 and their kin hurt a language model."""


# One line each in `srdd --help`; a command's own --help has the rest. Each is the function of its name in the module of
# its name, imported when it is wanted: all sixteen take some 30 ms.
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
    "audit": "Say what a packed checkpoint holds, and what is wrong.",
    "faults": "Find layers and modules that compute wrongly.",
}


_COMPLETES = "_SRDD_COMPLETE"  # where a shell says that it wants names, not work


def build(commands: Collection[str]) -> typer.Typer:
    """The command line with these commands, and the group of experiments when all are wanted."""
    made = typer.Typer(
        name="srdd",
        cls=help.Group,
        callback=options,
        no_args_is_help=True,
        # its two options are of `srdd` alone; a shell that asks for names needs what comes with them
        add_completion=len(commands) == len(COMMANDS) or _COMPLETES in os.environ,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,  # help by rich would double the time of --help
        pretty_exceptions_enable=False,
        epilog="Start with: srdd scan smollm2",
    )
    for name in commands:
        function = getattr(import_module(f"srdd.cli.{name}"), name)
        made.command(cls=help.Command, short_help=COMMANDS[name])(function)
    if len(commands) == len(COMMANDS):
        from srdd.cli.experiment import experiment

        made.add_typer(experiment, name="experiment")
    return made


def _app_for(arguments: list[str]) -> typer.Typer:
    """The named command alone: Typer reads the options of all that it is given, which takes longer than `zones`."""
    return build(_command_of(_typed_in_shell() if _COMPLETES in os.environ else arguments) or COMMANDS)


def _command_of(arguments: list[str]) -> list[str]:
    return [name for name in arguments[:1] if name in COMMANDS]


def _typed_in_shell() -> list[str]:
    """The words after `srdd` that stand finished in a shell that asks how the line may go on."""
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return line.split()[1:] if len(line.split()) > 2 or line[-1:].isspace() else []


def _show_usage_error(error: Any, given: list[str]) -> None:
    """One line where typer has four. The help that a bare `srdd` gets comes as such an error too, and stays whole."""
    if "\n" in error.format_message():
        error.show()
        return
    path = error.ctx.command_path if getattr(error, "ctx", None) else " ".join(["srdd", *_command_of(given)])
    console.problem(f"error: {help.usage(error, COMMANDS)}; see `{path} --help`")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, return the exit code. A user's mistake becomes one line, a bug what to pass on."""
    given = sys.argv[1:] if arguments is None else arguments
    with streams.guarded():
        code = _run(given)
        try:
            sys.stdout.flush()
        except HungUpError:
            return code or endings.HUNG_UP
        except WriteError as error:  # a verdict stays one
            console.problem(f"error: {error}")
            return code or endings.NOT_RUN
        return code


def _run(given: list[str]) -> int:
    asked = endings.Asked()
    try:
        with endings.terminable(asked):
            code = _app_for(given)(given, prog_name="srdd", standalone_mode=False)
    except BaseException as error:
        return _ended_by(error, given, asked)
    if code == endings.INTERRUPTED:  # typer turns Ctrl-C inside a command into this code and says nothing
        return _stopped("interrupted", code)
    return code if isinstance(code, int) else 0


def _ended_by(error: BaseException, given: list[str], asked: endings.Asked) -> int:
    """What a user hears of it, and the exit code. A bug is what is none of the others, never a 1."""
    if isinstance(error, KeyboardInterrupt) or asked.to_stop == signal.SIGINT:  # libraries make other errors of it
        return _stopped("interrupted", endings.INTERRUPTED)
    if isinstance(error, endings.TerminatedError) or asked.to_stop == signal.SIGTERM:
        return _stopped("terminated", endings.TERMINATED)
    if isinstance(error, SrddError):
        console.problem(f"error: {error.told(as_option)}")
        return endings.NOT_RUN
    if isinstance(error, HungUpError):
        return endings.HUNG_UP
    if isinstance(error, SystemExit) and _completes(given):  # typer ends so when it has told a shell what it asked for
        return endings.NOT_RUN if error.code else 0
    if hasattr(error, "exit_code") and hasattr(error, "format_message"):
        _show_usage_error(error, given)  # typer's own: an unknown option, a missing value
        return int(error.exit_code)
    if isinstance(error, typer.Abort) and not isinstance(error.__cause__, EOFError):
        return _stopped("interrupted", endings.INTERRUPTED)
    console.bug(error, given)
    return endings.BUG


def _completes(given: list[str]) -> bool:
    return _COMPLETES in os.environ or any(
        word.startswith(("--show-completion", "--install-completion")) for word in given
    )


def _stopped(how: str, code: int) -> int:
    console.problem(f"{how}; no file was left half written")
    return code
