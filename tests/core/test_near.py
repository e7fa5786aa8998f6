"""What somebody may have meant, by each kind of name."""

from pathlib import Path

import pytest

from srdd.core.formats import parse
from srdd.core.metrics import any_metric, choose_metric
from srdd.core.near import did_you_mean
from srdd.core.packaged_models import near_model
from srdd.errors import FormatError, SettingError


@pytest.mark.parametrize(
    ("typed", "end"),
    [
        ("mxpf4", "; did you mean mxfp4?"),  # 4 of 5 letters in order: 0.8
        ("MXFP4 ", "; did you mean mxfp4?"),
        ("nvpf4", "; did you mean nvfp4?"),
        ("abcd", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_ends_the_message(typed: str, end: str) -> None:
    assert did_you_mean(typed, ["nvfp4", "mxfp4", "mxint8"]) == end


def test_no_known_name_is_near_anything() -> None:
    assert did_you_mean("mxfp4", []) == ""


@pytest.mark.parametrize(
    ("spec", "end"),
    [("mxpf4", "did you mean mxfp4?"), ("mxfp8e4m3", "did you mean mxfp8_e4m3?"), ("mxfp4:rciel", "mean rceil?")],
)
def test_a_format_or_rule_that_is_mistyped(spec: str, end: str) -> None:
    with pytest.raises(FormatError, match="unknown") as caught:
        parse(spec)
    assert str(caught.value).endswith(end)


def test_a_metric_that_is_mistyped() -> None:
    for choose in (choose_metric, any_metric):
        with pytest.raises(SettingError) as caught:
            choose("relativ_eror")
        assert str(caught.value).endswith("; did you mean relative_error?")


def test_a_metric_without_a_better_side_is_not_suggested_nor_mistyped() -> None:
    with pytest.raises(SettingError) as caught:
        choose_metric("kurtosis")
    assert "did you mean" not in str(caught.value)


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Models" / "Tiny-Llama").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert near_model("smollm") == "; did you mean smollm2?"
    assert near_model("minlm") == "; did you mean minilm?"
    assert near_model("somebody/smollm2") == ""
    assert near_model("models/tiny-llama") == "; did you mean Models/Tiny-Llama?"
    assert near_model(str(tmp_path / "models" / "Tiny-llama")) == f"; did you mean {tmp_path}/Models/Tiny-Llama?"
    assert near_model("Models/Tiny-Llama") == ""
    assert near_model("models/other") == ""
    assert near_model("") == ""
