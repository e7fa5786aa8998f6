"""Planted faults: what each kind does, by hand; where it acts; that the model is as before; that reports name it."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

import srdd
from srdd.core.faults import KINDS, Fault
from srdd.errors import BusyError, NoEffectError, SettingError
from srdd.models.fault_kinds import FUNCTIONS, Draw
from srdd.models.stack import LayerStack

IDS = torch.randint(2, 64, (2, 8), generator=torch.Generator().manual_seed(0))
X = torch.tensor([[1.0, 0.02, -0.005, -4.0], [0.5, -0.5, 0.25, 0.0]])


@pytest.fixture
def llama(tiny_llama: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tiny_llama).eval()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_every_kind_has_its_function() -> None:
    assert list(FUNCTIONS) == list(KINDS)


def test_kinds_by_hand() -> None:
    def of(kind: str, size: float, x: Tensor = X, heads: int | None = None) -> Tensor:
        before = x.clone()
        broken = FUNCTIONS[kind](x, size, Draw(0, heads))
        assert torch.equal(x, before)
        assert broken.dtype == x.dtype
        return broken

    assert of("deadzone", 0.01).tolist() == torch.tensor([[1.0, 0, 0, -4.0], [0.5, -0.5, 0.25, 0.0]]).tolist()
    assert torch.equal(of("saturation", 0.5)[1], torch.tensor([0.25, -0.25, 0.25, 0.0]))
    assert of("saturation", 0.5)[0, 3] == -2.0
    assert torch.allclose(of("bias", 2.0) - X, 2 * X.square().mean(-1, keepdim=True).sqrt().expand(2, 4))
    stuck = of("stuck", 0.1)
    assert [(column == 1).all().item() for column in stuck.T].count(True) == 1
    flipped = of("bit_flip", 0.999, torch.tensor([[3.0, -1.5, 0.0]]))
    assert flipped.tolist() == [[6.0, -0.75, 0.0]]  # 3 is 1.5 * 2^1 of exponent 128, which is even; 1.5 has 127
    assert of("bit_flip", 0.999, torch.tensor([[3.0]]).bfloat16()).item() == 6.0
    assert (of("dead_channel", 3) == 0).all(0).sum() == 3
    heads = of("dead_head", 1, torch.ones(5, 12), heads=3)
    assert sorted(heads.view(5, 3, 4).abs().sum((0, 2)).tolist()) == [0, 20, 20]
    wide = torch.full((400, 64), 3.0)
    assert float((of("noise", 0.1, wide) - wide).std()) == pytest.approx(0.3, rel=0.03)
    assert float((of("absolute_noise", 0.1, wide) - wide).std()) == pytest.approx(0.1, rel=0.03)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("at", ["input", "output", "weight"])
def test_every_kind_in_every_place_changes_the_model_and_leaves_it_as_it_was(
    llama: LlamaForCausalLM, kind: str, at: str
) -> None:
    if kind == "dead_head" and at != "input":
        with pytest.raises(SettingError, match="leave at out"):
            Fault(1, kind, 1, "self_attn.o_proj", at)
        return
    before, clean = state(llama), llama(IDS).logits
    size = 1.0 if KINDS[kind].whole else 0.3
    with srdd.plant(llama, Fault(1, kind, size, "self_attn.o_proj", at)):  # type: ignore[arg-type]
        assert not torch.equal(llama(IDS).logits, clean)
    assert all(torch.equal(p, before[name]) for name, p in llama.named_parameters())
    assert torch.equal(llama(IDS).logits, clean)
    assert all("forward" not in module.__dict__ for module in llama.modules())


def test_faults_of_one_place_add_up_and_go_together(llama: LlamaForCausalLM) -> None:
    before = state(llama)
    weight = llama.model.layers[1].mlp.down_proj.weight
    texts = [f"layer=1,module=mlp.down_proj,at=weight,dead_channel=1,seed={seed}" for seed in (1, 2)]
    with srdd.plant(llama, *texts):
        assert (weight == 0).all(0).sum() == 2
    assert torch.equal(weight, before["model.layers.1.mlp.down_proj.weight"])


def test_prefill_only(llama: LlamaForCausalLM) -> None:
    with torch.no_grad():
        one = llama(IDS[:, :1]).logits
        with srdd.plant(llama, "layer=1,bias=1,steps=prefill"):
            assert not torch.equal(llama(IDS).logits[:, :1], one)
            assert torch.equal(llama(IDS[:, :1]).logits, one)
        with (
            pytest.raises(NoEffectError, match="more than one token"),
            srdd.plant(llama, "layer=1,bias=1,steps=prefill"),
        ):
            llama(IDS[:, :1])


def test_a_layer_that_is_run_alone_has_its_fault(llama: LlamaForCausalLM) -> None:
    with torch.no_grad(), srdd.plant(llama, "layer=1,deadzone=0.5"):
        zeros: list[float] = []

        def visitor(call):  # type: ignore[no-untyped-def]
            zeros.append(float((call.run(call.hidden) == 0).float().mean()))
            return call.output(call.hidden)

        LayerStack(llama).visit(IDS, visitor)
    assert zeros[1] > 0.3 > zeros[0] == zeros[2] == 0


def test_heads_of_an_unnamed_module_are_those_of_attention(llama: LlamaForCausalLM) -> None:
    seen: list[Tensor] = []
    plain = llama.model.layers[2].self_attn.o_proj.forward
    llama.model.layers[2].self_attn.o_proj.forward = lambda x: seen.append(x) or plain(x)
    with srdd.plant(llama, "layer=2,dead_head=1"):
        llama(IDS)
    assert (seen[0].view(-1, 4, 16) == 0).all(2).all(0).sum() == 1
    tiny = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=16)).eval()
    with srdd.plant(tiny, "layer=1,dead_head=1") as planted:
        tiny(IDS)
    assert planted.faults == (Fault(1, "dead_head", 1, at="input"),)


def test_noise_is_the_same_whenever_the_block_is_entered(llama: LlamaForCausalLM) -> None:
    planted = srdd.plant(llama, "layer=0,noise=0.1")
    with planted:
        first, second = llama(IDS).logits, llama(IDS).logits
    with planted:
        assert torch.equal(llama(IDS).logits, first)
    assert not torch.equal(first, second)


def test_busy(llama: LlamaForCausalLM) -> None:
    planted = srdd.plant(llama, "layer=0,bias=0.1")
    with planted:
        with pytest.raises(BusyError, match="planted already"):
            planted.__enter__()
        with pytest.raises(BusyError, match="planted with a fault"):
            copy.deepcopy(llama)
        llama(IDS)
    outer, inner = srdd.plant(llama, "layer=0,bias=0.1"), srdd.plant(llama, "layer=0,bias=0.2")
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(BusyError, match="leave the inner block first"):
        outer.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layer=3,deadzone=0.1", "plant=layer=3: the model has layers 0 to 2"),
        ("layer=1,module=mlp.down,deadzone=0.1", "plant=module=mlp.down: layer 1 has self_attn.q_proj, "),
        ("layer=1,module=mlp.act_fn,deadzone=0.1,at=weight", "has no weight of its own"),
    ],
)
def test_places_that_a_model_lacks(llama: LlamaForCausalLM, text: str, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        srdd.plant(llama, text)
    assert said in str(caught.value)


def test_a_size_that_the_tensor_lacks(llama: LlamaForCausalLM) -> None:
    with srdd.plant(llama, "layer=1,dead_channel=65"), pytest.raises(SettingError, match="the tensor has 64 channels"):
        llama(IDS)


def test_reports_name_what_is_planted(llama: LlamaForCausalLM) -> None:
    with srdd.plant(llama, "layer=1,deadzone=0.1", "layer=2,module=mlp.down_proj,at=weight,bias=0.5"):
        found = srdd.scan(llama, IDS, "mxfp4", backend="eager")
        cost = srdd.measure_impact(llama, IDS, "mxfp4", "both", backend="eager")
    told = [
        "PLANTED FAULT: deadzone 0.1 at the output of layer 1; the numbers are of a model that was broken on purpose",
        "PLANTED FAULT: bias 0.5 at the weight of layer 2 mlp.down_proj; the numbers are of a model that was broken on "
        "purpose",
    ]
    assert [w for w in found.warnings if "PLANTED" in w] == told == [w for w in cost.warnings if "PLANTED" in w]
    assert "PLANTED" not in "".join(srdd.scan(llama, IDS, "mxfp4", "weight", backend="eager").warnings)


def test_commands_plant_and_say_so(
    srdd: Callable[..., tuple[int, str, str]], tiny_llama: Path, text: Path, tmp_path: Path
) -> None:
    given = ("--data", text, "--seq-len", "16", "--backend", "eager", "--plant", "layer=1,deadzone=0.1")
    for command, more in (
        ("scan", ("--cost", "none", "--samples", "2", "--quant", "mxfp4")),
        ("impact", ("--samples", "2", "--modes", "wa")),
        ("probe", ("--samples", "2", "--quant", "mxfp4", "--modes", "w4a4", "--sigmas", "0.1", "--seeds", "1")),
    ):
        out = tmp_path / f"{command}.json"
        code, _, said = srdd(command, tiny_llama, *given, *more, "--out", out)
        assert code == 0, said
        assert "PLANTED FAULT: deadzone 0.1 at the output of layer 1" in out.read_text()
    code, _, said = srdd("scan", tiny_llama, *given[:-1], "layer=9,deadzone=0.1", "--out", tmp_path / "x.json")
    assert code == 2
    assert "--plant layer=9: the model has layers 0 to 2" in said
    weights = (
        "--sites",
        "weight",
        "--plant",
        "layer=1,module=mlp.up_proj,dead_channel=3,at=weight",
        "--quant",
        "mxfp4",
    )
    code, _, said = srdd("scan", tiny_llama, *weights, "--backend", "eager", "--out", tmp_path / "w.json")
    assert code == 0, said
    assert "ERROR: dead" in (tmp_path / "w.json").read_text()
