"""`srdd faults` on the command line: exit codes, documents, what is printed, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def given(tiny_llama: Path, text: Path) -> tuple[str | Path, ...]:
    return (tiny_llama, "--data", text, "--samples", "2", "--seq-len", "24", "--backend", "eager")


def test_healthy_is_0_and_broken_is_1(srdd: Run, given: tuple[str | Path, ...], tmp_path: Path) -> None:
    out = tmp_path / "healthy.json"
    code, shown, said = srdd("faults", *given, "--out", out)
    assert code == 0, said
    assert "No fault found in 3 layers" in shown
    assert "The study's criterion" in shown
    broken = ("--plant", "layer=1,module=mlp.down_proj,deadzone=0.01", "--quant", "none")
    code, shown, said = srdd("faults", *given, *broken, "--out", tmp_path / "broken.json", "--reference", out)
    assert code == 1, said
    assert "FAULT: deadzone" in shown
    assert "at the output of layer 1 mlp.down_proj" in shown
    assert "PLANTED FAULT: deadzone 0.01" in shown
    code, again, _ = srdd("show", tmp_path / "broken.json")
    assert code == 0
    assert "FAULT: deadzone" in again
    code, document, _ = srdd("faults", *given, *broken, "--out", out, "--force", "--json")
    assert code == 1
    assert json.loads(document)["findings"][0]["module"] == "mlp.down_proj"


def test_another_device(srdd: Run, given: tuple[str | Path, ...], tmp_path: Path) -> None:
    more = ("--against", "cpu", "--quant", "none", "--plant", "layer=2,module=input_layernorm,bias=0.1")
    code, shown, said = srdd("faults", *given, *more, "--out", tmp_path / "x.json")
    assert code == 1, said
    assert "FAULT: disagreement" in shown


def test_the_self_test_prints_its_matrix(srdd: Run, given: tuple[str | Path, ...]) -> None:
    code, shown, said = srdd("faults", *given, "--self-test")
    assert code == 0, said
    assert "Planted (rows) and found (columns)" in shown
    assert "Smallest size" in shown


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--plant", "layer=3,deadzone=0.1"), "--plant layer=3: the model has layers 0 to 2"),
        (("--plant", "layer=1,deadzone=2"), "expected a number between 0 and 1"),
        (("--depth", "deep"), "--depth 'deep': expected layer or linear"),
        (("--reference", "missing.json"), "missing.json"),
        (("--self-test", "--quant", "mxfp4"), "--quant has no effect with --self-test"),
    ],
)
def test_bad_input(srdd: Run, given: tuple[str | Path, ...], tmp_path: Path, more: tuple[str, ...], told: str) -> None:
    out = () if "--self-test" in more else ("--out", tmp_path / "x.json")
    code, _, said = srdd("faults", *given, *more, *out)
    assert code == 2
    assert told in said
    assert not (tmp_path / "x.json").exists()


def test_another_models_reference(srdd: Run, given: tuple[str | Path, ...], tmp_path: Path) -> None:
    out = tmp_path / "healthy.json"
    assert srdd("faults", *given, "--quant", "none", "--out", out)[0] == 0
    tree = json.loads(out.read_text())
    tree["model"]["parameter_count"] += 1
    out.write_text(json.dumps(tree))
    code, _, said = srdd("faults", *given, "--reference", out, "--out", tmp_path / "x.json")
    assert code == 2
    assert "of another model: its parameter_count" in said
