"""What a packed model costs against its original: equal codes cost the same, bit for bit; KL by hand in float64."""

from pathlib import Path

import pytest
import torch
from packed_rtn import Parts, ct_mxfp4, fp8, pack_folder
from safetensors.torch import load_file, save_file
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from srdd.core.formats import parse
from srdd.documents.costs import Costs
from srdd.errors import CalibrationError, SettingError, SourceError
from srdd.models.files.checkpoint import open_checkpoint
from srdd.models.source import open_model
from srdd.runs.impact.packed_modules import packed_modules
from srdd.runs.impact.reference import reference_costs

IDS = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(2))


def costs_of(packed: Path, original: Path, asked: str = "", dtype: str = "float32") -> Costs:
    formats = tuple(map(parse, filter(None, asked.split(","))))
    name, fresh, notes = packed_modules(open_checkpoint(str(packed)), formats)
    assert notes == []
    models = [open_model(str(folder), dtype=dtype).model for folder in (packed, original)]
    return reference_costs(*models, IDS, name, fresh, backend="eager")


def mx(name: str, x: object, up: int = 0) -> Parts | None:
    return ct_mxfp4(x, up=up) if name.endswith("_proj.weight") else None  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_codes_rounded_to_nearest_cost_what_fresh_ones_cost(dtype: str, tmp_path: Path, tiny_llama: Path) -> None:
    plain = pack_folder(tiny_llama, tmp_path / "plain", lambda name, x: None)
    tensors = load_file(plain / "model.safetensors")
    save_file({name: x.to(getattr(torch, dtype)) for name, x in tensors.items()}, plain / "model.safetensors")
    costs = costs_of(pack_folder(plain, tmp_path / "packed", mx), plain, dtype=dtype)
    stored, fresh = costs.whole
    assert (stored.format, fresh.format) == ("mxfp4:stored", "mxfp4:even") == tuple(costs.settings.formats)
    assert stored.model_copy(update={"format": "mxfp4:even"}) == fresh
    assert stored.kl.value > 0
    assert {row.mode for row in costs.whole} == {"weight"}
    assert costs.settings.left_out == ["lm_head"]
    first, second = ([row.cumulative for row in costs.layers if row.format == spec] for spec in costs.settings.formats)
    assert first == second
    assert len(first) == 3


def test_kl_loss_and_agreement_by_hand(tmp_path: Path, tiny_llama: Path) -> None:
    packed = pack_folder(tiny_llama, tmp_path / "packed", lambda name, x: mx(name, x, up=1))
    costs = costs_of(packed, tiny_llama, "nvfp4")
    with torch.no_grad():
        models = [open_model(str(folder), dtype="float32").model for folder in (packed, tiny_llama)]
        y, z = (torch.log_softmax(model(IDS).logits[:, :-1].double(), -1) for model in models)
        states = [model(IDS, output_hidden_states=True).hidden_states for model in models]
    stored = costs.whole[0]
    kl = (z.exp() * (z - y)).sum(-1)
    assert stored.kl.value == pytest.approx(float(kl.mean()), rel=1e-4)
    assert stored.kl.sequences == pytest.approx(kl.mean(1).tolist(), rel=1e-4)
    assert stored.top1.value == pytest.approx(float((z.argmax(-1) == y.argmax(-1)).double().mean()))
    assert stored.loss.value == pytest.approx(float(-y.gather(2, IDS[:, 1:, None]).mean()), rel=1e-6)
    assert costs.clean is not None
    assert costs.clean.loss.value == pytest.approx(float(-z.gather(2, IDS[:, 1:, None]).mean()), rel=1e-6)
    a, b = (hidden[1].double() for hidden in states)  # after the first layer
    row = next(row for row in costs.layers if row.layer == 0 and row.format == "mxfp4:stored")
    assert row.cumulative is not None
    assert row.cumulative.value == pytest.approx(float((a - b).norm() / b.norm()), rel=1e-4)
    assert stored.kl.value > costs.whole[1].kl.value
    assert [row.format for row in costs.whole] == ["mxfp4:stored", "mxfp4:even", "nvfp4:nvidia"]
    assert costs.whole[2].kl.value < costs.whole[1].kl.value


def test_a_mixed_model_is_rounded_anew_module_by_module(tmp_path: Path, tiny_llama: Path) -> None:
    def pack(name: str, x: object) -> Parts | None:
        if ".self_attn." in name:
            return fp8(x, 1, x.shape[1], "weight_scale")  # type: ignore[arg-type,attr-defined]
        return mx(name, x)

    costs = costs_of(pack_folder(tiny_llama, tmp_path / "packed", pack), tiny_llama)
    stored, fresh = costs.whole
    assert stored.format == "fp8_channel:stored+mxfp4:stored"
    assert fresh.format == "fp8_channel:amax+mxfp4:even"
    assert stored.kl == fresh.kl


def test_experts_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=2, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2, num_experts=3, num_experts_per_tok=2,
    )  # fmt: skip
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path / "plain")
    packed = pack_folder(
        tmp_path / "plain", tmp_path / "packed", lambda n, x: ct_mxfp4(x) if ".experts." in n else None
    )
    stored, fresh = costs_of(packed, tmp_path / "plain").whole
    assert stored.kl == fresh.kl
    assert stored.kl.value > 0


def test_a_copy_has_no_effect(tiny_llama: Path) -> None:
    models = [open_model(str(tiny_llama), dtype="float32").model for _ in range(2)]
    (row,) = reference_costs(*models, IDS, "mxfp4:stored", backend="eager").whole
    assert row.no_effect
    assert row.kl.value == 0


def test_what_cannot_be_run_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    model = open_model(str(tiny_llama), dtype="float32").model
    shallow = open_model(str(tiny_llama), dtype="float32").model
    del shallow.model.layers[2]
    with pytest.raises(SourceError, match="the reference has 3 layers, the packed model 2"):
        reference_costs(shallow, model, IDS, "mxfp4:stored", backend="eager")
    with pytest.raises(SettingError, match="no language-model head"):
        reference_costs(model.model, model.model, IDS, "mxfp4:stored", backend="eager")
    with pytest.raises(CalibrationError, match="at least 2 tokens"):
        reference_costs(model, model, IDS[:, :1], "mxfp4:stored", backend="eager")
    packed = pack_folder(tiny_llama, tmp_path / "odd", lambda n, x: fp8(x, *x.shape) if "q_proj" in n else mx(n, x))
    assert [one.spec for one in packed_modules(open_checkpoint(str(packed)), ())[1]] == ["fp8:amax+mxfp4:even"]
