"""The library names settings, the command line turns them into flags: read from the source, file by file.

A message that is raised outside srdd.cli holds no flag; no error is of a class that says nothing of its cause; and
every setting that the library names is an option of some command, or one that only callers of the library have.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import typer

from srdd.cli.app import COMMANDS, build
from srdd.cli.flags import OTHERWISE, as_option

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "srdd").rglob("*.py"))
LIBRARY = [path for path in FILES if path.relative_to(ROOT).parts[1] != "cli"]
# Whose texts for people say what to type next, and are no messages.
ADVISES = ("srdd/exporters/",)
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")

OF_OTHERS = {"--no-deps": "pip", "--merge": "llama-gguf-split"}
# Settings that no command has: what a caller of the library passes and a shell user cannot.
ONLY_IN_THE_LIBRARY = {
    "config",  # of Injector and its kin
    "errors",  # of run_aqn
    "fresh",  # of fake_quantize
    "implausible_gain",  # a key of a policy file
    "modules",  # of fake_quantize
    "reports",  # of drift
    "training",  # of run_aqn
    "where",  # of attach
}


def flags_raised(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every flag in a string inside a raise, f-strings and what they call among them."""
    for raised in (node for node in ast.walk(tree) if isinstance(node, ast.Raise)):
        for node in ast.walk(raised):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from ((node.lineno, flag) for flag in flags_in(node.value))


def flags_said(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every flag in a string that is no docstring: messages that are put together before they are raised, and notes."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield from ((node.lineno, flag) for flag in flags_in(node.value))


def flags_in(text: str) -> list[str]:
    return [flag for flag in FLAG.findall(text) if flag not in OF_OTHERS]


def vague_errors(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every raise of a base class, by its name or as an attribute of a module."""
    for raised in (node for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc is not None):
        name = name_of(raised.exc.func if isinstance(raised.exc, ast.Call) else raised.exc)
        if name in ("OptionError", "SrddError"):
            yield raised.lineno, name


def settings_named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that stands literally where an error or `setting` takes one."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        count = {"setting": 1, "SettingError": 1, "NoEffectError": 1, "ConflictError": 2}.get(name_of(call.func), 0)
        for argument in call.args[:count]:
            for node in ast.walk(argument):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.lineno, node.value


def name_of(node: ast.AST | None) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def options_of(command: object) -> Iterator[str]:
    """All that a shell user can type in this command and those under it: options as they are, arguments in capitals."""
    for parameter in getattr(command, "params", ()):
        is_option = parameter.param_type_name == "option"
        yield from parameter.opts if is_option else [parameter.name.upper()]
    for below in getattr(command, "commands", {}).values():
        yield from options_of(below)


OPTIONS = set(options_of(typer.main.get_command(build(COMMANDS))))


def listed(files: Iterable[Path], look: Callable[[ast.AST], Iterator[tuple[int, str]]]) -> dict[str, list[str]]:
    """What was found, by file: "line: word"."""
    by_file = {}
    for path in files:
        lines = [f"{line}: {word}" for line, word in look(ast.parse(path.read_text(encoding="utf-8")))]
        if lines:
            by_file[str(path.relative_to(ROOT))] = lines
    return by_file


def is_told(name: str) -> bool:
    return as_option(name, None).split()[0] in OPTIONS or name in ONLY_IN_THE_LIBRARY


def test_no_error_of_the_library_speaks_of_flags() -> None:
    assert listed(LIBRARY, flags_raised) == {}


def test_no_note_or_message_of_the_library_speaks_of_flags() -> None:
    silent = [path for path in LIBRARY if not path.relative_to(ROOT).as_posix().startswith(ADVISES)]
    assert listed(silent, flags_said) == {}


def test_no_error_is_of_a_class_without_a_cause() -> None:
    assert listed(FILES, vague_errors) == {}


def test_every_setting_named_is_an_option_or_known_to_be_none() -> None:
    def unknown(tree: ast.AST) -> Iterator[tuple[int, str]]:
        return (place for place in settings_named(tree) if not is_told(place[1]))

    assert listed(FILES, unknown) == {}


def test_every_flag_that_is_called_otherwise_exists() -> None:
    assert [option for option in OTHERWISE.values() if option.split()[0] not in OPTIONS] == []


def test_what_only_the_library_has_is_no_option_and_is_named() -> None:
    named = {word for path in FILES for _, word in settings_named(ast.parse(path.read_text(encoding="utf-8")))}
    assert named >= ONLY_IN_THE_LIBRARY
    assert not {as_option(name, None).split()[0] for name in ONLY_IN_THE_LIBRARY} & OPTIONS


@pytest.mark.parametrize(
    ("look", "code", "found"),
    [
        (flags_raised, 'raise E(f"{x}: give --seq-len {y}") from None', ["--seq-len"]),
        (flags_raised, 'raise E("a" + f("use --out"))\nlog("--not-raised")', ["--out"]),
        (flags_raised, 'raise E(f"a -- b, 1--2, --- {setting(name)}")', []),
        (flags_said, '"""--a docstring"""\nnote = f"{x}; scan with --samples"\npip = "--no-deps"', ["--samples"]),
        (vague_errors, "raise OptionError('x')\nraise errors.SrddError\nraise SettingError('a', 1, 'b')\nraise",
         ["OptionError", "SrddError"]),
        (settings_named, 'raise NoEffectError(["a", "b"], f"without {setting(\'c\', \'d\')}")', ["a", "b", "c"]),
        (settings_named, 'errors.ConflictError("a", "b", "c")\nSettingError("d", "e", "f")', ["a", "b", "d"]),
    ],
)  # fmt: skip
def test_the_search_finds(look: Callable[[ast.AST], Iterator[tuple[int, str]]], code: str, found: list[str]) -> None:
    assert [word for _, word in look(ast.parse(code))] == found
