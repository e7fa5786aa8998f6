"""Reading checkpoints without a model: every row once, whatever the chunk; every damage told in one line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import srdd
from srdd.core.formats import parse
from srdd.core.tally import FIELDS, Tally
from srdd.errors import SourceError
from srdd.models.checkpoint_sites import checkpoint_sites
from srdd.models.files import weights_hash
from srdd.models.files.checkpoint import open_checkpoint

WEIGHT = "model.layers.{}.mlp.up_proj.weight"


def sharded(folder: Path, dtype: torch.dtype = torch.bfloat16, rows: int = 100) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {WEIGHT.format(i): torch.randn(rows, 64, generator=generator).to(dtype) for i in range(4)}
    tensors["model.embed_tokens.weight"] = torch.randn(10, 64, generator=generator).to(dtype)
    tensors["model.norm.weight"] = torch.ones(64, dtype=dtype)
    names = sorted(tensors)
    where = {}
    for shard, part in enumerate((names[:3], names[3:]), 1):
        file = f"model-{shard:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 4}))
    return tensors


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.float8_e4m3fn])
@pytest.mark.parametrize("max_bytes", [1, 5000, 2**20])
def test_chunks_are_the_tensor_in_multiples_of_128_rows(tmp_path: Path, dtype: torch.dtype, max_bytes: int) -> None:
    tensors = sharded(tmp_path, dtype, rows=300)
    checkpoint = open_checkpoint(str(tmp_path))
    for name, tensor in tensors.items():
        chunks = [chunk.clone() for chunk in checkpoint.row_chunks(name, max_bytes=max_bytes)]
        assert all(len(chunk) % 128 == 0 for chunk in chunks[:-1])
        assert torch.equal(torch.cat(chunks).view(tensor.shape).float(), tensor.float())


def test_an_expert_of_a_fused_tensor(tmp_path: Path) -> None:
    experts = torch.randn(3, 40, 32)
    save_file({"model.layers.0.mlp.experts.gate_up_proj": experts}, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(str(tmp_path))
    for index in range(3):
        chunks = checkpoint.row_chunks("model.layers.0.mlp.experts.gate_up_proj", expert=index, max_bytes=1)
        assert torch.equal(torch.cat([chunk.clone() for chunk in chunks]), experts[index])
    site = srdd.scan_checkpoint(checkpoint, "nvfp4").sites[0]
    expected = sum(srdd.measure(e, "nvfp4", backend="reference")[5 + 6].item() for e in experts)
    assert site.formats["nvfp4:nvidia"].merged().sum_e2 == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("quant", ["mxfp4", "nvfp4", "mxfp4_2d", "nvfp4_2d", "fp8", "fp8_channel", "fp8_block"])
def test_a_scan_in_chunks_equals_the_whole_tensor(tmp_path: Path, quant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = sharded(tmp_path, rows=300)
    monkeypatch.setattr("srdd.models.files.checkpoint.CHUNK_BYTES", 32 * 64 * 2)
    checkpoint = open_checkpoint(str(tmp_path))
    assert [len(chunk) for chunk in checkpoint.row_chunks(WEIGHT.format(0))] == [128, 128, 44]
    report = srdd.scan_checkpoint(checkpoint, quant)
    assert [site.layer for site in report.sites] == [0, 1, 2, 3]
    for site in report.sites:
        (measured,) = site.formats.values()
        weight, fmt = tensors[f"{site.name}.weight"], parse(quant).for_weights
        expected = srdd.measure(weight, fmt, backend="reference").tolist()
        assert measured.tally[:7] == expected[:7]
        assert measured.tally == pytest.approx(expected[: len(FIELDS)], rel=1e-6, abs=1e-6)
        blocks = Tally.from_vector(expected).blocks
        assert measured.blocks[:2] == [list(blocks.sqnr), list(blocks.scales)]
        assert measured.blocks[2] == pytest.approx(blocks.worst, rel=1e-6), "numbered through all chunks"


def test_stochastic_rounding_does_not_depend_on_which_layers_are_scanned(tmp_path: Path) -> None:
    from srdd.models.selection import Selection

    sharded(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    whole = srdd.scan_checkpoint(checkpoint, "mxfp4_sr", seed=3)
    part = srdd.scan_checkpoint(checkpoint, "mxfp4_sr", Selection.parse("weight", layers=[2]), seed=3)
    other = srdd.scan_checkpoint(checkpoint, "mxfp4_sr", Selection.parse("weight", layers=[2]), seed=4)
    assert part.sites[0] == whole.sites[2]
    assert part.sites[0] != other.sites[0]


def test_conv1d_weights_are_turned(tmp_path: Path) -> None:
    weight = torch.randn(64, 96)  # [in, out]
    save_file({"h.0.attn.c_attn.weight": weight}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    site = srdd.scan_checkpoint(open_checkpoint(str(tmp_path)), "mxfp4").sites[0]
    expected = srdd.measure(weight.T, "mxfp4", backend="reference").tolist()
    slack = 1e-6 * expected[FIELDS.index("sum_abs_e")]  # sum_x and sum_e cancel
    assert site.formats["mxfp4:even"].tally == pytest.approx(expected[: len(FIELDS)], rel=1e-6, abs=slack)


@pytest.mark.parametrize("quant", ["mxfp4_2d", "nvfp4", "fp8", "fp8_channel", "fp8_block"])
def test_a_turned_weight_is_read_whole(tmp_path: Path, quant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row [out, in] lies across all rows of the file, and one scale may be for all of it."""
    weight = torch.randn(300, 160, generator=torch.Generator().manual_seed(2))  # [in, out]
    save_file({"h.0.attn.c_attn.weight": weight}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    monkeypatch.setattr("srdd.models.files.checkpoint.CHUNK_BYTES", 1)
    site = srdd.scan_checkpoint(open_checkpoint(str(tmp_path)), quant).sites[0]
    (measured,) = site.formats.values()
    expected = Tally.from_vector(srdd.measure(weight.T, parse(quant).for_weights, backend="reference").tolist())
    assert measured.merged().sum_e2 == pytest.approx(expected.sum_e2, rel=1e-6)
    assert measured.blocks[2][1] == expected.blocks.worst[1], "numbered as in the matrix"


def test_everything_is_measured_or_listed(tmp_path: Path) -> None:
    sharded(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    found = checkpoint_sites(checkpoint)
    assert {s.name: s.reason.split(":")[0] for s in found.skipped} == {
        "model.embed_tokens.weight": "embedding",
        "model.norm.weight": "vector (norm, bias)",
    }
    assert found.parameters == checkpoint.identity.parameter_count == 4 * 6400 + 640 + 64


def test_hash_tells_headers_and_sizes_apart() -> None:
    base = weights_hash([(b"a", 1), (b"b", 2)])
    assert base == weights_hash([(b"a", 1), (b"b", 2)])
    assert len({base, weights_hash([(b"b", 2), (b"a", 1)]), weights_hash([(b"a", 1), (b"b", 3)])}) == 3


def damage(folder: Path, kind: str) -> None:
    first = folder / "model-00001-of-00002.safetensors"
    raw = first.read_bytes()
    if kind == "cut in the data":
        first.write_bytes(raw[:-100])
    elif kind == "cut in the header":
        first.write_bytes(raw[:20])
    elif kind == "shorter than a length":
        first.write_bytes(raw[:4])
    elif kind == "no JSON header":
        first.write_bytes(raw[:8] + b"x" * (len(raw) - 8))
    elif kind == "shard missing":
        first.unlink()
    elif kind == "index is no index":
        (folder / "model.safetensors.index.json").write_text("{}")
    elif kind == "config is no JSON":
        (folder / "config.json").write_text("{")
    elif kind == "empty folder":
        for file in folder.iterdir():
            file.unlink()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("cut in the data", "cut short or damaged"),
        ("cut in the header", "no complete safetensors"),
        ("shorter than a length", "no complete safetensors"),
        ("no JSON header", "header"),
        ("shard missing", "is missing"),
        ("index is no index", "no index of shards"),
        ("config is no JSON", "config.json"),
        ("empty folder", "no safetensors file"),
    ],
)
def test_damage_is_told_in_one_line(tmp_path: Path, kind: str, words: str) -> None:
    sharded(tmp_path)
    damage(tmp_path, kind)
    with pytest.raises(SourceError, match=words) as error:
        open_checkpoint(str(tmp_path))
    assert "\n" not in str(error.value)


