"""Models that are built unlike Llama: what is found in them, and what is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BambaConfig,
    BambaForCausalLM,
    BartConfig,
    BartModel,
    BertConfig,
    BertForMaskedLM,
    CLIPVisionConfig,
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

import srdd
from srdd.analysis import find_multipliers
from srdd.core.tally import FIELDS
from srdd.documents.schema import Site
from srdd.errors import SiteError
from srdd.models.fake import fake_quantize
from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.modules import blocks_beside_text, decoder_layers
from srdd.models.sites import find_sites
from srdd.models.source import open_model
from srdd.noise.targets import find_targets
from srdd.runs.scans.checkpoint import scan_checkpoint

Run = Callable[..., tuple[int, str, str]]
SMALL = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
IDS = torch.randint(3, 60, (2, 12), generator=torch.Generator().manual_seed(0))


def weights(report: srdd.Report) -> dict[str, Site]:
    return {site.name: site for site in report.sites if site.kind == "weight"}


def of_file(folder: Path) -> srdd.Report:
    return scan_checkpoint(open_checkpoint(str(folder)), "mxfp4:even")


def test_experts_stored_in_by_out_are_turned_though_nothing_says_so(tmp_path: Path) -> None:
    config = Llama4TextConfig(
        **SMALL,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=4,
        intermediate_size_mlp=96,
        interleave_moe_layer_step=1,
        pad_token_id=0,
    )
    model = Llama4ForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 3:
            nn.init.normal_(parameter)
    experts = model.get_submodule("model.layers.0.feed_forward.experts")
    report = srdd.scan(model, formats="mxfp4:even", sites="weight")
    for name in ("gate_up_proj", "down_proj"):
        stored = getattr(experts, name).detach().transpose(1, 2).double()  # [experts, out, in]
        error = srdd.quant_dequant(stored.float(), "mxfp4:even", backend="reference").double() - stored
        row = weights(report)[f"model.layers.0.feed_forward.experts.{name}"]
        tally = row.formats["mxfp4:even"].merged()
        assert tally.n == stored.numel()
        assert tally.sum_e2 == pytest.approx(float(error.square().sum()), rel=1e-6)
    with fake_quantize(model, "mxfp4:even", "weight", modules="*experts"):
        handle = model.get_submodule("model.layers.1.feed_forward.experts")
        got = handle(torch.ones(4, 64))
    wide = srdd.quant_dequant(handle.gate_up_proj.detach().transpose(1, 2), "mxfp4:even").transpose(1, 2)
    narrow = srdd.quant_dequant(handle.down_proj.detach().transpose(1, 2), "mxfp4:even").transpose(1, 2)
    gate, up = torch.bmm(torch.ones(4, 1, 64), wide).chunk(2, -1)
    assert torch.allclose(got, torch.bmm(up * handle.act_fn(gate), narrow).view(4, 64), rtol=1e-5)
    model.save_pretrained(tmp_path)
    for name, site in weights(of_file(tmp_path)).items():
        assert site.formats["mxfp4:even"].tally == pytest.approx(weights(report)[name].formats["mxfp4:even"].tally)


def test_encoder_and_decoder_of_a_file_are_numbered_through_as_in_the_model(tmp_path: Path) -> None:
    ffn = {"encoder_ffn_dim": 96, "decoder_ffn_dim": 96}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = BartConfig(vocab_size=64, d_model=64, encoder_layers=2, decoder_layers=3, **ffn, **heads)
    model = BartModel(config)
    model.save_pretrained(tmp_path)
    report = of_file(tmp_path)
    found = {site.name: site.layer for site in find_sites(model, ("weight",)).sites}
    assert {name: site.layer for name, site in weights(report).items()} == found
    assert report.model.layer_count == 5
    assert {layer for layer in found.values() if layer is not None} == set(range(5))


def test_names_in_files_that_mislead(tmp_path: Path) -> None:
    tensors = {
        "gpt_neox.embed_in.weight": torch.randn(64, 32),
        "embed_out.weight": torch.randn(64, 32),
        "electra.embeddings_project.weight": torch.randn(32, 32),
        "model.layers.0.block_sparse_moe.input_linear.weight": torch.randn(2, 64, 32),
        "model.layers.0.mixer.conv1d.weight": torch.randn(64, 1, 4),
        "projector.layers.1.weight": torch.randn(32, 32),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    report = of_file(tmp_path)
    assert {name: site.layer for name, site in weights(report).items()} == {
        "embed_out": None,
        "electra.embeddings_project": None,
        "model.layers.0.block_sparse_moe.input_linear": 0,
        "projector.layers.1": None,  # a list of Linears is no stack of layers
    }
    reasons = {skipped.name: skipped.reason for skipped in report.coverage.skipped}
    assert reasons["gpt_neox.embed_in.weight"].startswith("embedding")
    assert "convolution" in reasons["model.layers.0.mixer.conv1d.weight"]


@pytest.mark.parametrize(
    "model",
    [
        ViTModel(ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)),
        T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2)),
    ],
    ids=["pictures", "decoder"],
)
def test_a_model_that_wants_more_than_token_ids_is_refused(model: nn.Module) -> None:
    with pytest.raises(SiteError, match=r"fails on token ids, also without srdd .ValueError: .*sites=weight"):
        srdd.scan(model, IDS)
    assert all(not m._forward_pre_hooks for m in model.modules())


def test_a_mistake_of_srdd_keeps_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("in a hook")

    monkeypatch.setattr("srdd.kernels.measure_each", broken)
    with pytest.raises(ValueError, match="in a hook"):
        srdd.scan(LlamaForCausalLM(LlamaConfig(**SMALL)), IDS, sites="input")


def test_impact_of_layers_that_return_more_than_the_state() -> None:
    sizes = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 4}
    model = BambaForCausalLM(BambaConfig(**SMALL, num_key_value_heads=2, **sizes, attn_layer_indices=[1]))
    found = srdd.measure_impact(model, IDS, ["identity"], ("both",), how=("layers",)).costs
    assert found is not None
    assert found.whole[0].kl.value == 0
    assert len(found.layers) == 2


def test_impact_refuses_a_layer_that_runs_twice() -> None:
    model = AlbertForMaskedLM(AlbertConfig(**SMALL, embedding_size=32))
    with pytest.raises(SiteError, match=r"albert_layer_groups\.0 runs more than once"):
        srdd.measure_impact(model, IDS, ["mxfp4"])


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weights_that_are_computed(norm: object) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    name = "model.layers.1.mlp.up_proj"
    norm(model.get_submodule(name))  # type: ignore[operator]
    report = srdd.scan(model, formats="mxfp4", sites="weight")
    assert name in weights(report)
    parts = {s.reason for s in report.coverage.skipped if s.name.startswith(name)}
    assert parts == {"part of a weight that is computed when it is used (weight_norm and its kin)"}
    with pytest.raises(SiteError, match="up_proj: its weight is computed from other parameters"):
        srdd.measure_impact(model, IDS, ["mxfp4"])


def test_a_model_without_a_list_of_layers_says_what_to_leave_out() -> None:
    block = nn.Sequential(nn.Linear(32, 32), nn.GELU())
    model = nn.Sequential(nn.Embedding(64, 32), nn.Sequential(block, block))
    with pytest.raises(SiteError, match=r"as output: .* nn\.ModuleList .*; leave it out: sites=weight,input"):
        srdd.scan(model, IDS)


def test_token_ids_beyond_the_text_part_of_a_vision_model(tmp_path: Path, srdd: Run) -> None:
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = LlavaConfig(
        text_config=LlamaConfig(**SMALL),
        vision_config=CLIPVisionConfig(**vision, image_size=16, patch_size=8),
        image_token_index=63,
    )
    LlavaForConditionalGeneration(config).save_pretrained(tmp_path / "llava")
    np.savez(tmp_path / "ids.npz", np.arange(100)[None])
    scan = ("scan", "--model", tmp_path / "llava", "--quant", "mxfp4", "--data", tmp_path / "ids.npz", "--seq-len")
    code, _, err = srdd(*scan, "32")
    assert (code, err.splitlines()[-1]) == (2, "srdd: error: ids.npz holds token ids 0 to 95; this model has 0 to 63")
    code, _, err = srdd(*scan, "90")
    assert code == 2
    assert "this model takes at most 64 tokens" in err
    np.savez(tmp_path / "ids.npz", np.arange(60)[None])
    code, _, _ = srdd(*scan, "30", "--out", tmp_path / "report.json")
    assert code == 0


def vision_model(seed: int = 0) -> LlavaForConditionalGeneration:
    torch.manual_seed(seed)
    vision = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    pictures = CLIPVisionConfig(**vision, image_size=16, patch_size=8)
    return LlavaForConditionalGeneration(
        LlavaConfig(text_config=LlamaConfig(**SMALL), vision_config=pictures, image_token_index=63)
    ).eval()


def test_a_tower_stands_outside_the_layers_of_the_text() -> None:
    model = vision_model()
    report = srdd.scan(model, IDS, backend="eager")
    assert report.model.layer_count == SMALL["num_hidden_layers"]
    for site in report.sites:
        inside = site.name.startswith("model.language_model.layers.")
        assert site.layer == (int(site.name.split(".")[3]) if inside else None), site.name
    towers = [site for site in report.sites if "vision_tower" in site.name]
    assert {site.kind for site in towers} == {"weight"}, "pictures are needed to reach the rest"
    said = [note for note in report.warnings if "do not run on text" in note]
    assert len(said) == 1
    assert "model.vision_tower." in said[0]
    assert not any("expert" in note for note in report.warnings)
    layers = {(row.kind, row.layer) for row in report.layers}
    assert layers == {(kind, i) for kind in ("weight", "input", "output") for i in range(SMALL["num_hidden_layers"])}
    with pytest.raises(SiteError, match="were never reached"):
        srdd.scan(model, IDS, sites="input:model.vision_tower.*", backend="eager")


def test_noise_is_for_the_text_of_a_model_with_a_tower() -> None:
    model = vision_model()
    report = srdd.scan(model, IDS, backend="eager")
    config, _ = find_multipliers(report)
    for part in (model, model.model.language_model):
        targets = find_targets(part, config)
        assert [t.layer for t in targets if t.layer is not None] == [i for i in range(2) for _ in range(2)]
        assert not any("vision" in t.path for t in targets)


@pytest.mark.parametrize("states", [2, 3])
def test_layer_states_that_are_stacked_before_the_batch(states: int) -> None:
    """AltUp of Gemma 3n, whose last layers share keys and values too."""
    torch.manual_seed(0)
    config = Gemma3nTextConfig(
        **{**SMALL, "num_hidden_layers": 4},
        num_key_value_heads=2,
        head_dim=16,
        vocab_size_per_layer_input=64,
        hidden_size_per_layer_input=16,
        num_kv_shared_layers=2,
        altup_num_inputs=states,
        laurel_rank=8,
        activation_sparsity_pattern=[0.0] * 4,
        layer_types=["sliding_attention", "full_attention"] * 2,
        sliding_window=16,
        pad_token_id=0,
    )
    model = Gemma3nForCausalLM(config).eval()
    ids = torch.randint(3, 60, (states, 12), generator=torch.Generator().manual_seed(0))
    together = srdd.scan(model, ids, sites="input,output", batch_size=states, backend="eager")
    alone = srdd.scan(model, ids, sites="input,output", batch_size=1, backend="eager")
    for a, b in zip(together.sites, alone.sites, strict=True):
        assert a.formats["mxfp4:even"].sequences is not None
        for one, other in zip(a.formats["mxfp4:even"].sequences, b.formats["mxfp4:even"].sequences or [], strict=True):
            assert one[FIELDS.index("sum_x2")] == pytest.approx(other[FIELDS.index("sum_x2")], rel=1e-4), a.name
    outputs = [site for site in together.sites if site.kind == "output"]
    assert [site.layer for site in outputs] == [0, 1, 2, 3]


def test_layers_of_any_kind() -> None:
    def block(kind: type[nn.Module] = nn.GELU) -> nn.Module:
        return nn.Sequential(nn.Linear(32, 32), kind())

    class Gelu(nn.GELU):
        pass

    class Block(nn.Sequential):
        pass

    class Mixer(nn.Sequential):
        pass

    model = nn.Module()
    model.layers = nn.ModuleList([block(), nn.Identity(), Block(nn.Linear(32, 32)), Mixer(nn.Linear(32, 32))])
    assert decoder_layers(model) == {f"layers.{i}": i for i in range(4)}, "pruned ones and any number of classes count"
    model = nn.Module()
    model.layers = nn.ModuleList([block(), nn.Identity(), nn.Identity()])
    model.heads = nn.ModuleList([block(), Block(nn.Linear(32, 32)), Mixer(nn.Linear(32, 32))])
    assert decoder_layers(model) == {}, "mostly without Linears, and a list of other things"
    model.mtp = nn.Module()
    model.mtp.layers = nn.ModuleList([block()])
    assert decoder_layers(model) == {"mtp.layers.0": 0}, "where it is all there is"
    model.blocks = nn.ModuleList([block(), block()])
    assert decoder_layers(model) == {"blocks.0": 0, "blocks.1": 1}
    assert blocks_beside_text(model) == {"mtp.layers.0"}


@pytest.mark.parametrize("reshape", [lambda x: x.flatten(0, 1), lambda x: x[:, None]], ids=["flat", "one more axis"])
def test_impact_of_linears_that_get_their_rows_in_another_shape(reshape: Callable[[Tensor], Tensor]) -> None:
    """As in OPT, in shared experts and in DeepSeek; the numbers are those of the plain model."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    options = {"how": ("predicted",), "batch_size": 2, "backend": "eager"}
    plain = srdd.measure_impact(model, IDS, ["mxfp4"], ("both",), **options).costs  # type: ignore[arg-type]
    for layer in model.model.layers:
        layer.mlp.forward = lambda x, run=layer.mlp.forward: run(reshape(x)).view_as(x)
    other = srdd.measure_impact(model, IDS, ["mxfp4"], ("both",), **options).costs  # type: ignore[arg-type]
    assert plain is not None
    assert other is not None
    assert other.unpriced == []
    assert [row.module for row in other.linears] == [row.module for row in plain.linears]
    for a, b in zip(plain.linears, other.linears, strict=True):
        assert b.output_error["both"].value == pytest.approx(a.output_error["both"].value, rel=1e-6)
        assert b.predicted_kl["both"].value == pytest.approx(a.predicted_kl["both"].value, rel=1e-6)


