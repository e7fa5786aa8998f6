"""What `--help` prints: options in named groups with their defaults, commands by what they need.

Plain text, since rich would double the time of `--help`. A new option that belongs to a group is a name in `GROUPS`;
one that does not stands under "What to measure" or "What to look at", after whether its command runs a model.

Not here: the options and their words (options.py and each command's file).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

from srdd.core.near import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

# title -> parameters, as functions call them
GROUPS: dict[str, tuple[str, ...]] = {
    "Model": (
        "model_option", "adapter", "adapter_as", "revision", "reference", "dtype", "device", "device_map",
        "trust_remote_code", "backend",
    ),
    "Text": ("data", "text_column", "samples", "seq_len", "batch_size", "seed"),
    "Noise": (
        "sigma_start", "sigma_end", "sigmas", "relative", "target", "num_stages", "schedule_kind", "warmup",
        "criterion", "fault",
    ),
    "Training": ("steps", "learning_rate", "train_batch"),
    "Limits": ("threshold", "strict", "limit", "floor", "policy", "baseline", "by", "against"),
    "Output": ("out", "force", "chosen", "as_json", "top", "junit", "summary", "title", "figure", "dry_run"),
    "Help": ("help", "version", "install_completion", "show_completion"),
}  # fmt: skip
_ORDER = ("Arguments", "Model", "Text", "", "Noise", "Training", "Limits", "Output", "Help")
_TITLES = {name: title for title, names in GROUPS.items() for name in names}

# What commands need. Those that stand in none work on a report, or on what was made from one.
_NEED_A_MODEL = ("scan", "impact", "probe", "experiment", "faults")
_NEED_FILES = ("audit",)
_NEED_NOTHING = ("formats", "schema")


def need_of(command: str) -> str:
    """The heading of a command in `srdd --help`."""
    if command in _NEED_A_MODEL:
        return "Commands that run a model"
    if command in _NEED_FILES:
        return "Commands on a checkpoint's files"
    return "Commands that need nothing" if command in _NEED_NOTHING else "Commands on a report or what came of one"


def _title(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return "Arguments"
    return _TITLES.get(parameter.name, "")


def _write_options(command: Any, context: Any, formatter: Any) -> None:
    """Every group under its title, in the order of `_ORDER`; within one the order of the function's parameters."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            rows.setdefault(_title(parameter), []).append(record)
    of_model = any(parameter.name == "model_option" for parameter in command.params)
    for title in _ORDER:
        if title in rows:
            with formatter.section(title or ("What to measure" if of_model else "What to look at")):
                formatter.write_dl(rows[title])


class Command(TyperCommand):
    """A command whose options stand in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_options(self, ctx, formatter)


class Group(TyperGroup):
    """Commands by what they need, and their mistyped names with what may be meant."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        self.format_commands(ctx, formatter)
        _write_options(self, ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        room = formatter.width - 6 - max(map(len, commands))
        rows: dict[str, list[tuple[str, str]]] = {}
        for name, command in commands.items():
            if command is not None:
                rows.setdefault(need_of(name), []).append((name, command.get_short_help_str(room)))
        for need in sorted(rows, key=list(map(need_of, ("scan", "audit", "show", "formats"))).index):
            with formatter.section(need if ctx.parent is None else "Commands"):
                formatter.write_dl(rows[need], col_max=30)


def usage(error: Any, commands: Iterable[str]) -> str:
    """One line of what a shell user typed wrong, where typer has four, with the name that may be meant."""
    text = error.format_message()
    command = getattr(error, "ctx", None) and getattr(error.ctx, "command", None)
    typed = str(getattr(error, "option_name", ""))
    if type(error).__name__ == "NoSuchOption":
        known = [name for parameter in getattr(command, "params", ()) for name in parameter.opts]
        return f"no such option {typed}{did_you_mean(typed, [*known, '--help'])}"
    unknown = text.partition("No such command ")[2].partition(".")[0].strip("'\"")
    if unknown:
        return f"no such command '{unknown}'{did_you_mean(unknown, getattr(command, 'commands', commands))}"
    return f"{text[:1].lower()}{text[1:].rstrip('.')}"
