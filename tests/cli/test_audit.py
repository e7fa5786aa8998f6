"""`srdd audit`: exit codes, the table, JSON and files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_checkpoints import claim_of, is_linear, llama, pack, saved

from srdd.documents.audit import Audit
from srdd.documents.opening import open_document


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good packed checkpoint, one with three faults, and the original of both."""
    root, model = tmp_path_factory.mktemp("audits"), llama()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    tensors, _ = pack(weights, lambda module: "ct_nvfp4" if is_linear(module) else None)
    claim = claim_of("ct_nvfp4")
    made = {
        "original": saved(root / "original", weights, None, model.config, None),
        "good": saved(root / "good", tensors, None, model.config, claim),
    }
    bad = {name: tensor.clone() for name, tensor in tensors.items()}
    for layer in range(3):
        bad[f"model.layers.{layer}.self_attn.q_proj.weight_global_scale"] *= 1.5
    bad["model.layers.0.mlp.down_proj.weight_global_scale"].fill_(float("nan"))
    bad["model.layers.1.mlp.nothing.weight_scale"] = torch.ones(4, 1)
    return {**made, "bad": saved(root / "bad", bad, None, model.config, claim)}


def test_a_clean_checkpoint_exits_0_with_the_verdict_first(folders: Any, srdd: Any) -> None:
    code, out, _ = srdd("audit", folders["good"], "--reference", folders["original"])
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "CLEAN 21 of 22 modules packed (NVFP4)"
    assert any(line.split()[1:] and "q_proj" in line and "NVFP4" in line and "9." in line for line in lines)
    assert "reference: original" in out


def test_findings_exit_1_errors_before_warnings(folders: Any, srdd: Any) -> None:
    code, out, _ = srdd("audit", folders["bad"])
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == "FOUND 4 problems in 22 modules: tensor scales 4; 1 warning"
    called = [line for line in lines if line.startswith(("ERROR", "warning"))]
    assert [line.split(":")[0] for line in called] == ["ERROR tensor scales"] * 4 + ["warning unclaimed"]
    assert "ERROR tensor scales: model.layers.0.mlp.down_proj" in called
    assert out.index("warning unclaimed") < out.index("Formats by role")


def test_a_plain_checkpoint_says_that_nothing_is_packed(folders: Any, srdd: Any) -> None:
    code, out, _ = srdd("audit", folders["original"])
    assert (code, out.splitlines()[0]) == (0, "CLEAN 22 modules, nothing is packed")


def test_nothing_is_cut_at_80_columns(folders: Any, srdd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = srdd("audit", folders["bad"])[1]
    assert "model.layers.0.mlp.down_proj.weight_global_scale is nan" in out
    assert "…" not in out


def test_json_is_the_document_and_opens_again(folders: Any, srdd: Any, tmp_path: Path) -> None:
    code, out, _ = srdd("audit", folders["bad"], "--json", "--out", tmp_path / "audit.json")
    assert code == 1
    assert json.loads(out) == json.loads((tmp_path / "audit.json").read_text())
    document = open_document(tmp_path / "audit.json", Audit).document
    assert (document.document, document.schema_version, document.passed) == ("srdd-audit", 1, False)
    assert [len(document.errors), len(document.warnings), len(document.modules)] == [4, 1, 22]
    assert document.provenance.method == "compressed-tensors"
    assert str(folders["bad"].parent) not in out


def test_a_file_that_exists_stays(folders: Any, srdd: Any, tmp_path: Path) -> None:
    path = tmp_path / "audit.yaml"
    path.write_text("precious")
    code, out, err = srdd("audit", folders["good"], "--out", path)
    assert (code, out, path.read_text()) == (2, "", "precious")
    assert "--force" in err
    assert srdd("audit", folders["good"], "--out", path, "--force")[0] == 0
    assert path.read_text().startswith("schema_version: 1\ndocument: srdd-audit\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no-such-folder",), "no-such-folder"),
        (("good", "--reference", "no/such/folder"), "no such folder or file"),
        (("good", "--reference", "good"), "is packed itself"),
        (("good", "--force"), "--force has no effect without --out"),
        (("good", "--out", "audit.txt"), "cannot tell the format"),
        (("smollm2",), "is a GGUF file"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], words: str, folders: Any, srdd: Any) -> None:
    code, out, err = srdd("audit", *(folders.get(word, word) for word in arguments))
    assert (code, out) == (2, "")
    said = err.strip().splitlines()
    assert words in said[-1], err
    assert len(said) == 1, err


def test_an_audit_is_nothing_to_show(folders: Any, srdd: Any, tmp_path: Path) -> None:
    srdd("audit", folders["good"], "--out", tmp_path / "audit.json")
    code, _, err = srdd("show", tmp_path / "audit.json")
    assert code == 2
    assert "is a checkpoint audit: nothing to show" in err
