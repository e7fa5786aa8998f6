"""The gate in CI runs as it stands: the GitHub action, the GitLab component and the pre-commit hook, from the examples.

Each is read as its system reads it and its shell lines are run, srdd installed from a copy of this checkout by pip.
Only what needs a network is left out: pip takes no dependencies and builds with what is here, and torch is not
installed again.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCAN = "--quant mxfp4 --data words.txt --samples 4 --seq-len 32 --cost none --backend eager"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone holds of this repository, so far as installing it needs."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("pyproject.toml", "README.md", "action.yml", ".pre-commit-hooks.yaml"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("srdd", "templates"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A shell in which pip needs no network and installs beside the packages that are here."""
    site = tmp_path_factory.mktemp("site")
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_TARGET": str(site)}
    path = os.pathsep.join([str(site / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    known = {name: os.environ[name] for name in ("HOME", "LANG", "OMP_NUM_THREADS") if name in os.environ}
    return {**known, **offline, "PATH": path, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "PIP_UPGRADE": "1"}


@pytest.fixture(scope="module")
def scanned(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's repository: a checkpoint, a text and a slim baseline of it."""
    folder = tmp_path_factory.mktemp("scanned")
    shutil.copytree(tiny_llama, folder / "path" / "to" / "checkpoint")
    generator = torch.Generator().manual_seed(1)
    words = " ".join(f"w{i}" for i in torch.randint(2, 64, (300,), generator=generator).tolist())
    (folder / "words.txt").write_text(words)
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    for line in (f"scan path/to/checkpoint {SCAN} --out base.json", "check base.json --write-baseline gate.json"):
        subprocess.run([sys.executable, "-m", "srdd", *line.split()], cwd=folder, env=here, check=True)
    return folder


@pytest.fixture
def repository(scanned: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(scanned, tmp_path / "repository")


def worsen(repository: Path) -> None:
    """Zeros in place of a Linear."""
    path = repository / "path" / "to" / "checkpoint" / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({**tensors, name: torch.zeros_like(tensors[name])}, path, metadata={"format": "pt"})


def run(script: str, folder: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """As the runners do: bash, which stops at the first line that fails."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=dict(variables), capture_output=True, text=True)


def failures(junit: Path) -> int:
    root = ElementTree.parse(junit).getroot()
    assert int(root.attrib["tests"]) > 10, "the built-in limits where they hold, and what is dead"
    return int(root.attrib["failures"])


# --- GitHub ---------------------------------------------------------------------------------------------------------


def expanded(value: str, known: Mapping[str, str]) -> str:
    """Expressions of GitHub replaced: names, and `a || b`. An unknown name is empty, as there."""

    def one(found: re.Match[str]) -> str:
        names = [name.strip() for name in found[1].split("||")]
        assert all(re.fullmatch(r"[\w.-]+", name) for name in names), found[1]
        return next((known[name] for name in names if known.get(name)), "")

    return re.sub(r"\$\{\{(.*?)\}\}", one, value)


def run_action(
    folder: Path, action: Path, given: Mapping[str, str], environment: Mapping[str, str]
) -> tuple[int, dict[str, str], str, str]:
    """Exit code, outputs, the job's summary page, and what was printed."""
    form = yaml.safe_load((action / "action.yml").read_text(encoding="utf-8"))
    assert form["runs"]["using"] == "composite"
    assert set(given) <= set(form["inputs"]), "inputs that the action does not know"
    assert all(name in given for name, each in form["inputs"].items() if each.get("required"))
    inputs = {f"inputs.{name}": given.get(name, each.get("default", "")) for name, each in form["inputs"].items()}
    known = {**inputs, "github.action_path": str(action)}
    page, outputs = folder / "summary-page.md", folder / "outputs.txt"
    code, printed = 0, ""
    for step in form["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "inputs reach a shell as variables only, never as its text"
        mine = {name: expanded(value, known) for name, value in step.get("env", {}).items()}
        files = {"GITHUB_STEP_SUMMARY": str(page), "GITHUB_OUTPUT": str(outputs)}
        done = run(step["run"], folder, {**environment, **mine, **files})
        printed += done.stdout + done.stderr
        for line in outputs.read_text().splitlines() if outputs.exists() else []:
            known[f"steps.{step.get('id')}.outputs.{line.partition('=')[0]}"] = line.partition("=")[2]
        if done.returncode:
            code = done.returncode
            break
    told = {name: expanded(each["value"], known) for name, each in form["outputs"].items()}
    return code, told, page.read_text() if page.exists() else "", printed


def steps_of(workflow: Any) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def test_the_readme_shows_parts_of_the_examples() -> None:
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.S)]
    files = ("github-actions.yml", "gitlab-ci.yml", "pre-commit-config.yaml")
    assert len(blocks) == len(files)
    for block, name in zip(blocks, files, strict=True):
        assert is_part(block, yaml.safe_load((EXAMPLES / name).read_text())), name


def is_part(shown: Any, whole: Any) -> bool:
    """Whether all that is shown is in the whole, in its order."""
    if isinstance(shown, dict):
        return all(key in whole and is_part(value, whole[key]) for key, value in shown.items())
    if isinstance(shown, list):
        rest = iter(whole)
        return all(any(is_part(one, other) for other in rest) for one in shown)
    return bool(shown == whole)


@pytest.mark.parametrize("worse", [False, True])
def test_the_github_example_runs(worse: bool, checkout: Path, repository: Path, environment: dict[str, str]) -> None:
    workflow = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
    where = {"./": repository}
    for step in steps_of(workflow):
        assert "run" not in step, "all lines are the action's"
        if step["uses"].startswith("actions/checkout") and "with" in step:
            where[f"./{step['with']['path']}"] = checkout
            assert step["with"]["repository"] == "${{ vars.SRDD_REPOSITORY }}"
    (uses,) = [step for step in steps_of(workflow) if step["uses"].startswith("./")]
    if worse:
        worsen(repository)
    given = {**uses["with"], "scan-arguments": SCAN, "torch": ""}
    code, told, page, printed = run_action(repository, where[uses["uses"]], given, environment)
    assert (code, told) == ((1, {"verdict": "failed"}) if worse else (0, {"verdict": "passed"})), printed
    assert "Successfully installed srdd" in printed
    assert (failures(repository / "gate.xml") > 0) == worse
    assert page == (repository / "gate.md").read_text()
    assert page.startswith("## srdd check FAILED" if worse else "## srdd check passed")


def test_an_action_that_cannot_check_is_an_error_and_no_verdict(
    checkout: Path, repository: Path, environment: dict[str, str]
) -> None:
    given = {"model": "path/to/checkpoint", "baseline": "nowhere.json", "scan-arguments": SCAN, "torch": ""}
    code, told, page, printed = run_action(repository, checkout, {**given, "out": "deep/er"}, environment)
    assert (code, told, page) == (2, {"verdict": "error"}, "")
    assert "no report at nowhere.json" in printed
    assert (repository / "deep" / "er" / "new.json").exists()


def test_arguments_with_shell_in_them_are_words(checkout: Path, repository: Path, environment: dict[str, str]) -> None:
    given = {"model": "$(touch planted)", "scan-arguments": "; touch planted", "torch": ""}
    code, _, _, printed = run_action(repository, checkout, given, environment)
    assert code == 2, printed
    assert not (repository / "planted").exists()


# --- GitLab ---------------------------------------------------------------------------------------------------------


def gitlab_job(inputs: Mapping[str, str]) -> dict[str, Any]:
    """The component's job with its inputs in place."""
    text = (ROOT / "templates" / "gate.yml").read_text(encoding="utf-8")
    spec, _, body = text.partition("\n---\n")
    known = yaml.safe_load(spec)["spec"]["inputs"]
    assert set(inputs) <= set(known)
    values = {name: inputs.get(name, each.get("default")) for name, each in known.items()}
    assert None not in values.values(), "an input without a default is not given"
    body = re.sub(r"\$\[\[ inputs\.([\w-]+) \]\]", lambda found: values[found[1]], body)
    (job,) = yaml.safe_load(body).values()
    return job  # type: ignore[no-any-return]


@pytest.mark.parametrize("worse", [False, True])
def test_the_gitlab_example_runs(worse: bool, checkout: Path, repository: Path, environment: dict[str, str]) -> None:
    (include,) = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text())["include"]
    assert include["component"].endswith("/gate@main"), "the name of the file in templates"
    assert include["inputs"]["source"].startswith("git+")
    if worse:
        worsen(repository)
    job = gitlab_job({**include["inputs"], "source": str(checkout), "scan-arguments": SCAN, "torch": ""})
    done = run("\n".join(job["script"]), repository, {**environment, **job["variables"]})
    assert done.returncode == worse, done.stderr
    assert (failures(repository / job["artifacts"]["reports"]["junit"]) > 0) == worse
    assert all((repository / path).exists() for path in job["artifacts"]["paths"])
    assert ("FAILED" in done.stdout, "PASSED" in done.stdout) == (worse, not worse)


# --- pre-commit -----------------------------------------------------------------------------------------------------


def test_the_pre_commit_hook_runs(checkout: Path, repository: Path, environment: dict[str, str]) -> None:
    (hook,) = yaml.safe_load((checkout / ".pre-commit-hooks.yaml").read_text())
    example = yaml.safe_load((EXAMPLES / "pre-commit-config.yaml").read_text())
    assert hook["language"] == "python"
    assert re.search(hook["files"], "srdd-report.json")
    done = run(f"python -m pip install {shlex.quote(str(checkout))}", repository, environment)
    assert done.returncode == 0, done.stderr
    (entry,) = [each for repo in example["repos"] for each in repo["hooks"]]
    assert entry["id"] == hook["id"]
    report = (repository / "base.json").read_text()
    for args in (hook["args"], entry["args"]):
        command = shlex.join([*shlex.split(hook["entry"]), *args])
        for text, wanted in ((report, 0), (report.replace('"layer_count": 3', '"layer_count": 4'), 2)):
            (repository / "srdd-report.json").write_text(text)
            assert run(command, repository, environment).returncode == wanted
