"""What hands expect of a command line: arguments, short options, groups, completion, streams, files that exist."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import make_costs, make_report, tally

from srdd.cli.app import COMMANDS, build
from srdd.cli.help import GROUPS, need_of
from srdd.cli.summary import summary
from srdd.documents.report import Report
from srdd.errors import SourceError

Run = Callable[..., tuple[int, str, str]]
WRITERS = ("scan", "impact", "probe --quant mxfp4", "experiment aqn --quant mxfp4")


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r.json"
    make_report({"output": [[tally(0.3)] * 2] * 4, "weight": [[tally(0.2)]] * 4}).save(path)
    return path


def words_of(command: str, report: Path) -> list[str]:
    return [*command.split(), *(["--report", str(report)] if command.startswith("experiment") else [])]


# --- the model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("given", [["x/y"], ["--model", "x/y"], ["x/y", "--model", "x/y"]], ids=len)
def test_a_model_is_an_argument_or_an_option(
    command: str, given: list[str], report: Path, srdd: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(name: str, **_: object) -> None:
        raise SourceError(f"{name} is not opened here")

    monkeypatch.setattr("srdd.models.source.open_model", opened)
    code, out, err = srdd(*words_of(command, report), *given)
    assert (code, out, err.splitlines()[-1]) == (2, "", "srdd: error: x/y is not opened here")


def test_scan_and_impact_have_formats_by_default(report: Path, tiny_llama: Path, srdd: Run) -> None:
    assert "[default: mxfp4,nvfp4,mxfp8]" in " ".join(srdd("scan", "-h")[1].split())
    assert "[default: mxfp4]" in " ".join(srdd("impact", "-h")[1].split())
    code, _, err = srdd("scan", tiny_llama, "--sites", "weight", "--dry-run")
    assert code == 0
    assert "formats  mxfp4:even, nvfp4:nvidia, mxfp8_e4m3:rceil" in err


def test_a_model_that_is_mistyped(tiny_llama: Path, tmp_path: Path, srdd: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Tiny").symlink_to(tiny_llama)
    for sites in ((), ("--sites", "weight")):
        for typed, meant in (("smollm", "smollm2"), ("minlm", "minilm"), ("./tiny", "Tiny")):
            code, out, err = srdd("scan", typed, *sites)
            assert (code, out) == (2, "")
            assert err.splitlines()[-1].endswith(f"did you mean {meant}?"), err


# --- files that exist ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", WRITERS)
def test_a_file_that_exists_is_refused_before_the_model_is_opened(
    command: str, report: Path, srdd: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise SourceError("opened")

    monkeypatch.setattr("srdd.models.source.open_model", opened)
    default = Path(f"srdd-{'report' if command == 'scan' else command.split()[0]}.json")
    default.write_text("precious")
    words = [*words_of(command, report), "x/y"]
    code, out, err = srdd(*words)
    assert (code, out) == (2, "")
    assert err == f"srdd: error: {default} exists; choose another name or replace it with --force\n"
    assert srdd(*words, "--force")[2].splitlines()[-1] == "srdd: error: opened"
    assert srdd(*words, "-o", "other.json")[2].splitlines()[-1] == "srdd: error: opened"
    assert default.read_text() == "precious"


def test_force_replaces(tiny_llama: Path, tmp_path: Path, srdd: Run) -> None:
    out = tmp_path / "r.json"
    out.write_text("old")
    assert srdd("scan", tiny_llama, "--sites", "weight", "-o", out, "--force")[0] == 0
    assert json.loads(out.read_text())["schema_version"]


def test_the_demo_runs_twice() -> None:
    demo = (Path(__file__).parents[2] / "Makefile").read_text().partition("\ndemo: ")[2].partition("\n\n")[0]
    (scan,) = (line for line in demo.splitlines() if "srdd scan" in line)
    assert "--force" in scan


# --- help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), ("experiment",), ("experiment", "aqn"), *((name,) for name in COMMANDS)])
def test_short_help_is_help(command: tuple[str, ...], srdd: Run) -> None:
    assert srdd(*command, "-h") == srdd(*command, "--help")
    assert srdd(*command, "-h")[0] == 0


def test_short_version(srdd: Run) -> None:
    assert srdd("-V") == srdd("--version")


def test_every_out_has_its_letter() -> None:
    import typer

    def options(command: object) -> list[object]:
        below = [option for child in getattr(command, "commands", {}).values() for option in options(child)]
        return [*(p for p in command.params if "--out" in p.opts), *below]  # type: ignore[attr-defined]

    found = options(typer.main.get_command(build(COMMANDS)))
    assert len(found) >= 7
    assert all("-o" in option.opts for option in found)  # type: ignore[attr-defined]


def test_options_stand_in_groups_with_their_defaults(srdd: Run) -> None:
    text = srdd("scan", "--help")[1]
    sections = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert sections == ["Arguments", "Model", "Text", "What to measure", "Limits", "Output", "Help"]
    for title, option in (("Model", "--dtype"), ("Text", "--seq-len"), ("What to measure", "--quant"),
                          ("Limits", "--threshold"), ("Output", "-o, --out")):  # fmt: skip
        assert option in text.partition(f"\n{title}:\n")[2].partition("\n\n")[0], option
    assert "[default: 512]" in text
    assert "[default: srdd-report.json]" in text
    assert "What to look at:" in srdd("zones", "--help")[1]


def test_every_grouped_name_is_a_parameter() -> None:
    import typer

    def names(command: object) -> set[str]:
        below = [names(child) for child in getattr(command, "commands", {}).values()]
        return set().union({p.name for p in command.params}, *below)  # type: ignore[attr-defined]

    known = names(typer.main.get_command(build(COMMANDS))) | {"help"}
    grouped = [name for group in GROUPS.values() for name in group]
    assert set(grouped) - known == set()
    assert len(grouped) == len(set(grouped))


def test_commands_stand_by_what_they_need(srdd: Run) -> None:
    text = srdd("--help")[1]
    heading, found = "", {}
    for line in text.splitlines():
        if line.startswith("Commands"):
            heading = line[:-1]
        elif heading and line.startswith("  "):
            found[line.split()[0]] = heading
        else:
            heading = ""
    assert found == {name: need_of(name) for name in (*COMMANDS, "experiment")}
    assert len(set(found.values())) == 4
    assert all(len(line) <= 80 for line in text.splitlines())


# --- completion ---------------------------------------------------------------------------------------------------


def completed(line: str) -> list[str]:
    """What bash gets for Tab at the end of a line, by typer's protocol."""
    words = line.split(" ")
    environment = os.environ | {
        "_SRDD_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run([sys.executable, "-m", "srdd"], capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("srdd sc", {"scan", "schema", "schedule"}),
        ("srdd exp", {"experiment"}),
        ("srdd scan --se", {"--seq-len", "--seed"}),
        ("srdd zones r.json --max", {"--max-zones"}),
        ("srdd experiment ", {"aqn"}),
        ("srdd experiment aqn --wor", {"--worst"}),
        ("srdd nosuch --x", set()),
    ],
)
def test_bash_completes(line: str, names: set[str]) -> None:
    assert set(completed(line)) == names


