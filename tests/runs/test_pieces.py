"""Which document a sequence is of: packing by hand, files of token ids, a real tokenizer, and parts of a run."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import srdd
from srdd.core.metrics import METRICS
from srdd.documents.costs import Cost
from srdd.documents.parts import Calibration
from srdd.documents.report import dumps
from srdd.errors import CalibrationError
from srdd.models.source import open_model
from srdd.runs.calibration import Sequences, load_sequences
from srdd.runs.cost_tokens import cost_sequences
from srdd.runs.pieces import Piece, Row, owner
from srdd.runs.token_ids import token_ids_of


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(tiny_llama)


def calibration_of(sequences: Sequences, tiny_llama: Path) -> Calibration:
    return token_ids_of(sequences, open_model(str(tiny_llama)).model)[1]


def test_pieces_by_hand() -> None:
    row = Row()
    for document in ([1] * 6, [2] * 4, [], [3] * 4):
        row.add(document)
    first, second = row.pieces(0, 8), row.pieces(8, 14)
    assert [(p.offset, p.tokens) for p in (*first, *second)] == [(0, 6), (0, 2), (2, 2), (0, 4)]
    assert first[1].document == second[0].document
    assert len({p.document for p in (*first, *second)}) == 3
    assert owner(first, 8) == first[0]
    assert owner(second, 6) == second[1]
    assert owner(second, 3) == Piece(second[0].document, 2, 2), "of the first three tokens two are of the second"
    assert owner(second, 4) == Piece(second[0].document, 2, 2), "of two with as many it is the earlier"


def test_a_document_is_known_by_its_tokens_and_not_by_its_place() -> None:
    one, other = Row(), Row()
    for document in ([1, 2, 3], [4, 5, 6]):
        one.add(document)
    for document in ([4, 5, 6], [7], [1, 2, 3]):
        other.add(document)
    assert one.pieces(0, 3)[0].document == other.pieces(4, 7)[0].document
    assert one.pieces(3, 6)[0].document == other.pieces(0, 3)[0].document


def test_text_is_packed_and_every_sequence_knows_its_document(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, tiny_llama: Path
) -> None:
    """Documents of 9, 5 and 5 tokens with their ends, in any order, cut at 4."""
    data = tmp_path / "d.txt"
    data.write_text("w2 w3 w4 w5 w6 w7 w8 w9\n%%\nw12 w13 w14 w15\n%%\nw22 w23 w24 w25\n")
    orders = set()
    for seed in range(8):
        sequences = load_sequences(data, tokenizer, samples=9, seq_len=4, seed=seed)
        told = calibration_of(sequences, tiny_llama)
        kinds: list[int] = []  # of every token: its ten, an end has that of the token before it
        for token in sequences.token_ids.flatten().tolist():
            kinds.append(kinds[-1] if token == 1 else (token - 2) // 10)
        owners = [Counter(kinds[at : at + 4]).most_common(1)[0][0] for at in range(0, 16, 4)]  # the earlier of equals
        names = dict(zip(owners, told.documents, strict=True))
        assert [names[kind] for kind in owners] == told.documents
        assert told.units == len(set(owners)) == len(set(told.documents)) < 4
        orders.add(tuple(owners))
    assert len(orders) > 1


def test_files_of_token_ids(tmp_path: Path, tiny_llama: Path) -> None:
    np.savez(tmp_path / "stream.npz", ids=np.arange(60))
    np.savez(tmp_path / "rows.npz", ids=np.arange(48).reshape(3, 16))
    stream, rows = (
        calibration_of(load_sequences(tmp_path / name, None, samples=99, seq_len=4), tiny_llama)
        for name in ("stream.npz", "rows.npz")
    )
    assert stream.offsets == list(range(0, 60, 4))
    assert stream.units == 8, "a stream is one document, in blocks"
    assert rows.unit_of == (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2)
    assert rows.offsets == [0, 4, 8, 12] * 3


def test_tensors_have_a_unit_in_each_row(tiny_llama: Path) -> None:
    told = token_ids_of(torch.arange(40).view(5, 8), open_model(str(tiny_llama)).model)[1]
    assert (told.documents, told.unit_of, told.units) == ([], None, 5)


def test_the_tokens_of_costs_are_of_the_documents_that_they_are_of() -> None:
    """One document of 150 tokens, 362 of the next: the costs of the first 160 are those of the first."""
    pieces = ((Piece("a", 0, 150), Piece("b", 0, 362)), (Piece("b", 362, 512),))
    ids = torch.arange(1024).view(2, 512)
    some = cost_sequences(Sequences(ids, "d", "", "", 0, pieces), 320)
    assert some.token_ids.shape == (2, 160)
    assert [owner(of, 160).document for of in some.pieces] == ["a", "b"]
    assert owner(pieces[0], 512).document == "b"


def test_parts_take_sequences_and_their_documents(tmp_path: Path, tiny_llama: Path) -> None:
    np.savez(tmp_path / "rows.npz", ids=np.arange(48).reshape(3, 16))
    sequences = load_sequences(tmp_path / "rows.npz", None, samples=99, seq_len=4)
    with pytest.raises(CalibrationError, match="2 sequences with the documents of 12"):
        calibration_of(replace(sequences, token_ids=sequences.token_ids[:2]), tiny_llama)


def test_parts_scanned_apart_are_the_whole_with_its_errors(tmp_path: Path, tiny_llama: Path) -> None:
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "rows.npz", ids=generator.integers(2, 64, size=(4, 24)))
    opened = open_model(str(tiny_llama))
    sequences = load_sequences(tmp_path / "rows.npz", None, samples=99, seq_len=8)

    def scanned(*places: int) -> srdd.Report:
        part = replace(
            sequences,
            token_ids=sequences.token_ids[list(places)],
            pieces=tuple(sequences.pieces[place] for place in places),
        )
        return srdd.scan(opened.model, part, "mxfp4", "output", costs="predicted", batch_size=1, backend="eager")

    whole = scanned(*range(12))
    assert whole.settings.calibration is not None
    assert whole.settings.calibration.units == 4
    assert any("are of 4 documents" in note for note in whole.warnings)
    merged = srdd.merge(scanned(0, 1, 4, 5, 8), scanned(2, 3, 6, 7, 9, 10, 11))
    for part in (whole, merged):
        part.provenance.clear()
        assert part.costs is not None
        for row in part.costs.whole:
            row.kl_quantiles.clear()  # of all tokens: parts do not give those of the whole
    order = [0, 1, 4, 5, 8, 2, 3, 6, 7, 9, 10, 11]
    as_merged = scanned(*order)
    assert [site.formats["mxfp4:even"].standard_errors for site in merged.sites] == [
        site.formats["mxfp4:even"].standard_errors for site in as_merged.sites
    ]
    for mine, theirs in zip(merged.sites, whole.sites, strict=True):
        one, other = mine.formats["mxfp4:even"], theirs.formats["mxfp4:even"]
        assert one.units == other.units == 4
        assert one.metrics == other.metrics
        for metric in METRICS:
            assert one.error(metric.name) == pytest.approx(other.error(metric.name), rel=1e-9, nan_ok=True)
    assert merged.costs is not None
    assert whole.costs is not None
    for mine, theirs in zip(merged.costs.whole, whole.costs.whole, strict=True):
        assert mine.kl.error == pytest.approx(theirs.kl.error, rel=1e-4)
        assert mine.loss.error == pytest.approx(theirs.loss.error, rel=1e-4)
    assert merged.costs.clean is not None
    told = merged.costs.settings.calibration
    for row in merged.costs.layers:  # the labels of predictions are drawn in the order of the run
        assert row.predicted_kl is not None
        assert row.predicted_kl == Cost.of(row.predicted_kl.sequences or [], told.unit_of)
        assert len(row.predicted_kl.by_unit) == told.units == 4
    loaded = srdd.Report.from_tree(json.loads(dumps(merged)), "merged")
    assert dumps(loaded) == dumps(merged)
