"""Layers as users write them: one parser, one error, one limit."""

from __future__ import annotations

import pytest

from srdd.core.layers import parse_layers, parse_spans, parse_zones, span
from srdd.errors import SettingError

BAD = ["", "a", "3-1", "1-", "-1", "0--2", "0-99999999999", "²", "0-" + 9999 * "9", "0-3,,4", "1.5", "100000"]


def test_layers_zones_and_spans() -> None:
    assert parse_layers("29, 0-3,2 - 4") == (0, 1, 2, 3, 4, 29)
    assert parse_layers("007-8") == (7, 8)
    assert parse_layers("99999") == (99_999,)
    assert parse_zones("0-1,5") == {"0-1": [0, 1], "5": [5]}
    assert [(part.text, part.first, part.last) for part in parse_spans(" 4-9 ,10")] == [("4-9", 4, 9), ("10", 10, 10)]
    assert span([0, 1, 2, 5]) == "0-2,5"


@pytest.mark.parametrize("text", BAD)
def test_bad_layers_are_refused(text: str) -> None:
    for parse in (parse_layers, parse_zones, parse_spans):
        with pytest.raises(SettingError) as problem:
            parse(text, "layers")
        assert problem.value.setting == "layers"
        assert problem.value.found == repr(text)


def test_a_layer_is_in_one_zone() -> None:
    with pytest.raises(SettingError, match=r"zones='0-4,3-5': layer\(s\) 3-4 are in two zones"):
        parse_zones("0-4,3-5")
