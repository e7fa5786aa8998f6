"""Packed words: what differs comes back to a step, whatever the numbers, and what is no word is refused."""

import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srdd.core.uncertainty import jackknife
from srdd.documents.packed import join, pack, split, unpack


def test_the_worked_number() -> None:
    word = pack([0.1, 0.3, 0.2])
    step = 2.0**-8.5
    assert unpack(word, 0.2) == pytest.approx([0.2 - 36 * step, 0.2 + 36 * step, 0.2], abs=1e-15)


@given(st.lists(st.floats(-1000, 1000), min_size=2, max_size=16))
def test_differences_come_back_to_a_step(values: list[float]) -> None:
    word = pack(values)
    middle = math.fsum(values) / len(values)
    back = unpack(word, middle)
    most = max(abs(value - middle) for value in values)
    step = max(math.sqrt(2) * most / 45, 2.0**-35)
    assert len(word) == 1 + len(values)
    assert all(abs(a - b) <= 0.51 * step for a, b in zip(values, back, strict=True))
    assert jackknife([a - b for a, b in zip(values, back, strict=True)]) <= 0.06 * jackknife(values) + 1e-9


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=16))
def test_words_stand_in_json_and_among_others(values: list[float]) -> None:
    word = pack(values)
    assert set(word) <= set(string.printable) - set(string.whitespace) - {'"', "\\"}
    assert word != "="


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 1.0]])
def test_what_is_not_finite_has_no_word(values: list[float]) -> None:
    assert pack(values) == ""


def test_what_nobody_sees_is_no_difference() -> None:
    assert unpack(pack([1.0, 1.0001, 0.9999], least=1e-3), 1.0) == [1.0, 1.0, 1.0]
    assert unpack(pack([1.0, 1.1, 0.9], least=1e-3), 1.0) != [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "words",
    [
        ["abc"],
        [""],
        ["", ""],
        ["abc", "abc", "abc"],
        ["abc", "abd"],
        ["abc", "", "ab", "ab"],
        ["", "abc", "abc"],
        ["ab"] * 30,
        ["ab", *["cd"] * 30],
    ],
)
def test_many_words_in_one_text(words: list[str]) -> None:
    text = join(words)
    assert split(text, len(words)) == words
    assert len(text) <= len(" ".join(words))


@pytest.mark.parametrize(("text", "count"), [("abc def", 3), ("abcd", 3), ("", 2), ("a b c", 2), ("ab", 2)])
def test_texts_of_another_count_are_refused(text: str, count: int) -> None:
    with pytest.raises(ValueError, match="no packed words"):
        split(text, count)


@pytest.mark.parametrize("word", ["a", 'a"b', "a\\b", "é123", "a~"])
def test_what_is_no_word_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="no packed word"):
        unpack(word, 0.0)
