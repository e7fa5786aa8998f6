"""One opener for every kind of document, and one line for everything that may be wrong with a file."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from builders import make_report, make_rin, tally
from hostile import noise_documents

from srdd.documents.experiment import Experiment
from srdd.documents.opening import document_of, open_document
from srdd.documents.parts import Document
from srdd.documents.probe import Probe
from srdd.documents.report import Report
from srdd.documents.rin import RinConfig, load_rin
from srdd.documents.saving import save
from srdd.documents.zones import ZoneMap
from srdd.errors import ReportError, SettingError

REPORT = make_report({"output": [[tally(0.1), tally(0.2)]] * 3})
ZONES = ZoneMap.model_validate(
    {
        "provenance": dict.fromkeys(("srdd", "report_sha256", "model", "quant", "site", "metric", "scheme"), "x"),
        "zones": [],
    }
)
KINDS: tuple[type[Document], ...] = (Report, Probe, Experiment, RinConfig, ZoneMap)


def written(folder: Path, suffix: str) -> dict[type[Document], Path]:
    """A document of every kind; reports and what a run writes are JSON whatever the suffix."""
    probe, experiment = noise_documents(REPORT.model)
    paths = {kind: folder / f"{kind.__name__}{suffix if kind.IS_YAML else '.json'}" for kind in KINDS}
    REPORT.save(paths[Report])
    for document in (probe, experiment):
        paths[type(document)].write_text(document.model_dump_json())
    save(make_rin({0: 1.0}), paths[RinConfig])
    save(ZONES, paths[ZoneMap])
    return paths


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_every_kind_is_opened_by_class_and_by_what_the_file_says(tmp_path: Path, suffix: str) -> None:
    for kind, path in written(tmp_path, suffix).items():
        opened = open_document(path, kind)
        assert type(opened.document) is kind
        assert opened.content == path.read_bytes()
        assert opened.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert open_document(path).document == opened.document


def test_another_kind_of_document_is_refused(tmp_path: Path) -> None:
    paths = written(tmp_path, ".json")
    for kind in KINDS:
        for other, path in paths.items():
            if other is kind:
                continue
            with pytest.raises(ReportError) as caught:
                open_document(path, kind)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)
            assert "--" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "found bytes that are no UTF-8 text, expected"),
        (b"[" * 5000, "is no"),
        (b"{", "is no"),
        (b"[1, 2]", "found a list, expected an object"),
        (b'{"document": "srdd-scan", "schema_version": 1, "surprise": 2}', ""),
        (b"2020-99-99", "is no"),
        (None, "; write one with `srdd "),
    ],
    ids=["binary", "deep", "half", "list", "empty document", "no date", "missing"],
)
def test_a_bad_file_is_one_line(tmp_path: Path, kind: type[Document], content: bytes | None, words: str) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ReportError) as caught:
        open_document(path, kind)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)


def test_a_folder_is_no_document(tmp_path: Path) -> None:
    for kind in KINDS:
        with pytest.raises(ReportError, match=f"is a folder, expected the file of a {kind.CALLED}; write one with"):
            open_document(tmp_path, kind)


def test_every_kind_comes_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, path in written(tmp_path, ".yaml").items():
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
        assert open_document("-", kind).document == open_document(path, kind).document


def test_what_a_validator_of_ours_refuses_names_the_file() -> None:
    tree = make_rin({0: 1.0}).model_dump(exclude_none=True)
    tree["schedule"]["sigma_end"] = 1.0
    with pytest.raises(ReportError, match=r"mine is no valid rin document: sigma_end=1: is above sigma_start 0[.]05"):
        document_of(tree, RinConfig, "mine")


def test_load_rin_takes_a_document_or_a_path(tmp_path: Path) -> None:
    config = make_rin({0: 1.0})
    save(config, tmp_path / "rin.json")
    assert load_rin(config) is config
    assert load_rin(str(tmp_path / "rin.json")) == config
    with pytest.raises(SettingError, match="found dict"):
        load_rin({})  # type: ignore[arg-type]
