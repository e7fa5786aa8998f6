"""The forms of chat and training files: what each record becomes, what is said of it, and every mistake."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from srdd.errors import CalibrationError
from srdd.runs.calibration import Sequences, load_sequences
from srdd.runs.messages import messages_of
from srdd.runs.records import Counts, document_of

USER, GPT = {"role": "user", "content": "w2"}, {"role": "assistant", "content": "w3"}
PLAIN = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"


def tokenizer(template: str | None = PLAIN) -> PreTrainedTokenizerFast:
    words = ["<unk>", "</s>", *(f"w{i}" for i in range(2, 64)), "user", "assistant", "system", "tool"]
    plain = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>", eos_token="</s>")
    made.chat_template = template
    return made


def load(tmp_path: Path, records: list[Any], template: str | None = PLAIN, **settings: Any) -> Sequences:
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return load_sequences(path, tokenizer(template), **{"samples": 99, "seq_len": 2, **settings})


def share(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": value} for who, value in turns]}


@pytest.mark.parametrize(
    ("record", "document", "form"),
    [
        ("w2", "w2", "1 text"),
        ({"text": "w2"}, "w2", "1 record of column 'text'"),
        ({"content": "w2"}, "w2", "1 record of column 'content'"),
        ({"question": "w2"}, "w2", "1 record of column 'question'"),
        ({"input": "w2"}, "w2", "1 record of column 'input'"),
        ({"messages": [USER, GPT]}, [USER, GPT], "1 conversation of messages form"),
        ([USER, GPT], [USER, GPT], "1 conversation of messages form"),
        (share(("human", "w2"), ("gpt", "w3")), [USER, GPT], "1 conversation of ShareGPT form"),
        (
            {**share(("human", "w2")), "system": "w9"},
            [{"role": "system", "content": "w9"}, USER],
            "1 conversation of ShareGPT form",
        ),
        ({"conversations": [USER]}, [USER], "1 conversation of messages form"),
        ({"chat": [USER, GPT]}, [USER, GPT], "1 conversation of messages form"),
        ({"conversations": ["w2", "w3"]}, [USER, GPT], "1 conversation of turns, the user's first"),
        ({"conversations": [{"from": "human", "content": "w2"}]}, [USER], "1 conversation of ShareGPT form"),
        ({"conversations": [{"role": "human", "value": "w2"}]}, [USER], "1 conversation of messages form"),
        ({"messages": None, "text": "w2"}, "w2", "1 record of column 'text'"),
        ({"text": "", "messages": [USER]}, [USER], "1 conversation of messages form"),
        ({"text": None, "prompt": "w2", "completion": " w3"}, "w2 w3", "1 record of prompt and completion"),
        (
            {"prompt": None, "question": "w2", "answer": None, "solution": "w3"},
            "w2\n\nw3",
            "1 record of question and solution",
        ),
        ({"prompt": "w2", "completion": " w3"}, "w2 w3", "1 record of prompt and completion"),
        ({"prompt": "w2", "completion": "w3"}, "w2\nw3", "1 record of prompt and completion"),
        ({"prompt": "w2", "response": "w3"}, "w2\nw3", "1 record of prompt and response"),
        ({"prompt": [USER], "completion": [GPT]}, [USER, GPT], "1 record of prompt and completion"),
        ({"question": "w2", "answer": "w3"}, "w2\n\nw3", "1 record of question and answer"),
        ({"input": "w2", "output": "w3"}, "w2\n\nw3", "1 record of input and output"),
        (
            {"instruction": "w2", "input": "w4", "output": "w3"},
            "w2\n\nw4\n\nw3",
            "1 record of instruction, input and output",
        ),
        (
            {"instruction": "w2", "input": "", "output": "w3"},
            "w2\n\nw3",
            "1 record of instruction, input and output",
        ),
        ({"instruction": "w2", "output": "w3"}, "w2\n\nw3", "1 record of instruction and output"),
        ({"chosen": "w2 w3"}, "w2 w3", "1 record of chosen"),
        ({"prompt": "w2", "chosen": "w3"}, "w2\nw3", "1 record of prompt and chosen"),
        ({"prompt": "w2", "chosen": "w2 w3"}, "w2 w3", "1 record of prompt and chosen"),
        ({"prompt": "w2", "chosen": [USER, GPT]}, [USER, GPT], "1 record of prompt and chosen"),
        ({"prompt": [USER], "chosen": [GPT]}, [USER, GPT], "1 record of prompt and chosen"),
        ({"prompt": [USER], "chosen": "w3"}, [USER, GPT], "1 record of prompt and chosen"),
        ({"chosen": [USER, GPT]}, [USER, GPT], "1 record of chosen"),
    ],
)
def test_every_form_is_read_whole_and_named(record: Any, document: Any, form: str) -> None:
    counts = Counts()
    assert document_of(record, "d.jsonl line 1", None, counts) == document
    assert (counts.told(), counts.missing()) == (form, "")


def test_the_report_names_the_forms_of_a_mixed_file(tmp_path: Path) -> None:
    got = load(tmp_path, [*[share(("human", f"w{i}")) for i in range(2, 14)], {"text": "w40"}, "w41"])
    assert got.read == "12 conversations of ShareGPT form, 1 record of column 'text', 1 text"
    assert sorted(set(got.token_ids.flatten().tolist()) & set(range(2, 64))) == [*range(2, 14), 40, 41]


def test_columns_that_are_not_read_are_said() -> None:
    counts = Counts()
    for at in range(3):
        document_of({"prompt": "w2", "chosen": "w3", "rejected": "w4", "id": at, "note": None}, "x", None, counts)
    assert counts.missing() == "columns 'rejected', 'id' of 3 records not read"
    many = Counts()
    document_of({"text": "w2", **{f"c{i}": 1 for i in range(9)}}, "x", None, many)
    assert many.missing() == "columns 'c0', 'c1', 'c2', 'c3', 'c4', 'c5' and 3 more of 1 record not read"
    asked_for = Counts()
    assert document_of({"text": "w2", "body": "w3"}, "x", "body", asked_for) == "w3"
    assert asked_for.missing() == "", "who names a column knows of the others"


def test_a_system_column_is_read_once() -> None:
    own = [{"role": "system", "content": "w8"}, USER]
    counts = Counts()
    assert document_of({"messages": own, "system": "w9"}, "x", None, counts) == own
    assert counts.missing() == "column 'system' of 1 record not read"


def test_a_half_that_is_empty_is_counted_and_the_other_is_read(tmp_path: Path) -> None:
    records = [
        {"prompt": "w2", "completion": "w3"},
        {"prompt": "w4", "completion": None},
        {"prompt": "", "completion": "w5"},
        {"prompt": "", "completion": ""},
    ]
    got = load(tmp_path, records)
    assert got.read == "4 records of prompt and completion"
    assert set(got.token_ids.flatten().tolist()) - {1} <= {2, 3, 4, 5}
    for words in ("1 empty document", "1 record with an empty 'completion'", "1 record with an empty 'prompt'"):
        assert words in got.dropped


def test_the_answer_of_a_multiple_choice_is_a_column_that_is_not_read() -> None:
    counts = Counts()
    assert document_of({"question": "w2", "choices": ["a", "b"], "answer": 1}, "x", None, counts) == "w2"
    assert counts.told() == "1 record of column 'question'"
    assert counts.missing() == "columns 'choices', 'answer' of 1 record not read"


def test_an_option_still_names_a_column_of_conversations(tmp_path: Path) -> None:
    record = {"text": "w9", "talk": [{"from": "human", "value": "w2"}]}
    assert load(tmp_path, [record], text_column="talk", seq_len=3).token_ids.tolist() == [[64, 2, 1]]


CALL = {"id": "1", "type": "function", "function": {"name": "get", "arguments": '{"city": "w7"}'}}
TOOLS = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "w5"}]


def test_tool_calls_reach_a_template_that_shows_them(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% for c in m['tool_calls'] or [] %}"
        "{{ c['function']['arguments']['city'] }} {% endfor %}{% endfor %}"
    )
    got = load(tmp_path, [{"messages": TOOLS}], template, seq_len=7)
    assert got.token_ids.tolist() == [[64, 2, 65, 7, 67, 5, 1]]
    assert "tool_calls" not in got.dropped


def test_tool_calls_that_a_template_has_no_words_for_are_counted(tmp_path: Path) -> None:
    got = load(tmp_path, [{"messages": TOOLS}] * 2, "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}")
    assert "2 messages whose tool_calls the chat template does not show" in got.dropped
    assert got.read == "2 conversations of messages form"


def test_parts_are_joined_and_pictures_counted(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "w2", "image": None},
        {"type": "image_url", "image_url": {"url": "x"}},
        "w3",
        {"type": "input_audio"},
        {"text": "w4"},
    ]
    got = load(tmp_path, [{"messages": [{"role": "user", "content": parts, "tool_calls": None}]}], seq_len=5)
    assert got.token_ids.tolist() == [[64, 2, 3, 4, 1]]
    assert got.dropped.startswith("only 1 of 99")
    assert got.dropped.endswith("1 part of kind 'image_url'; 1 part of kind 'input_audio'")


def test_a_message_without_content_keeps_its_place_and_is_counted() -> None:
    counts = Counts()
    said = [USER, {"role": "assistant", "content": None}, USER]
    got = document_of({"messages": said}, "x", None, counts)
    assert [message["role"] for message in got if isinstance(message, dict)] == ["user", "assistant", "user"]
    assert counts.missing() == "1 message without content"


@pytest.mark.parametrize(
    ("who", "role"),
    [("human", "user"), ("GPT", "assistant"), ("system", "system"), ("observation", "tool"), ("user", "user"),
     ("function_call", "assistant"), ("tool", "tool"), ("assistant", "assistant")],
)  # fmt: skip
def test_speakers_of_sharegpt(who: str, role: str) -> None:
    assert messages_of([{"from": who, "value": "x"}], "", Counts().left_out) == (
        "ShareGPT",
        [{"role": role, "content": "x"}],
    )


def test_what_a_template_refuses_is_counted_and_the_rest_read(tmp_path: Path) -> None:
    template = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}" + PLAIN
    starts_wrong = share(("gpt", "w2"), ("human", "w3"))
    got = load(tmp_path, [share(("human", "w4")), starts_wrong], template, seq_len=3)
    assert got.token_ids.tolist() == [[64, 4, 1]]
    assert got.dropped.endswith("1 conversation that the chat template refused (user first)")
    with pytest.raises(CalibrationError, match="refused all 2 conversations: user first"):
        load(tmp_path, [starts_wrong] * 2, template)


def test_half_a_character_is_replaced_and_counted(tmp_path: Path) -> None:
    """JSON can hold half of a surrogate pair, as a file has it that was cut by bytes."""
    half = "w2 \ud83d w3"
    got = load(tmp_path, [{"text": half}, {"messages": [{"role": "user", "content": half}]}], seq_len=4)
    assert sorted(got.token_ids.tolist()) == [[2, 0, 3, 1], [64, 2, 0, 3]]
    assert "2 texts with half a character, which was replaced" in got.dropped


def test_lines_in_a_json_file_are_read_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('{"text": "w2 w3"}\n{"text": "w4 w5"}\n')
    assert load_sequences(path, tokenizer(), samples=9, seq_len=3).read == "2 records of column 'text'"
    path.write_text('{"text": "w2 w3"}\n{"text": \n')
    with pytest.raises(CalibrationError, match=r"d\.json line 2 is no JSON"):
        load_sequences(path, tokenizer(), samples=9, seq_len=3)


def test_nothing_is_read_of_empty_conversations(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="gives 0 tokens"):
        load(tmp_path, [{"conversations": []}, {"messages": None}])
    got = load(tmp_path, [{"conversations": []}, share(("human", "w2"))])
    assert "1 empty document" in got.dropped


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (5, "line 1: expected an object, found int"),
        ([1, 2], "line 1: expected an object, found list"),
        (None, "line 1: expected an object, found NoneType"),
        ({}, "line 1 has no text column; it is empty"),
        ({"id": 1}, "line 1 has no text column; it has 'id'; use text_column"),
        (share(("narrator", "w2")), "line 1: 'conversations' message 1 is from 'narrator'; known: human, user, gpt"),
        ({"conversations": [{"from": "human"}]}, "'conversations' holds a list whose item 1 is an object with 'from'"),
        ({"conversations": [{"from": 3, "value": "x"}]}, "message 1: 'from' holds int, expected text"),
        (share(("human", "a"), ("gpt", 3)), "message 2: its content is int, expected text or a list of parts"),
        ({"messages": ["w2", 3]}, "'messages' holds a list whose item 1 is str"),
        ({"messages": {"role": "user"}}, "'messages' holds dict"),
        ({"messages": [{"role": None, "content": "x"}]}, "message 1: 'role' holds NoneType"),
        ({"messages": [{"role": "user", "content": [3]}]}, "a part of its content is int"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "a text part holds NoneType"),
        ({"prompt": 3, "completion": "w2"}, "'prompt' holds int, expected text or messages"),
        ({"chosen": 3}, "has no text column; it has 'chosen'"),
        ({"text": 3}, "'text' holds int"),
        ({"text": True, "messages": []}, None),
    ],
)  # fmt: skip
def test_bad_records(tmp_path: Path, record: Any, words: str | None) -> None:
    with pytest.raises(CalibrationError) as error:
        load(tmp_path, [record])
    assert "\n" not in str(error.value)
    assert words is None or words in str(error.value)


def test_every_record_of_a_file_is_either_read_or_refused(tmp_path: Path) -> None:
    """A good first record does not hide a bad later one."""
    with pytest.raises(CalibrationError, match="line 3: expected an object, found float"):
        load(tmp_path, [{"text": "w2 w3"}, share(("human", "w2")), 1.5])


KEYS = ["messages", "conversations", "text", "content", "prompt", "completion", "chosen", "rejected", "instruction",
        "input", "output", "question", "answer", "system", "role", "from", "value", "type", "tool_calls", "function",
        "arguments", "id"]  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", " ", "human", "gpt", "user", "{"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(VALUES)
def test_any_record_is_a_document_that_is_counted_once_or_one_line(record: Any) -> None:
    counts, refused = Counts(), ""
    document: Any = None
    try:
        document = document_of(record, "d.jsonl line 1", None, counts)
    except CalibrationError as error:
        refused = str(error)
    messages = document if isinstance(document, list) else []
    assert refused.startswith("d.jsonl line 1") or isinstance(document, str) or messages is document
    assert "\n" not in refused
    assert refused or sum(counts.read.values()) == 1
    assert all(isinstance(message["role"], str) and isinstance(message["content"], str) for message in messages)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["human", "gpt", "system"]), st.text(max_size=5)), min_size=1, max_size=5))
def test_both_forms_of_a_conversation_are_the_same_messages(turns: list[tuple[str, str]]) -> None:
    role = {"human": "user", "gpt": "assistant", "system": "system"}
    openai = [{"role": role[who], "content": text} for who, text in turns]
    assert document_of(share(*turns), "x", None, Counts()) == document_of({"messages": openai}, "x", None, Counts())


def test_a_table_of_conversations(tmp_path: Path) -> None:
    """Parquet gives every message every key, and None where it has none."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    rows = [
        {"messages": [{"role": "user", "content": "w2", "tool_calls": None}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}]},
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    got = load_sequences(tmp_path / "d.parquet", tokenizer(), samples=9, seq_len=2)
    assert got.read == "2 conversations of messages form"
    assert "1 message whose tool_calls the chat template does not show" in got.dropped
    assert "without content" not in got.dropped
