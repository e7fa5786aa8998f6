"""Calibration data: packing by hand, every kind of file, every mistake."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from srdd.errors import CalibrationError, NoEffectError, OptionError, SettingError
from srdd.runs.calibration import load_sequences
from srdd.runs.text_files import from_text
from srdd.runs.token_ids import batches_of

END = 1


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = {"<unk>": 0, "</s>": END} | {f"w{i}": i for i in range(2, 64)}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>", eos_token="</s>", model_max_length=4)


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_packing_by_hand(tmp_path: Path, tokenizer: Any) -> None:
    data = write(tmp_path, "d.txt", "w2 w3 w4 w5 w6 w7 w8 w9 w10 w11\n")
    got = load_sequences(data, tokenizer, samples=9, seq_len=4)
    assert got.token_ids.tolist() == [[2, 3, 4, 5], [6, 7, 8, 9]]
    assert got.dropped == "only 2 of 9 sequences: d.txt has 11 tokens; 3 of 11 tokens not used"
    assert got.data_sha256 == hashlib.sha256(data.read_bytes()).hexdigest()
    assert got.source == "d.txt"


def test_documents_are_separated_by_the_end_token(tmp_path: Path, tokenizer: Any) -> None:
    data = write(tmp_path, "d.txt", "w2 w3\n%%\nw4 w5\n")
    got = load_sequences(data, tokenizer, samples=1, seq_len=6)
    assert sorted([tuple(got.token_ids[0, :3].tolist()), tuple(got.token_ids[0, 3:].tolist())]) == [
        (2, 3, END),
        (4, 5, END),
    ]


def test_only_lines_of_exactly_two_percent_signs_separate() -> None:
    assert from_text("a\n%% b\n%%\nc %%\n") == ["a\n%% b", "c %%"]


def test_seed_decides_the_order_and_nothing_else_does(tmp_path: Path, tokenizer: Any) -> None:
    data = write(tmp_path, "d.txt", "\n%%\n".join(f"w{i}" for i in range(2, 60)))
    orders = [load_sequences(data, tokenizer, samples=99, seq_len=2, seed=s).token_ids for s in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert sorted(orders[0].flatten().tolist()) == sorted(orders[2].flatten().tolist())


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("column", ["text", "body"])
def test_tables(tmp_path: Path, tokenizer: Any, kind: str, column: str) -> None:
    rows = [{"id": 1, column: "w2 w3 w4"}]
    path = tmp_path / f"d.{kind}"
    if kind == "parquet":
        pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    got = load_sequences(path, tokenizer, text_column=None if column == "text" else column, samples=1, seq_len=4)
    assert got.token_ids.tolist() == [[2, 3, 4, END]]


def test_chat_goes_through_the_template(tmp_path: Path, tokenizer: Any) -> None:
    chat = [{"role": "user", "content": "w2"}, {"role": "assistant", "content": "w3"}]
    data = write(tmp_path, "d.jsonl", json.dumps({"messages": chat}))
    with pytest.raises(CalibrationError, match="no chat template"):
        load_sequences(data, tokenizer, samples=1, seq_len=2)
    templated = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, unk_token="<unk>", eos_token="</s>")
    templated.chat_template = "{% for m in messages %}w9 {{ m['content'] }} {% endfor %}"
    assert load_sequences(data, templated, samples=1, seq_len=4).token_ids.tolist() == [[9, 2, 9, 3]]


def test_templates_write_their_own_special_tokens(tmp_path: Path, tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    own = tokenizer.__class__(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), unk_token="<unk>", eos_token="</s>"
    )
    own.backend_tokenizer.post_processor = TemplateProcessing(single="w9 $A", special_tokens=[("w9", 9)])
    own.chat_template = "{% for m in messages %}w9 {{ m['content'] }} {% endfor %}"
    chat = write(tmp_path, "d.jsonl", json.dumps({"messages": [{"role": "user", "content": "w2"}]}))
    assert load_sequences(chat, own, samples=1, seq_len=3).token_ids.tolist() == [[9, 2, END]]
    plain = write(tmp_path, "d.txt", "w2")
    assert load_sequences(plain, own, samples=1, seq_len=3).token_ids.tolist() == [[9, 2, END]]


def test_repeats_and_empty_rows_are_left_out_and_said(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"text": "w2 w3 w4"}] * 3 + [{"text": ""}, {"text": None}]
    data = write(tmp_path, "d.jsonl", "\n".join(map(json.dumps, rows)))
    got = load_sequences(data, tokenizer, samples=9, seq_len=4)
    assert got.token_ids.tolist() == [[2, 3, 4, END]]
    assert "2 repeated sequences" in got.dropped
    assert "2 empty documents" in got.dropped
    data = write(tmp_path, "once.jsonl", "\n".join(map(json.dumps, rows[1:4])))
    dropped = load_sequences(data, tokenizer, samples=9, seq_len=4).dropped
    assert "; 1 repeated sequence; " in dropped
    assert dropped.endswith("; 1 empty document")


def test_unusual_line_ends_and_marks_stay_inside_a_text(tmp_path: Path, tokenizer: Any) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text('\ufeff{"text": "w2\u2028w3 w4"}\r\n', encoding="utf-8")
    assert load_sequences(data, tokenizer, samples=1, seq_len=4).token_ids.tolist() == [[2, 3, 4, END]]


def test_npz_of_one_and_two_dimensions_needs_no_tokenizer(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", ids=np.arange(10))
    np.savez(tmp_path / "two.npz", ids=np.arange(12).reshape(2, 6))
    one, two = (load_sequences(tmp_path / f"{n}.npz", None, samples=9, seq_len=4).token_ids for n in ("one", "two"))
    assert one.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert two.tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    with pytest.raises(CalibrationError, match="this model has 0 to 6"):
        load_sequences(tmp_path / "one.npz", None, samples=9, seq_len=4, vocab_size=7)


def test_own_text_is_varied_and_long(tokenizer: Any) -> None:
    text = (Path(__file__).parents[2] / "srdd/runs/calibration.txt").read_text(encoding="utf-8")
    passages = from_text(text)
    assert len(passages) >= 60
    assert len(set(passages)) == len(passages)
    assert sum(len(p.split()) for p in passages if isinstance(p, str)) > 10_000
    got = load_sequences(None, tokenizer, samples=4, seq_len=64)
    assert got.token_ids.shape == (4, 64)


def test_batches_keep_order_and_the_rest(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", ids=np.arange(10))
    got = load_sequences(tmp_path / "d.npz", None, samples=9, seq_len=2)
    assert [b.tolist() for b in batches_of(got.token_ids, 3)] == [[[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9]]]
    with pytest.raises(SettingError, match="batch_size=0: expected at least 1"):
        batches_of(got.token_ids, 0)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("d.txt", "  \n ", "empty"),
        ("d.txt", "w2 w3", "gives 3 tokens, less than one sequence of 4"),
        ("d.md", "w2", "unknown kind"),
        ("d.jsonl", '{"text": "w2"}\n{"text": ', "line 2 is no JSON"),
        ("d.jsonl", "[1]", "line 1: expected an object"),
        ("d.jsonl", '{"body": "w2", "id": 3}', "line 1 has no text column; it has 'body', 'id'"),
        ("d.jsonl", '{"text": 5}', "holds int"),
        ("d.json", '{"text": "w2"}', "expected a list"),
        ("d.json", "[", "is no JSON"),
        ("d.jsonl", '{"text": ""}\n{"text": null}', "gives 0 tokens"),
        ("d.npz", "no zip", "no readable .npz"),
        ("d.parquet", "no table", "no readable parquet"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_bad_files(tmp_path: Path, tokenizer: Any, name: str, text: str, words: str) -> None:
    with pytest.raises(CalibrationError, match=words) as error:
        load_sequences(write(tmp_path, name, text), tokenizer, samples=1, seq_len=4)
    assert "\n" not in str(error.value)


def test_more_mistakes(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(CalibrationError, match="no such file"):
        load_sequences(tmp_path / "none.txt", tokenizer)
    with pytest.raises(CalibrationError, match="no tokenizer"):
        load_sequences(None, None)
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1") * 9)
    with pytest.raises(CalibrationError, match="not UTF-8"):
        load_sequences(tmp_path / "latin.txt", tokenizer)
    np.savez(tmp_path / "float.npz", ids=np.ones(9))
    with pytest.raises(CalibrationError, match="expected integers"):
        load_sequences(tmp_path / "float.npz", None, seq_len=4)
    np.savez(tmp_path / "two.npz", a=np.ones(9), b=np.ones(9))
    with pytest.raises(CalibrationError, match="expected one array"):
        load_sequences(tmp_path / "two.npz", None, seq_len=4)
    np.savez(tmp_path / "short.npz", ids=np.ones((3, 3), dtype=np.int64))
    with pytest.raises(CalibrationError, match="rows hold 3 tokens"):
        load_sequences(tmp_path / "short.npz", None, seq_len=4)
    data = write(tmp_path, "d.txt", "w2 w3 w4")
    with pytest.raises(NoEffectError, match=r"text_column has no effect on d\.txt, which is plain text"):
        load_sequences(data, tokenizer, text_column="text", seq_len=2)
    np.savez(tmp_path / "d.npz", ids=np.ones(9, dtype=np.int64))
    with pytest.raises(NoEffectError, match=r"text_column has no effect on d\.npz, which holds token ids"):
        load_sequences(tmp_path / "d.npz", tokenizer, text_column="text", seq_len=2)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"samples": 0}, "samples=0: expected at least 1"),
        ({"seq_len": 1}, "seq_len=1: expected at least 2"),
        ({"seq_len": 9, "max_seq_len": 8}, "seq_len=9: this model takes at most 8 tokens; give seq_len=8"),
        ({"seed": -1}, "seed=-1: expected 0 or more"),
        ({"text_column": "text"}, "text_column has no effect without data; leave it out"),
    ],
    ids=["samples", "short", "long", "seed", "column"],
)
def test_numbers_out_of_range(numbers: dict[str, Any], said: str, tokenizer: Any) -> None:
    with pytest.raises(OptionError) as problem:
        load_sequences(None, tokenizer, **numbers)
    assert str(problem.value) == said
