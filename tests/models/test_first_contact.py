"""What people point at by mistake: one line says what it is and what to type, with a model and without."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from srdd.errors import SourceError
from srdd.models.checkpoint_sites import checkpoint_sites
from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.source import open_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d" * 32 + "\nsize 12345\n"
LFS = "is a pointer of Git LFS, not the file itself; fetch it in its folder: git lfs pull"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, tiny_llama: Path) -> Path:
    """A whole model, to be spoiled."""
    shutil.copytree(tiny_llama, tmp_path / "m")
    return tmp_path / "m"


def line_of(name: str | Path, opened: Callable[[str], Any] = open_model) -> str:
    with pytest.raises(SourceError) as error:
        opened(str(name))
    text = str(error.value)
    assert "\n" not in text
    for silenced in ("above", "load report", "LOAD REPORT", "ignore_mismatched_sizes"):
        assert silenced not in text
    return text


def line_both_ways(name: str | Path) -> str:
    line = line_of(name)
    assert line_of(name, open_checkpoint) == line
    return line


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def renamed(folder: Path, rename: Callable[[str], str]) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {rename(name): tensor for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )


def test_pointers_of_git_lfs(folder: Path) -> None:
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(POINTER)
    assert line_both_ways(folder) == f"config.json {LFS}"
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_text(POINTER)
    assert line_both_ways(folder) == f"model.safetensors {LFS}"
    assert line_both_ways(folder / "model.safetensors") == f"model.safetensors {LFS}"
    (folder / "model.safetensors.index.json").write_text(POINTER)
    assert line_both_ways(folder) == f"model.safetensors.index.json {LFS}"
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert line_of(folder) == f"pytorch_model.bin {LFS}"


def test_a_tokenizer_that_is_a_pointer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(POINTER)
    assert open_model(str(folder)).tokenizer_problem == f"tokenizer.json {LFS}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(90), "is a pickled file, no safetensors; save the model again"),
        (b"\x80\x02}q" + bytes(90), "is a pickled file"),
        (b"GGUF" + bytes(90), "is a GGUF file under another name; call it model.gguf"),
        (b"<!DOCTYPE html><html>", "is a web page, not the file itself; download it again"),
        (b"", "is no complete safetensors file (0 bytes)"),
    ],
    ids=["zip", "pickle", "gguf", "page", "empty"],
)
def test_other_things_called_safetensors(folder: Path, content: bytes, words: str) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert words in line_both_ways(folder)
    assert words in line_both_ways(folder / "model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_file_of_the_folder_that_holds_no_weights(folder: Path, name: str) -> None:
    assert line_both_ways(folder / name) == f"{name} holds no weights; give the folder that it is in: {folder}"


def test_ranks_of_a_training_run_and_the_folder_beside_them(tmp_path: Path, folder: Path) -> None:
    actor = tmp_path / "actor"
    actor.mkdir()
    for rank in range(2):
        torch.save({}, actor / f"model_world_size_2_rank_{rank}.pt")
    merge = f"python -m verl.model_merger merge, with backend fsdp, local_dir {actor} and a target_dir to scan"
    assert line_both_ways(actor) == (
        "actor holds the ranks of a training run (verl with FSDP), which are parts of tensors; merge them first: "
        + merge
    )
    (folder / "model.safetensors").unlink()
    folder.rename(actor / "huggingface")
    assert line_both_ways(actor / "huggingface") == (
        "huggingface holds the config and tokenizer of a training run; its weights are the ranks beside it; merge them "
        f"first: {merge}"
    )
    assert str(actor) in line_both_ways(actor), "the same with a model in the folder beside"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["zero_to_fp32.py", "latest"], "holds a DeepSpeed checkpoint, whose files are parts of tensors; merge them "),
        (["global_step9/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"], "python zero_to_fp32.py . MERGED"),
        (["pytorch_model_fsdp_0/__0_0.distcp"], "distributed checkpoint of PyTorch"),
        (["__0_0.distcp", ".metadata"], "accelerate merge-weights"),
        (["latest_checkpointed_iteration.txt"], "Megatron checkpoint"),
        (["mp_rank_00/model_optim_rng.pt"], "Megatron checkpoint"),
        (["consolidated.00.pth", "params.json"], "holds weights in Meta's own form"),
        (["model_index.json", "text_encoder/config.json"], "pipeline of diffusers"),
        (["onnx/model.onnx"], "ONNX graph"),
        (["tf_model.h5"], "Flax or TensorFlow"),
        (["x-Q4_0.gguf", "README.md"], "holds GGUF files; give one of them: {folder}/x-Q4_0.gguf"),
        (["checkpoint-5/config.json", "checkpoint-7/config.json"], "give one of them: {folder}/checkpoint-7"),
    ],
)
@pytest.mark.parametrize("config", [True, False])
def test_folders_of_other_programs(tmp_path: Path, files: list[str], words: str, config: bool) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    if config:
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert words.format(folder=tmp_path) in line_both_ways(tmp_path)


def test_an_adapter_without_its_config(tmp_path: Path) -> None:
    save_file({"base_model.model.q_proj.lora_A.weight": torch.ones(4, 8)}, tmp_path / "adapter_model.safetensors")
    line = line_both_ways(tmp_path)
    assert line == f"{tmp_path.name} holds an adapter, no whole model; give both: model=BASE adapter={tmp_path}"


def test_a_cache_of_the_hub(tmp_path: Path, folder: Path) -> None:
    cache = tmp_path / "models--org--some-name"
    (cache / "snapshots").mkdir(parents=True)
    assert line_both_ways(cache).endswith(
        "is the hub's cache of org/some-name and holds no model yet; give its id: org/some-name"
    )
    for commit in ("abc", "def"):
        shutil.copytree(folder, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    told = f"is the hub's cache of org/some-name; give its id, or the folder of a snapshot: {cache}/snapshots/abc"
    assert line_both_ways(cache) == f"models--org--some-name {told}"
    assert line_both_ways(f"{cache}/") == f"models--org--some-name {told}"
    assert line_both_ways(cache / "snapshots") == f"snapshots {told}"
    shutil.rmtree(folder)
    assert line_both_ways(tmp_path).endswith(
        "is a hub's cache of models (1 in all); give the id of one, such as org/some-name"
    )
    assert open_model(str(cache / "snapshots" / "abc")).identity.id == "abc"


@pytest.mark.parametrize(
    ("rename", "part", "who", "advice"),
    [
        (lambda n: f"_orig_mod.{n}", "'_orig_mod.'", "torch.compile", "model._orig_mod.save_pretrained(FOLDER)"),
        (lambda n: n.replace("layers.", "layers._orig_mod."), "'_orig_mod.'", "torch.compile", "replace('_orig_mod."),
        (lambda n: f"module.{n}", "'module.'", "DistributedDataParallel", "removeprefix('module.')"),
        (lambda n: f"module._orig_mod.{n}", "'_orig_mod.'", "torch.compile", "replace('_orig_mod.', '')"),
        (lambda n: f"_fsdp_wrapped_module.{n}", "'_fsdp_wrapped_module.'", "FSDP", "the full state dict"),
    ],
)  # fmt: skip
def test_names_of_a_wrapped_model(folder: Path, rename: Callable[[str], str], part: str, who: str, advice: str) -> None:
    renamed(folder, rename)
    line = line_both_ways(folder)
    assert line.startswith(f"m: the names of its tensors hold {part}, as in ")
    assert who in line
    assert advice in line
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert f"the names of its tensors hold {part}" in line_of(folder)


def test_what_the_line_on_wrapped_names_says_to_do_works(folder: Path) -> None:
    before = load_file(folder / "model.safetensors")
    renamed(folder, lambda name: f"module.{name}")
    code = line_both_ways(folder).partition("each file: ")[2].partition(" of safetensors.torch")[0]
    exec(
        code,
        {"save_file": save_file, "load_file": load_file, "OLD": folder / "model.safetensors", "NEW": folder / "new"},
    )
    (folder / "new").rename(folder / "model.safetensors")
    assert open_model(str(folder)).model.state_dict().keys() == before.keys() | {"lm_head.weight"}


def test_a_prefix_of_someone_elses(folder: Path) -> None:
    renamed(folder, lambda name: f"policy.{name}")
    assert "the names of its tensors begin with 'policy.', as in policy.lm_head.weight" in line_of(folder)


def test_a_config_that_quantizes_weights_of_sixteen_bits(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t.bfloat16() for n, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    for method, words in (("mxfp4", "found BF16"), ("fp8", "found BF16"), ("of-tomorrow", "found BF16 without scales")):
        edit(folder, quantization_config={"quant_method": method})
        line = line_of(folder)
        assert line_of(folder, lambda name: checkpoint_sites(open_checkpoint(name))) == line
        assert line.startswith("config.json says that weights are stored in ")
        assert words in line
        assert "remove quantization_config" in line
    edit(folder, quantization_config=None)
    assert open_model(str(folder)).identity.dtype == "float32"


@pytest.mark.parametrize(
    "claimed",
    [
        {},
        {"quant_method": "compressed-tensors", "format": "dense", "config_groups": {}},
        {"quant_method": "compressed-tensors", "config_groups": {}, "kv_cache_scheme": {"num_bits": 8}},
        {"quant_method": "modelopt", "quant_algo": None, "kv_cache_quant_algo": "FP8"},
    ],
)
def test_a_config_that_quantizes_no_weight_is_right(folder: Path, claimed: dict[str, Any]) -> None:
    edit(folder, quantization_config=claimed)
    assert len(checkpoint_sites(open_checkpoint(str(folder))).sites) > 9


@pytest.mark.parametrize(
    ("changes", "name", "stored", "built", "more"),
    [
        ({"intermediate_size": 128}, "model.layers.0.mlp.down_proj.weight", [64, 96], [64, 128], "9 tensors"),
        ({"vocab_size": 65}, "lm_head.weight", [64, 64], [65, 64], "2 tensors"),
        ({"num_key_value_heads": 2}, "model.layers.0.self_attn.k_proj.weight", [64, 64], [32, 64], "6 tensors"),
        ({"hidden_size": 32, "head_dim": 16}, "lm_head.weight", [64, 64], [64, 32], "tensors"),
    ],
)
@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pickled"])
def test_sizes_that_do_not_fit(
    folder: Path, changes: dict[str, int], name: str, stored: list[int], built: list[int], more: str, pickled: bool
) -> None:
    if pickled:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    edit(folder, **changes)
    line = line_of(folder)
    assert line.startswith(f"m holds {name} as {stored}, config.json makes it {built} (")
    assert more in line
    assert line.endswith("correct config.json, or get the checkpoint again")


def test_experts_that_cannot_be_put_together(tmp_path: Path) -> None:
    """transformers' own error points at a table that it logs."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
    )  # fmt: skip
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.experts.2.down_proj.weight"
    tensors[name] = torch.randn(32, 48)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    line = line_of(tmp_path)
    assert "model.layers.0.mlp.experts.down_proj" in line
    assert "[32, 32]" in line
    assert "[32, 48]" in line


def test_pickled_weights_without_a_model(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    line = line_of(folder, open_checkpoint)
    assert line.startswith(
        "m holds pickled weights alone (pytorch_model.bin), which are read through the model: leave "
    )
    assert open_model(str(folder)).identity.id == "m"
    assert line_of(folder / "pytorch_model.bin").startswith("pytorch_model.bin is a pickled file, no safetensors")


def test_the_command_line_says_it_in_one_line_and_writes_nothing(tmp_path: Path, folder: Path, srdd: Run) -> None:
    (folder / "model.safetensors").write_text(POINTER)
    out = ("--out", tmp_path / "r.json")
    for more in (out, (*out, "--sites", "weight"), ("--dry-run",), ("--dry-run", "--sites", "weight")):
        code, screen, err = srdd("scan", folder, "--quant", "mxfp4", *more)
        assert (code, screen) == (2, "")
        assert err.strip().splitlines()[-1] == f"srdd: error: model.safetensors {LFS}"
    assert not (tmp_path / "r.json").exists()
