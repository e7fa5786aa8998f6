"""A packed checkpoint against its original: the codes' own tallies, beside fresh ones, on every way that they lie."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_rtn import Parts, ct_mxfp4, fp8, modelopt_nvfp4, mxfp4, pack_folder
from safetensors.torch import load_file, save_file
from transformers import GptOssConfig, GptOssForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

import srdd as library
from srdd.documents.report import Report
from srdd.errors import SiteError, SourceError
from srdd.models.files.checkpoint import open_checkpoint
from srdd.runs.scans.stored import scan_stored

Pack = Callable[[str, np.ndarray], Parts | None]


def only(pack: Callable[[np.ndarray], Parts], end: str = "_proj.weight") -> Pack:
    return lambda name, x: pack(x) if name.endswith(end) else None


def scanned(packed: Path, reference: Path, formats: str = "", **options: object) -> Report:
    opened = (open_checkpoint(str(folder)) for folder in (packed, reference))
    return scan_stored(*opened, formats, **{"backend": "eager"} | options)  # type: ignore[arg-type]


def same(report: Report, at: int = 0) -> bool:
    """Whether codes and fresh ones have the same tallies in all sites, bit for bit."""
    pairs = [[*site.formats.values()] for site in report.sites]
    return all(a.whole == b.whole and a.whole_blocks == b.whole_blocks for a, b, *_ in pairs)


# --- one form -----------------------------------------------------------------------------------------------------

ROUNDED = {
    "mxfp4:even": ct_mxfp4,
    "nvfp4:nvidia": modelopt_nvfp4,
    "fp8:amax": lambda x: fp8(x, *x.shape, "weight_scale"),
    "fp8_channel:amax": lambda x: fp8(x, 1, x.shape[1], "weight_scale"),
}


@pytest.mark.parametrize("backend", ["reference", "eager"])
@pytest.mark.parametrize("spec", ROUNDED)
def test_codes_rounded_to_nearest_are_as_good_as_fresh_ones(
    spec: str, backend: str, tmp_path: Path, tiny_llama: Path
) -> None:
    packed = pack_folder(tiny_llama, tmp_path / "packed", only(ROUNDED[spec]))
    report = scanned(packed, tiny_llama, backend=backend)
    name = spec.partition(":")[0]
    assert report.settings.formats == [f"{name}:stored", spec]
    assert len(report.sites) == 21
    assert same(report)
    assert report.model.id == "packed"
    assert report.provenance["reference"] == "tiny-llama"
    assert report.provenance["reference_weights_hash"] == open_checkpoint(str(tiny_llama)).identity.weights_hash
    of_reference = {s.name: s for s in library.scan_checkpoint(open_checkpoint(str(tiny_llama)), spec, backend=backend).sites}  # fmt: skip # noqa: E501
    for site in report.sites:
        twin = of_reference[site.name]
        assert site.formats[spec] == twin.formats[spec]
        assert (site.layer, site.role, site.group, site.order_sum) == (twin.layer, twin.role, twin.group, twin.order_sum)  # fmt: skip # noqa: E501
        assert any("every value is what" in note for note in site.notes)
    assert [row.reason for row in report.coverage.skipped if row.name == "lm_head"] == ["stored plain: equal to the reference"]  # fmt: skip # noqa: E501


def test_a_report_opens_again_and_merges_nothing_away(tmp_path: Path, tiny_llama: Path) -> None:
    packed = pack_folder(tiny_llama, tmp_path / "packed", only(lambda x: ct_mxfp4(x, up=1)))
    report = scanned(packed, tiny_llama)
    report.save(tmp_path / "r.json")
    again = Report.load(tmp_path / "r.json")
    assert again.sites == report.sites
    by_name = {(row.format, row.metric): row for row in again.summary}
    assert by_name == {(row.format, row.metric): row for row in report.summary}


def test_worse_codes_are_told_by_a_brute_force(tmp_path: Path, tiny_llama: Path) -> None:
    """Scales twice too large: every sum by hand from the codes."""
    packed = pack_folder(tiny_llama, tmp_path / "packed", only(lambda x: ct_mxfp4(x, up=1)))
    plain, stored = (load_file(folder / "model.safetensors") for folder in (tiny_llama, packed))
    report = scanned(packed, tiny_llama)
    for site in report.sites:
        x = plain[f"{site.name}.weight"].double().numpy()
        q = np.zeros_like(x)
        codes, scales = (stored[f"{site.name}.weight_{part}"].numpy() for part in ("packed", "scale"))
        grid = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
        for row in range(x.shape[0]):
            for column in range(x.shape[1]):
                code = int(codes[row, column // 2]) >> (4 * (column % 2)) & 15
                value = grid[code & 7] * (-1 if code & 8 else 1)
                q[row, column] = value * 2.0 ** (int(scales[row, column // 32]) - 127)
        e = q - x
        tally = site.formats["mxfp4:stored"].merged()
        assert tally.sum_e2 == pytest.approx((e**2).sum(), rel=1e-12)
        assert tally.sum_rel == pytest.approx((np.abs(e) / np.abs(x)).sum(), rel=1e-12)
        assert tally.sum_xq == pytest.approx((x * q).sum(), rel=1e-12)
        assert tally.deadzone == ((q == 0) & (x != 0)).sum()
        assert tally.clipped == 0
        worse = site.formats["mxfp4:even"].value("sqnr_db") - site.formats["mxfp4:stored"].value("sqnr_db")
        assert 2 < worse < 4


def test_a_block_of_nan_scale_is_left_out(tmp_path: Path, tiny_llama: Path) -> None:
    packed = pack_folder(tiny_llama, tmp_path / "packed", only(ct_mxfp4))
    tensors = load_file(packed / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight_scale"][3, 1] = 255
    save_file(tensors, packed / "model.safetensors")
    report = scanned(packed, tiny_llama)
    (site,) = [site for site in report.sites if site.name == "model.layers.1.mlp.up_proj"]
    found, fresh = (measured.merged() for measured in site.formats.values())
    assert (found.nonfinite, found.excluded, fresh.excluded) == (32, 32, 0)
    assert report.has_errors
    assert any("NaN or infinite" in note for note in report.warnings)


# --- several forms ------------------------------------------------------------------------------------------------


def mixed(name: str, x: np.ndarray) -> Parts | None:
    if not name.endswith("_proj.weight"):
        return None
    return ct_mxfp4(x) if ".mlp." in name else fp8(x, 1, x.shape[1], "weight_scale")


def test_every_module_in_its_own_form(tmp_path: Path, tiny_llama: Path) -> None:
    packed = pack_folder(tiny_llama, tmp_path / "packed", mixed)
    report = scanned(packed, tiny_llama)
    assert sorted(report.settings.formats) == ["fp8_channel:amax", "fp8_channel:stored", "mxfp4:even", "mxfp4:stored"]
    for site in report.sites:
        name = "mxfp4" if ".mlp." in site.name else "fp8_channel"
        assert [spec.partition(":")[0] for spec in site.formats] == [name, name]
    assert same(report)
    for layer in report.layers:
        assert set(layer.formats) == set(report.settings.formats)
    assert {row.format for row in report.summary} == set(report.settings.formats)


def test_other_formats_beside(tmp_path: Path, tiny_llama: Path) -> None:
    packed = pack_folder(tiny_llama, tmp_path / "packed", only(ct_mxfp4))
    report = scanned(packed, tiny_llama, "nvfp4,mxfp4")
    assert report.settings.formats == ["mxfp4:stored", "mxfp4:even", "nvfp4:nvidia"]
    of_reference = library.scan_checkpoint(open_checkpoint(str(tiny_llama)), "nvfp4", backend="eager")
    by_name = {site.name: site for site in of_reference.sites}
    for site in report.sites:
        assert site.formats["nvfp4:nvidia"] == by_name[site.name].formats["nvfp4:nvidia"]


def test_tiles_that_no_format_has_have_no_fresh_one(tmp_path: Path, tiny_llama: Path) -> None:
    packed = pack_folder(tiny_llama, tmp_path / "packed", only(lambda x: fp8(x, 32, 32)))
    config = json.loads((packed / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    (packed / "config.json").write_text(json.dumps(config))
    report = scanned(packed, tiny_llama)
    assert report.settings.formats == ["fp8_block:stored"]
    assert any("no format here quantizes as FP8 in blocks of 32 x 32" in note for note in report.warnings)
    assert all(31 < site.formats["fp8_block:stored"].value("sqnr_db") < 33 for site in report.sites)


# --- experts ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qwen_moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moe") / "qwen"
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=2, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2, num_experts=3, num_experts_per_tok=2, tie_word_embeddings=True,
    )  # fmt: skip
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gpt_oss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oss") / "oss"
    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, head_dim=16,
        num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2, max_position_embeddings=131072,
    )  # fmt: skip
    GptOssForCausalLM(config).bfloat16().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pack", [ct_mxfp4, modelopt_nvfp4], ids=["mxfp4", "nvfp4"])
def test_single_experts_are_parts_of_fused_weights(
    pack: Callable[[np.ndarray], Parts], tmp_path: Path, qwen_moe: Path
) -> None:
    """Each of gate and up has a tensor scale of its own, which a fresh quantization gives each too."""
    packed = pack_folder(qwen_moe, tmp_path / "packed", lambda n, x: pack(x) if ".experts." in n else None)
    report = scanned(packed, qwen_moe)
    names = [f"model.layers.{layer}.mlp.experts.{local}" for layer in (0, 1) for local in ("gate_up_proj", "down_proj")]
    assert sorted(site.name for site in report.sites) == sorted(names)
    assert same(report)


def test_one_worse_expert_is_seen(tmp_path: Path, qwen_moe: Path) -> None:
    def pack(name: str, x: np.ndarray) -> Parts | None:
        return ct_mxfp4(x, up=int(".experts.1.up_proj" in name and ".0." in name)) if ".experts." in name else None

    report = scanned(pack_folder(qwen_moe, tmp_path / "packed", pack), qwen_moe)
    loss = {
        site.name: site.formats["mxfp4:even"].value("sqnr_db") - site.formats["mxfp4:stored"].value("sqnr_db")
        for site in report.sites
    }
    assert [name for name, db in loss.items() if db] == ["model.layers.0.mlp.experts.gate_up_proj"]
    (site,) = [site for site in report.sites if loss[site.name]]
    plain = load_file(qwen_moe / "model.safetensors")["model.layers.0.mlp.experts.1.up_proj.weight"]
    bad = library.scan_checkpoint(open_checkpoint(str(qwen_moe)), "mxfp4", backend="reference")
    assert plain.shape == (32, 64)
    assert site.formats["mxfp4:stored"].merged().sum_x2 == pytest.approx(
        next(s for s in bad.sites if s.name == site.name).formats["mxfp4:even"].merged().sum_x2
    )


def test_fused_codes_beside_single_experts(tmp_path: Path, qwen_moe: Path) -> None:
    """The other way around: codes of all experts in one tensor, as the opened model has them."""
    plain = load_file(qwen_moe / "model.safetensors")
    stored = {name: tensor for name, tensor in plain.items() if ".experts." not in name}
    for layer in (0, 1):
        stem = f"model.layers.{layer}.mlp.experts"
        of = {role: torch.stack([plain[f"{stem}.{i}.{role}.weight"] for i in range(3)]) for role in ("gate_proj", "up_proj", "down_proj")}  # fmt: skip # noqa: E501
        for local, weight in (("gate_up_proj", torch.cat([of["gate_proj"], of["up_proj"]], 1)), ("down_proj", of["down_proj"])):  # fmt: skip # noqa: E501
            codes, scales = mxfp4(weight.float().numpy())
            stored |= {f"{stem}.{local}": codes, f"{stem}.{local}_weight_scale": scales}
    packed = tmp_path / "packed"
    packed.mkdir()
    save_file(stored, packed / "model.safetensors")
    (packed / "config.json").write_bytes((qwen_moe / "config.json").read_bytes())
    report = scanned(packed, qwen_moe)
    assert {tuple(site.shape) for site in report.sites} == {(3, 64, 64), (3, 64, 32)}
    assert same(report)


def oss_pack(name: str, x: np.ndarray) -> Parts | None:
    """[experts, in, out] to NAME_blocks [experts, out, in / 32, 16] and NAME_scales."""
    if not name.endswith(("gate_up_proj", "down_proj")):
        return None
    codes, scales = mxfp4(np.ascontiguousarray(x.transpose(0, 2, 1)))
    return {"blocks": codes.view(*scales.shape, 16), "scales": scales}


def test_gpt_oss_lies_the_other_way_around(tmp_path: Path, gpt_oss: Path) -> None:
    report = scanned(pack_folder(gpt_oss, tmp_path / "packed", oss_pack), gpt_oss)
    assert {site.name: tuple(site.shape) for site in report.sites} == {
        "model.layers.0.mlp.experts.gate_up_proj": (3, 64, 192),
        "model.layers.0.mlp.experts.down_proj": (3, 96, 64),
    }
    assert same(report)


def test_gpt_oss_in_single_experts_finds_its_rows_in_the_interleaved_ones(tmp_path: Path, gpt_oss: Path) -> None:
    """As llm-compressor writes it: gate_proj is every second output of gate_up_proj, up_proj the others."""
    stored = {}
    for name, tensor in load_file(gpt_oss / "model.safetensors").items():
        if ".experts." not in name:
            stored[name] = tensor
        elif not name.endswith("_bias"):
            stem, _, local = name.rpartition(".")
            for expert, matrix in enumerate(tensor.float().transpose(1, 2).numpy()):
                rows = {"gate_proj": matrix[0::2], "up_proj": matrix[1::2]} if "gate" in local else {local: matrix}
                for role, weight in rows.items():
                    parts = ct_mxfp4(np.ascontiguousarray(weight))
                    stored |= {f"{stem}.{expert}.{role}.{part}": values for part, values in parts.items()}
    packed = tmp_path / "packed"
    packed.mkdir()
    save_file(stored, packed / "model.safetensors")
    (packed / "config.json").write_bytes((gpt_oss / "config.json").read_bytes())
    report = scanned(packed, gpt_oss)
    assert len(report.sites) == 9
    assert same(report)


# --- what is plain ------------------------------------------------------------------------------------------------


def test_plain_tensors_that_differ_are_told(tmp_path: Path, tiny_llama: Path) -> None:
    plain = load_file(tiny_llama / "model.safetensors")
    norm, head = "model.layers.1.input_layernorm.weight", "lm_head.weight"
    changed = {norm: plain[norm] * 1.5, head: plain[head].bfloat16(), "model.norm.weight": plain["model.norm.weight"].bfloat16()}  # fmt: skip # noqa: E501
    packed = pack_folder(tiny_llama, tmp_path / "packed", only(ct_mxfp4))
    tensors = load_file(packed / "model.safetensors") | changed
    save_file(tensors, packed / "model.safetensors")
    (note,) = [note for note in scanned(packed, tiny_llama).warnings if "plain" in note]
    assert note.startswith(f"1 plain tensor(s) differ from the reference, {norm} most: its relative rms error is 50 %")
    tensors[head] = plain[head] + 1
    tensors["model.embed_tokens.weight"] = torch.cat([plain["model.embed_tokens.weight"]] * 2)  # another vocabulary
    save_file(tensors, packed / "model.safetensors")
    other = scanned(packed, tiny_llama, sites="weight")
    assert any("3 plain tensor(s) differ from the reference, model.embed_tokens.weight most: its values or shape" in note for note in other.warnings)  # fmt: skip # noqa: E501
    tensors["model.embed_tokens.weight"] = plain["model.embed_tokens.weight"]
    save_file(tensors, packed / "model.safetensors")
    report = scanned(packed, tiny_llama)
    assert any("2 plain tensor(s) differ from the reference, lm_head most" in note for note in report.warnings)
    assert [r.reason for r in report.coverage.skipped if r.name == "lm_head"] == ["stored plain: differs from the reference"]  # fmt: skip # noqa: E501


# --- bad input ----------------------------------------------------------------------------------------------------


def test_what_is_no_reference_is_refused(tmp_path: Path, tiny_llama: Path, qwen_moe: Path) -> None:
    packed = pack_folder(tiny_llama, tmp_path / "packed", only(ct_mxfp4))
    with pytest.raises(SourceError, match="qwen is a Qwen3MoeForCausalLM, no reference of packed, a LlamaForCausalLM"):
        scanned(packed, qwen_moe)
    with pytest.raises(SourceError, match="tiny-llama holds no packed weights"):
        scanned(tiny_llama, packed)
    deeper = pack_folder(tiny_llama, tmp_path / "deeper", lambda name, x: None)
    config = json.loads((deeper / "config.json").read_text()) | {"num_hidden_layers": 4}
    (deeper / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match="deeper has 4 layers, no reference of packed with 3"):
        scanned(packed, deeper)
    other = tmp_path / "other"
    other.mkdir()
    plain = load_file(tiny_llama / "model.safetensors")
    down = "model.layers.0.mlp.down_proj.weight"
    save_file(plain | {down: plain[down].repeat(2, 1)}, other / "model.safetensors")
    with pytest.raises(SourceError, match=r"down_proj.* \(outputs, inputs\) is \[128, 96\] there and \[64, 96\]"):
        scanned(packed, other)
    del plain[down]
    save_file(plain, other / "model.safetensors")
    with pytest.raises(
        SourceError, match=r"other is no reference of packed: it holds no weight .*layers.0.mlp.down_pr"
    ):
        scanned(packed, other)
    with pytest.raises(SiteError, match="nothing to measure as input"):
        scanned(packed, tiny_llama, sites="weight,input")
    with pytest.raises(SiteError, match="none of the 1 weights"):
        scanned(packed, tiny_llama, sites="weight:lm_head")


def test_a_single_file_without_config_will_do(tmp_path: Path, tiny_llama: Path) -> None:
    packed = pack_folder(tiny_llama, tmp_path / "packed", only(ct_mxfp4))
    (tmp_path / "plain.safetensors").write_bytes((tiny_llama / "model.safetensors").read_bytes())
    assert same(scanned(packed, tmp_path / "plain.safetensors"))