def test_impact_leaves_out_what_never_runs() -> None:
    model = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4))
    with pytest.raises(SiteError, match=r"dt_proj; leave them out with exclude='\*\.dt_proj'$"):
        srdd.measure_impact(model, IDS, ["mxfp4"], ("both",))
    found = srdd.measure_impact(model, IDS, ["mxfp4"], ("both",), exclude="*dt_proj").costs
    assert found is not None
    assert found.settings.exclude == ["*lm_head*", "*embed*", "*dt_proj"], "what is given is added to the defaults"
    assert {row.role for row in found.linears} == {"in_proj", "x_proj", "out_proj"}
    assert "weight sqnr_db" in found.layers[0].scores


def test_an_encoder_of_two_stacks_opens_without_a_random_decoder(tmp_path: Path) -> None:
    config = T5Config(vocab_size=64, d_model=32, d_kv=16, d_ff=32, num_layers=2, num_heads=2)
    T5EncoderModel(config).save_pretrained(tmp_path)
    opened = open_model(str(tmp_path))
    assert (opened.identity.architecture, opened.identity.layer_count, opened.notes) == ("T5EncoderModel", 2, ())


def test_weights_that_the_model_has_no_place_for_are_told(tmp_path: Path) -> None:
    BertForMaskedLM(BertConfig(**SMALL)).save_pretrained(tmp_path)
    opened = open_model(str(tmp_path))
    assert opened.identity.architecture == "BertModel"
    assert any("5 tensor(s) of the checkpoint are no part of BertModel and not measured" in n for n in opened.notes)