def test_every_command_completes() -> None:
    assert set(completed("srdd ")) >= {*COMMANDS, "experiment"}


def test_the_script_for_a_shell() -> None:
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "srdd", "--show-completion", "bash"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "_SRDD_COMPLETE=complete_bash" in done.stdout
    assert done.stderr == ""


# --- streams ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["show", "advise", "zones", "multipliers"])
def test_a_file_gets_the_results_and_nothing_else(command: str, report: Path) -> None:
    priced = Report.load(report).model_copy(update={"costs": make_costs({"mxfp4:even": [0.1, 0.2, 0.1, 0.3]})})
    priced.save(report)
    done = subprocess.run([sys.executable, "-m", "srdd", command, str(report)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 5


def test_a_scan_says_on_stderr_what_it_does(tiny_llama: Path, tmp_path: Path, srdd: Run) -> None:
    code, out, err = srdd("scan", tiny_llama, "--sites", "weight", "-o", tmp_path / "r.json")
    assert code == 0
    assert "the worst by" in out
    for words in ("Scanning", "Report: "):
        assert words in err
        assert words not in out


def test_an_encoding_without_bars_is_no_bug(report: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "srdd", "show", str(report)],
        capture_output=True, check=True, env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert b"the worst by" in done.stdout


# --- documents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "document"),
    [
        ("formats", "srdd-formats"),
        ("advise r.json --site output", "srdd-advice"),
        ("zones r.json", "srdd-zones"),
        ("multipliers r.json", "srdd-rin"),
        ("compare r.json r.json", "srdd-comparison"),
        ("check r.json --baseline r.json", "srdd-check"),
    ],
)
def test_every_json_says_what_it_is(arguments: str, document: str, report: Path, srdd: Run) -> None:
    code, out, _ = srdd(*arguments.split(), "--json")
    assert code == 0
    assert json.loads(out)["document"] == document
    assert json.loads(out)["schema_version"] == 1


def test_the_sites_of_a_dry_run_say_what_they_are(tiny_llama: Path, srdd: Run) -> None:
    code, out, _ = srdd("scan", tiny_llama, "--sites", "weight", "--dry-run", "--json")
    tree = json.loads(out)
    assert (code, tree["document"], tree["schema_version"], len(tree["sites"])) == (0, "srdd-sites", 1, 22)


def test_a_summary_has_every_layer_and_what_it_costs() -> None:
    report = make_report({"output": [[tally(0.3)] * 2] * 3})
    bare = summary(report)
    assert bare["costs"] is None
    assert [(row["kind"], row["layer"]) for row in bare["layers"]] == [("output", i) for i in range(3)]
    metrics = bare["layers"][0]["formats"]["mxfp4:even"]
    assert set(metrics) >= {"metrics", "standard_errors"}
    assert metrics["metrics"]["relative_error"] == pytest.approx(0.3)
    priced = summary(report.model_copy(update={"costs": make_costs({"mxfp4:even": [0.3, 0.1, 0.2]})}))
    both = [row["predicted_kl"] for row in priced["costs"]["layers"] if row["mode"] == "both"]
    assert [cost["value"] for cost in both] == pytest.approx([0.3, 0.1, 0.2])
    assert all("error" in cost and "sequences" not in cost for cost in both)
    json.dumps(priced, allow_nan=False)
