"""Which files of a folder count, and which copy of a tensor: the same with a model and without, and said."""

import gc
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import srdd
from srdd.errors import SourceError
from srdd.models.files import weights_hash
from srdd.models.files.arranged import arranged
from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.files.folders import weight_files
from srdd.models.files.safetensors import header_of
from srdd.models.source import open_model

Tensors = dict[str, torch.Tensor]
NAME = "model.layers.1.mlp.down_proj.weight"
INDEX = "model.safetensors.index.json"


def save(folder: Path, tensors: Tensors, file: str = "model.safetensors") -> None:
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / file, {"format": "pt"})


def index(folder: Path, where: dict[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))


@pytest.fixture
def parts(tmp_path: Path, tiny_llama: Path) -> tuple[Path, Tensors]:
    """A folder with the tiny model's config, and its tensors to save there."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_bytes((tiny_llama / "config.json").read_bytes())
    return tmp_path / "m", load_file(tiny_llama / "model.safetensors")


def thirds(folder: Path, tensors: Tensors, count: int = 3, stem: str = "model", first: int = 1) -> dict[str, str]:
    where = {}
    for at in range(count):
        file = f"{stem}-{at + first:05d}-of-{count:05d}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[at::count]}
        save(folder, part, file)
        where |= dict.fromkeys(part, file)
    return where


def opened_both_ways(folder: Path, tensors: Tensors, files: list[str]) -> tuple[str, ...]:
    """The notes, after it is certain that both ways read exactly these values from exactly these files."""
    checkpoint, model = open_checkpoint(str(folder)), open_model(str(folder))
    state = model.model.state_dict()
    for name, tensor in tensors.items():
        read = torch.cat([chunk.clone() for chunk in checkpoint.row_chunks(name)]).view(tensor.shape)
        assert torch.equal(read, tensor), name
        assert torch.equal(state[name], tensor), name
    hashed = weights_hash((header_of(folder / file)[0], (folder / file).stat().st_size) for file in files)
    assert checkpoint.identity.weights_hash == model.identity.weights_hash == hashed
    assert model.notes == checkpoint.notes
    return model.notes


def refused_both_ways(folder: Path) -> str:
    with pytest.raises(SourceError) as with_model:
        open_model(str(folder))
    with pytest.raises(SourceError) as without:
        open_checkpoint(str(folder))
    assert str(with_model.value) == str(without.value)
    assert "\n" not in str(without.value)
    return str(without.value)


@pytest.mark.parametrize("good", [1, 2], ids=["first", "last"])
def test_the_copy_that_the_index_names_counts(parts: tuple[Path, Tensors], good: int) -> None:
    folder, tensors = parts
    stale = {NAME: tensors[NAME] + 1, "model.norm.weight": tensors["model.norm.weight"]}
    names = [f"model-0000{number}-of-00002.safetensors" for number in (good, 3 - good)]
    save(folder, {name: tensor for name, tensor in tensors.items() if name != "model.norm.weight"}, names[0])
    save(folder, stale, names[1])
    index(folder, {**dict.fromkeys(tensors, names[0]), "model.norm.weight": names[1]})
    (note,) = opened_both_ways(folder, tensors, sorted(names))
    assert note == f"{NAME} is stored twice; read as the index names it, from {names[0]} and not from {names[1]}"


@pytest.mark.parametrize("crossed", [0, 1], ids=["one way", "the other way"])
def test_copies_that_each_file_has_right_and_wrong(parts: tuple[Path, Tensors], crossed: int) -> None:
    """No order of files gives both."""
    folder, tensors = parts
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    where = {name: names[(at + crossed) % 2] for at, name in enumerate(sorted(tensors))}
    for file in names:
        save(folder, {name: tensor + (where[name] != file) for name, tensor in tensors.items()}, file)
    index(folder, where)
    (note,) = opened_both_ways(folder, tensors, names)
    assert note.startswith(f"{len(tensors)} tensors, ")


def test_links_are_gone_with_the_model(parts: tuple[Path, Tensors], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, tensors = parts
    (folder.parent / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder.parent / "tmp"))
    thirds(folder, tensors)
    opened = open_model(str(folder))
    assert str(opened.model.config._name_or_path) == str(folder)
    assert len(list((folder.parent / "tmp").iterdir())) == 1
    del opened
    gc.collect()
    assert list((folder.parent / "tmp").iterdir()) == []
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-type"}))
    with pytest.raises(SourceError, match="no-such-type") as error:
        open_model(str(folder))
    assert str(folder.parent) not in str(error.value)
    assert list((folder.parent / "tmp").iterdir()) == []


def test_the_report_of_either_scan_holds_the_note(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    save(folder, tensors, "model-00001-of-00001.safetensors")
    index(folder, dict.fromkeys(tensors, "model-00001-of-00001.safetensors"))
    save(folder, {"extra.weight": torch.ones(2, 2)}, "consolidated.safetensors")
    report = srdd.scan_checkpoint(open_checkpoint(str(folder)), "mxfp4")
    assert "not read: consolidated.safetensors, which the index does not name" in report.warnings
    assert not [site for site in report.sites if "extra" in site.name]


def test_a_name_twice_that_the_index_does_not_decide(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    where = thirds(folder, tensors)
    index(folder, where)
    for file in ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"):
        save(folder, {**load_file(folder / file), "odd": torch.ones(2)}, file)
    assert "odd is stored twice, in model-00001-of-00003" in refused_both_ways(folder)


def test_a_name_twice_without_an_index(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    thirds(folder, tensors)
    save(
        folder,
        {**load_file(folder / "model-00001-of-00003.safetensors"), **tensors},
        "model-00001-of-00003.safetensors",
    )
    assert "and there is no index; remove one" in refused_both_ways(folder)


def test_a_copy_in_another_shard_than_the_index_says(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    where = thirds(folder, tensors)
    there = where[NAME]
    wrong = next(file for file in sorted(set(where.values())) if file != there)
    index(folder, {**where, NAME: wrong})
    (note,) = opened_both_ways(folder, tensors, sorted(set(where.values())))
    assert note == f"{NAME} is not where the index says, in {wrong}; read from {there}"


def test_a_tensor_of_a_shard_that_the_index_forgot(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    where = thirds(folder, tensors)
    files = sorted(set(where.values()))
    del where[NAME]
    index(folder, where)
    assert opened_both_ways(folder, tensors, files) == (
        f"{NAME} is in the shards but not in the index; read all the same",
    )


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_a_shard_missing_without_an_index(parts: tuple[Path, Tensors], gone: int) -> None:
    folder, tensors = parts
    thirds(folder, tensors)
    (folder / f"model-0000{gone}-of-00003.safetensors").unlink()
    assert f"holds 2 of 3 shards: number {gone} is missing" in refused_both_ways(folder)


@pytest.mark.parametrize("first", [0, 1])
def test_all_shards_without_an_index(parts: tuple[Path, Tensors], first: int) -> None:
    folder, tensors = parts
    files = sorted(set(thirds(folder, tensors, first=first).values()))
    assert opened_both_ways(folder, tensors, files) == ()


def test_a_single_file_beside_an_index(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    where = thirds(folder, tensors)
    index(folder, where)
    save(folder, {name: tensor + 1 for name, tensor in tensors.items()})
    notes = opened_both_ways(folder, tensors, sorted(set(where.values())))
    assert notes == ("not read: model.safetensors, which the index does not name",)
    (folder / "model-00002-of-00003.safetensors").unlink()
    line = refused_both_ways(folder)
    assert "model-00002-of-00003.safetensors is missing" in line
    assert "if model.safetensors is all of it, remove the index" in line


def test_an_index_that_names_the_single_file(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    save(folder, tensors)
    index(folder, dict.fromkeys(tensors, "model.safetensors"))
    assert opened_both_ways(folder, tensors, ["model.safetensors"]) == ()


def test_a_single_file_beside_shards_without_an_index(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    thirds(folder, {name: tensor + 1 for name, tensor in tensors.items()}, count=4)
    save(folder, tensors)
    (note,) = opened_both_ways(folder, tensors, ["model.safetensors"])
    assert note.startswith("not read: model-00001-of-00004.safetensors, ")
    assert note.endswith("model-00003-of-00004.safetensors and 1 more, beside what was read")


def test_two_splits(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    thirds(folder, tensors, count=2)
    where = thirds(folder, tensors, count=3)
    assert "2 of 2 shards model and 3 of 3 shards model, and no index says which" in refused_both_ways(folder)
    index(folder, where)
    (note,) = opened_both_ways(folder, tensors, sorted(set(where.values())))
    assert "model-00001-of-00002.safetensors" in note


def test_what_stands_beside_a_model_is_not_of_it(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    save(folder, tensors, "model-00001-of-00001.safetensors")
    save(folder, {"layers.0.attention.wq.weight": torch.randn(64, 64)}, "consolidated.safetensors")
    save(folder, {"base_model.model.q_proj.lora_A.weight": torch.randn(8, 64)}, "adapter_model.safetensors")
    (note,) = opened_both_ways(folder, tensors, ["model-00001-of-00001.safetensors"])
    assert note == "not read: adapter_model.safetensors, consolidated.safetensors, beside what was read"


def test_an_adapter_beside_a_model_is_not_put_onto_it(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    save(folder, tensors)
    save(folder, {"base_model.model.q_proj.lora_A.weight": torch.randn(8, 64)}, "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    notes = opened_both_ways(folder, tensors, ["model.safetensors"])
    assert notes == ("not read: adapter_model.safetensors, beside what was read",)
    read = weight_files(folder)
    assert read is not None
    links = arranged(folder, read)
    assert sorted(path.name for path in links.iterdir()) == [
        "config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
    ]
    shutil.rmtree(links)


def test_files_of_other_names(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    save(folder, {name: tensor for name, tensor in tensors.items() if ".0." in name}, "a.safetensors")
    with pytest.raises(SourceError, match="lacks"):
        open_model(str(folder))
    save(folder, {name: tensor for name, tensor in tensors.items() if ".0." not in name}, "b.safetensors")
    notes = opened_both_ways(folder, tensors, ["a.safetensors", "b.safetensors"])
    assert notes == ("read a.safetensors, b.safetensors: there is no model.safetensors and no index",)


def test_pickled_weights_beside_something_else(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    torch.save(tensors, folder / "pytorch_model.bin")
    save(folder, {"v_head.weight": torch.randn(1, 64)}, "value_head.safetensors")
    opened = open_model(str(folder))
    assert torch.equal(opened.model.state_dict()[NAME], tensors[NAME])
    assert opened.identity.weights_hash is None


def test_one_shard_as_a_file(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    thirds(folder, tensors)
    checkpoint = open_checkpoint(str(folder / "model-00002-of-00003.safetensors"))
    assert checkpoint.notes == ("model-00002-of-00003.safetensors is one shard of 3; the others were not read",)


def test_the_type_is_found_where_config_and_transformers_know_none(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if k not in ("dtype", "torch_dtype")})
    )
    thirds(folder, {name: tensor.bfloat16() for name, tensor in tensors.items()})
    assert open_model(str(folder)).identity.dtype == "bfloat16"


@pytest.mark.parametrize("single", ["down_proj", "gate_proj"])
def test_experts_fused_and_one_by_one(tmp_path: Path, single: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_moe"}))
    owner = "model.layers.0.mlp.experts"
    one_by_one = {f"{owner}.{expert}.{single}.weight": torch.randn(32, 64) for expert in range(2)}
    save(tmp_path, {f"{owner}.down_proj": torch.randn(2, 32, 64), **one_by_one})
    line = refused_both_ways(tmp_path)
    assert f"the experts of {owner} are stored twice, fused ({owner}.down_proj)" in line
    assert f"one by one ({owner}.0.{single}.weight)" in line


def test_experts_of_other_layers_may_be_of_the_other_form(tmp_path: Path) -> None:
    fused, single = "model.layers.0.mlp.experts.down_proj", "model.layers.1.mlp.experts.0.down_proj.weight"
    save(tmp_path, {fused: torch.randn(2, 32, 64), single: torch.randn(32, 64), f"{fused}_bias": torch.randn(2, 32)})
    assert len(open_checkpoint(str(tmp_path)).tensors) == 3


def test_layers_that_no_file_holds_are_said(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    save(folder, {name: tensor for name, tensor in tensors.items() if ".2." not in name})
    said = "config.json says 3 layers, and the files hold weights of 2"
    assert said in srdd.scan_checkpoint(open_checkpoint(str(folder)), "mxfp4").warnings
    with pytest.raises(SourceError, match=r"lacks 9 weights .*; get the checkpoint again, or correct config\.json"):
        open_model(str(folder))
    save(folder, tensors)
    whole = srdd.scan_checkpoint(open_checkpoint(str(folder)), "mxfp4", "weight:*layers.0*")
    assert not [warning for warning in whole.warnings if "layers" in warning], "all are there, one is measured"


def test_no_shards_in_an_index(parts: tuple[Path, Tensors]) -> None:
    folder, tensors = parts
    save(folder, tensors)
    index(folder, {})
    assert refused_both_ways(folder) == f"{INDEX} names no shard; get the checkpoint again"


def test_a_hub_model_is_read_by_its_index_too(
    tmp_path: Path, parts: tuple[Path, Tensors], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache as a download of everything leaves it, with a single file of other values; no network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder, tensors = parts
    index(folder, thirds(folder, tensors))
    save(folder, {name: tensor + 1 for name, tensor in tensors.items()})
    snapshot = tmp_path / "models--somebody--tiny" / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (tmp_path / "models--somebody--tiny/refs").mkdir()
    (tmp_path / "models--somebody--tiny/refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    opened, stored = open_model("somebody/tiny"), open_checkpoint("somebody/tiny")
    assert torch.equal(opened.model.state_dict()[NAME], tensors[NAME])
    assert opened.identity.weights_hash == stored.identity.weights_hash
    assert opened.notes == stored.notes == ("not read: model.safetensors, which the index does not name",)
