"""Every kind of fault, in every form it applies to: found at its module, of its kind and level, and nowhere else."""

import copy
from pathlib import Path
from typing import Any

import pytest
from broken_checkpoints import FAULTS, SIDE_BY_SIDE
from packed_checkpoints import claim_of, is_linear, llama, pack, saved

from srdd.documents.audit import Audit
from srdd.models.files.checkpoint import open_checkpoint
from srdd.runs.audit import audit

MODULE = "model.layers.1.self_attn.q_proj"
CASES = [(name, maker) for name, (_, makers, _, _) in FAULTS.items() for maker in makers]
BESIDE = [(name, maker) for name, (_, makers, _) in SIDE_BY_SIDE.items() for maker in makers]


@pytest.fixture(scope="module")
def model() -> Any:
    return llama()


@pytest.fixture(scope="module")
def original(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    return saved(folder, {k: v.clone() for k, v in model.state_dict().items()}, None, model.config, None)


def broken(folder: Path, model: Any, fault: Any, maker: str, module: str) -> Path:
    tensors, metadata = pack(model.state_dict(), lambda name: maker if is_linear(name) else None)
    claim = copy.deepcopy(claim_of(maker))
    fault(tensors, {} if claim is None else claim, module)
    return saved(folder, tensors, metadata, model.config, claim)


def of(document: Audit, kind: str, level: str) -> list[str]:
    return [f.module for f in document.findings if f.kind == kind and f.level == level]


@pytest.mark.parametrize(("name", "maker"), CASES)
def test_a_fault_is_found_at_its_module(name: str, maker: str, model: Any, tmp_path: Path) -> None:
    fault, _, kind, level = FAULTS[name]
    document = audit(open_checkpoint(str(broken(tmp_path, model, fault, maker, MODULE))))
    found = [finding for finding in document.findings if finding.kind == kind and level in ("", finding.level)]
    assert found, [(f.kind, f.module, f.found) for f in document.findings]
    stem = MODULE.removesuffix("q_proj")
    places = (stem, "lm_head" if name == "orphan" else stem)
    assert all(f.module.startswith(places) for f in document.findings), document.findings
    assert document.passed == all(f.level == "warning" for f in document.findings)


@pytest.mark.parametrize(("name", "maker"), BESIDE)
def test_a_reference_shows_what_names_hide(name: str, maker: str, model: Any, original: Path, tmp_path: Path) -> None:
    fault, _, words = SIDE_BY_SIDE[name]
    module = MODULE.replace("q_proj", "k_proj") if "exchanged" in name else MODULE
    packed = open_checkpoint(str(broken(tmp_path, model, fault, maker, module)))
    document = audit(packed, open_checkpoint(str(original)))
    said = {f.module: f.found for f in document.findings if f.kind == "reference"}
    assert words in said[module], said
    assert len(said) == (2 if "exchanged" in name else 1)