def test_corners_of_shape(tmp_path: Path) -> None:
    tensors = {"scalar": torch.tensor(3.0), "empty": torch.zeros(5, 0), "four": torch.randn(2, 3, 4, 5)}
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(str(tmp_path))
    for name, tensor in tensors.items():
        chunks = [chunk.clone().flatten() for chunk in checkpoint.row_chunks(name)]
        assert torch.equal(torch.cat(chunks) if chunks else torch.zeros(0), tensor.flatten())


def test_chunks_can_be_kept_and_written_to(tmp_path: Path) -> None:
    weight = torch.randn(96, 64)
    file = tmp_path / "model.safetensors"
    save_file({"w": weight}, file)
    before = file.read_bytes()
    chunks = list(open_checkpoint(str(file)).row_chunks("w", max_bytes=1))
    assert torch.equal(torch.cat(chunks), weight)
    chunks[0].zero_()
    assert file.read_bytes() == before


def test_values_at_an_odd_place(tmp_path: Path) -> None:
    """The format does not promise alignment: one byte in front of a float32 tensor."""
    weight = torch.randn(40, 8)
    rows = {
        "odd": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "w": {"dtype": "F32", "shape": [40, 8], "data_offsets": [1, 1281]},
    }
    raw = json.dumps(rows).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + b"\1" + weight.numpy().tobytes())
    (chunk,) = open_checkpoint(str(file)).row_chunks("w")
    assert torch.equal(chunk, weight)
    assert chunk.data_ptr() % 4 == 0


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    sharded(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(SourceError, match="changed while it was read"):
        list(checkpoint.row_chunks(WEIGHT.format(3)))


def test_a_header_whose_shape_does_not_fit_its_bytes(tmp_path: Path) -> None:
    rows = {"m.weight": {"dtype": "F32", "shape": [64, 32], "data_offsets": [0, 100]}}
    raw = json.dumps(rows).encode()
    (tmp_path / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(100))
    with pytest.raises(SourceError, match=r"m\.weight \[64, 32\] in F32 needs 8192 bytes"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize("index", ["[]", "null", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_of_another_shape(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(SourceError, match="no index of shards"):
        open_checkpoint(str(tmp_path))


def test_gguf_needs_the_model(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="read through the model"):
        open_checkpoint(str(tmp_path / "a.gguf"))


def test_no_such_folder() -> None:
    with pytest.raises(SourceError, match="no such folder"):
        open_checkpoint("./not/here")
    with pytest.raises(SourceError, match="hub did not give it"):
        open_checkpoint("somebody/something")


def test_a_config_of_a_format_that_no_tensor_holds(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(SourceError, match=r"config\.json says .* FP8 \(fp8\), and no tensor is; found BF16"):
        srdd.scan_checkpoint(open_checkpoint(str(tmp_path)), "mxfp4")
