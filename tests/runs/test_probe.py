"""The probe: against losses worked out separately, a model that breaks where it must, and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from builders import make_rin
from transformers import BertConfig, BertModel, LlamaForCausalLM

from srdd.core.formats import parse
from srdd.documents.parts import Model
from srdd.documents.probe import Break, Probe, over_seeds
from srdd.documents.rin import RinConfig
from srdd.errors import NoiseError, ReportError, SettingError, SiteError
from srdd.exporters.wording import equal_damage
from srdd.models.fake import fake_quantize
from srdd.noise.draw import normal
from srdd.runs.experiments.crossing import BELOW, NOT_REACHED, crossing, geometric
from srdd.runs.experiments.modes import name_of, parse_modes
from srdd.runs.experiments.probe import measure_probe, targets_of
from srdd.runs.experiments.probe_grid import SHARES

Run = Callable[..., tuple[int, str, str]]
IDS = torch.randint(0, 50, (3, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def llama(tiny_llama: Path) -> LlamaForCausalLM:
    model = LlamaForCausalLM.from_pretrained(tiny_llama).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    return model


def test_modes_by_name() -> None:
    found = parse_modes("w16a16,W4A16,w16a4,w4a4", parse("nvfp4"))
    assert found == [None, "weight", "input", "both"]
    assert [name_of(mode, parse("nvfp4")) for mode in found] == ["w16a16", "w4a16", "w16a4", "w4a4"]
    assert parse_modes("w8a8", parse("mxfp8")) == ["both"]
    for text in ("w4a8", "w8a8", "fp4", "w4a4,w4a4", ""):
        with pytest.raises(SettingError, match=r"^modes="):
            parse_modes(text, parse("mxfp4"))
    assert targets_of("rmsnorm,linear") == ["rmsnorm", "linear"]
    for text in ("norms", "linear,linear"):
        with pytest.raises(SettingError, match=r"^targets="):
            targets_of(text)


def test_crossings_are_found() -> None:
    grid = [0.01, 0.02, 0.04, 0.08]

    def at(place: float) -> Callable[[float], float]:
        return lambda sigma: math.log(sigma / place)

    for place in (0.0113, 0.02, 0.05):
        found = crossing([(s, at(place)(s)) for s in grid], at(place), 8)
        assert found == pytest.approx(place, rel=0.005)
    assert crossing([(s, at(1.0)(s)) for s in grid], at(1.0), 5) == NOT_REACHED
    assert crossing([(s, at(0.001)(s)) for s in grid], at(0.001), 5) == BELOW
    assert crossing([(s, at(0.005)(s)) for s in grid], at(0.005), 8) == pytest.approx(0.005, rel=0.01)
    broken = [(0.01, -1.0), (0.02, math.nan), (0.04, -1.0)]  # not finite is beyond, even if it comes back
    assert crossing(broken, lambda s: -1.0 if s < 0.015 else math.nan, 8) == pytest.approx(0.015, rel=0.01)


def test_geometric_means_by_hand() -> None:
    middle, interval = geometric([0.02, 0.03])
    assert middle == pytest.approx(math.sqrt(0.0006))
    assert interval is not None
    half = 12.7062 * math.log(1.5) / 2  # t(1) times the spread log(1.5) / sqrt(2), over sqrt(2)
    assert interval == pytest.approx((middle * math.exp(-half), middle * math.exp(half)), rel=1e-4)
    assert geometric([0.5]) == (pytest.approx(0.5), None)
    assert over_seeds([1.0, 3.0]) == (2.0, 1.0)
    assert over_seeds([1.0, None]) is None


def test_one_seed_has_no_error_over_seeds(llama: LlamaForCausalLM, tmp_path: Path, srdd: Run) -> None:
    found = measure_probe(
        llama, IDS, "mxfp4", "w16a16", sigmas=[0.3], seeds=[4], multipliers=make_rin({0: 0.5, 1: 1.5, 2: 1.0})
    )
    (tmp_path / "probe.json").write_text(found.model_dump_json())
    _, shown, _ = srdd("show", tmp_path / "probe.json")
    assert " ± - ± 0." in shown
    code, printed, refusal = srdd("show", tmp_path / "probe.json", "--top", "1")
    assert (code, printed) == (2, "")
    assert refusal == "srdd: error: --top has no effect on an srdd-probe document; leave it out\n"
    assert "nan" not in shown
    at = {"mode": "w16a16", "target": "rmsnorm", "sigma": 0.3, "interval": None, "relative": 0.1, "by_seed": [0.3]}
    breaks = [Break(profile="global", noise_rms=0.2, **at), Break(profile="guided", noise_rms=0.3, **at)]
    (said,) = equal_damage(found.model_copy(update={"breaks": breaks}))
    assert said.endswith("1.500 times as large as global noise; more seeds are needed to tell whether that is chance")


@pytest.mark.parametrize("relative", [False, True])
def test_every_number_against_a_run_by_hand(llama: LlamaForCausalLM, relative: bool) -> None:
    before = {n: p.detach().clone() for n, p in llama.named_parameters()}
    found = measure_probe(llama, IDS, "mxfp4", "w16a16,w4a4", sigmas=[0.3, 0.1], relative=relative, seeds=[4, 9])
    assert all(torch.equal(p, before[n]) for n, p in llama.named_parameters())
    assert found.settings.sigmas == {"rmsnorm": [0.1, 0.3]}
    assert len(found.trials) == 2 * 2 * 2

    def logits(mode: str) -> torch.Tensor:
        with torch.no_grad():
            if mode == "w16a16":
                return llama(IDS).logits[:, :-1].double()
            with fake_quantize(llama, "mxfp4", "both"):
                return llama(IDS).logits[:, :-1].double()

    def loss(z: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(z.transpose(1, 2), IDS[:, 1:], reduction="none").mean(1)

    def kl(z: torch.Tensor, y: torch.Tensor) -> float:
        p, q = z.log_softmax(-1), y.log_softmax(-1)
        return float((p.exp() * (p - q)).sum(-1).mean())

    clean = {mode: logits(mode) for mode in ("w16a16", "w4a4")}
    norms = [n for n in before if "norm" in n]
    for trial in found.trials:
        power = total = weights = 0.0
        with torch.no_grad():
            for name in norms:
                w = before[name]
                rms = float(w.double().square().mean().sqrt())
                noise = trial.sigma * (rms if relative else 1.0) * normal(trial.seed, 0, name, w.shape)
                llama.get_parameter(name).copy_(w + noise)
                power += float(noise.double().square().sum())
                weights += float(w.double().square().sum())
                total += w.numel()
        z = logits(trial.mode)
        with torch.no_grad():
            for name in norms:
                llama.get_parameter(name).copy_(before[name])
        change = loss(z) - loss(clean[trial.mode])
        assert trial.loss == pytest.approx(float(loss(z).mean()), rel=1e-5)
        assert trial.loss_change == pytest.approx(float(change.mean()), abs=1e-5)
        assert trial.sequence_error == pytest.approx(float(change.std() / math.sqrt(3)), rel=1e-3)
        assert trial.kl == pytest.approx(kl(clean[trial.mode], z), rel=1e-3, abs=1e-6)
        assert trial.kl_clean == pytest.approx(kl(clean["w16a16"], z), rel=1e-3, abs=1e-6)
        p = z.log_softmax(-1)
        assert trial.entropy == pytest.approx(float(-(p.exp() * p).sum(-1).mean()), rel=1e-4)
        same = (z.argmax(-1) == clean[trial.mode].argmax(-1)).double().mean()
        assert trial.top1 == pytest.approx(float(same))
        assert trial.noise_rms == pytest.approx(math.sqrt(power / total), rel=1e-4)
        assert trial.relative == pytest.approx(math.sqrt(power / weights), rel=1e-4)
    base = {b.mode: b for b in found.baselines}
    assert base["w4a4"].loss == pytest.approx(float(loss(clean["w4a4"]).mean()), rel=1e-5)
    assert base["w4a4"].kl_clean == pytest.approx(kl(clean["w16a16"], clean["w4a4"]), rel=1e-3)
    assert base["w16a16"].kl_clean == 0


@pytest.mark.parametrize(("criterion", "limit"), [("loss", 1.02), ("agreement", 0.7)])
def test_at_the_break_the_criterion_is_at_its_limit(llama: LlamaForCausalLM, criterion: Any, limit: float) -> None:
    grid = [0.02 * 2**k for k in range(9)]
    found = measure_probe(llama, IDS, "mxfp4", "w4a4", sigmas=grid, seeds=[0], criterion=criterion, limit=limit)
    (row,) = found.breaks
    assert row.sigma is not None, row.note
    sides = []
    for sigma in (row.sigma * 0.97, row.sigma * 1.03):
        again = measure_probe(llama, IDS, "mxfp4", "w4a4", sigmas=[sigma], seeds=[0], criterion=criterion, limit=limit)
        trial, base = again.trials[0], again.baselines[0]
        assert trial.loss is not None
        assert trial.entropy is not None
        assert trial.top1 is not None
        assert base.loss is not None
        assert base.entropy is not None
        value = {"loss": trial.loss / base.loss, "entropy": trial.entropy / base.entropy, "agreement": trial.top1}
        sides.append((value[criterion] >= limit) == (criterion != "agreement"))
    assert sides == [False, True]


def test_a_break_that_is_not_reached_says_so(llama: LlamaForCausalLM) -> None:
    found = measure_probe(llama, IDS, "mxfp4", "w16a16", sigmas=[1e-6, 2e-6], seeds=[0, 1])
    assert found.breaks[0].sigma is None
    assert found.breaks[0].note == "not reached with 2 of 2 seeds"
    found = measure_probe(llama, IDS, "mxfp4", "w16a16", sigmas=[1e-6], seeds=[0], criterion="entropy", limit=1.5)
    assert found.breaks[0].by_seed == [None]


def test_the_default_grid_is_in_units_of_the_weights(llama: LlamaForCausalLM) -> None:
    with torch.no_grad():
        for name, p in llama.named_parameters():
            if "norm" in name:
                p.fill_(0.5)
    found = measure_probe(llama, IDS, "mxfp4", "w16a16", seeds=[0])
    assert found.settings.sigmas["rmsnorm"] == pytest.approx([0.5 * share for share in SHARES], rel=0.05)


def test_a_guided_profile_stands_beside_the_global_one(llama: LlamaForCausalLM) -> None:
    guide = make_rin({0: 0.0, 1: 2.0, 2: 0.0}, outside_layers=0.0)
    found = measure_probe(llama, IDS, "mxfp4", "w16a16", sigmas=[0.1, 0.4], seeds=[0, 1], multipliers=guide)
    assert [row.profile for row in found.breaks] == ["global", "guided"]
    rms = {t.profile: t.noise_rms for t in found.trials if t.sigma == 0.1 and t.seed == 0}
    assert rms["global"] == pytest.approx(0.1, rel=0.15)
    # 0.2 on two of seven norms, none on the rest: more on one layer is less in all
    assert rms["guided"] == pytest.approx(0.2 * math.sqrt(2 / 7), rel=0.15)
    assert found.settings.multipliers_sha256 is not None


def test_multipliers_of_another_model(llama: LlamaForCausalLM) -> None:
    guide = make_rin(dict.fromkeys(range(3), 1.0))
    mine = Model(id="tiny", parameter_count=0, weights_hash="a" * 64)
    settings: dict[str, Any] = {"sigmas": [0.1], "seeds": [0], "identity": mine}

    def made_for(model: str, weights_hash: str) -> RinConfig:
        of = guide.provenance.model_copy(update={"model": model, "weights_hash": weights_hash})
        return guide.model_copy(update={"provenance": of})

    with pytest.raises(ReportError, match="made for bert, whose weights are not those of tiny"):
        measure_probe(llama, IDS, "mxfp4", "w16a16", multipliers=made_for("bert", "b" * 64), **settings)
    found = measure_probe(llama, IDS, "mxfp4", "w16a16", multipliers=made_for("tiny", "b" * 64), **settings)
    assert "the multipliers were made from other weights of tiny" in found.warnings


def test_linear_noise_is_added_before_quantization(llama: LlamaForCausalLM) -> None:
    found = measure_probe(llama, IDS, "mxfp4", "w4a16", ["linear"], sigmas=[0.05], seeds=[3])
    before = {n: p.detach().clone() for n, p in llama.named_parameters()}
    with torch.no_grad():
        for name, p in llama.named_parameters():
            if name.endswith("proj.weight"):
                p.add_(0.05 * normal(3, 0, name, p.shape))
        with fake_quantize(llama, "mxfp4", "weight"):
            z = llama(IDS).logits[:, :-1]
        for name, p in llama.named_parameters():
            p.copy_(before[name])
    want = torch.nn.functional.cross_entropy(z.transpose(1, 2), IDS[:, 1:])
    assert found.trials[0].loss == pytest.approx(float(want), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"seeds": []}, SettingError, "seeds=\\[\\]: expected at least one"),
        ({"seeds": [1, 1]}, SettingError, "each once"),
        ({"sigmas": [0.0, 0.1]}, SettingError, "above 0"),
        ({"sigmas": [math.inf]}, SettingError, "finite"),
        ({"criterion": "speed"}, SettingError, "expected loss, entropy, agreement"),
        ({"limit": 0.9}, SettingError, "a ratio above 1"),
        ({"criterion": "agreement", "limit": 1.5}, SettingError, "between 0 and 1"),
        ({"targets": ["linear"], "multipliers": make_rin({0: 1.0, 1: 1.0, 2: 1.0})}, SettingError, "is for rmsnorm"),
        ({"batch_size": 0}, SettingError, "batch_size=0"),
        ({"multipliers": make_rin(dict.fromkeys(range(4), 1.0))}, NoiseError, r"layer\(s\) \[3\] would be lost"),
        ({"sigmas": [1e39]}, NoiseError, "overflows"),
    ],
)
def test_mistakes(llama: LlamaForCausalLM, options: dict[str, Any], error: type[Exception], words: str) -> None:
    before = {n: p.detach().clone() for n, p in llama.named_parameters()}
    with pytest.raises(error, match=words):
        measure_probe(llama, IDS, "mxfp4", "w16a16", options.pop("targets", ["rmsnorm"]), **options)
    assert all(torch.equal(p, before[n]) for n, p in llama.named_parameters())


def test_an_encoder_has_no_loss() -> None:
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    with pytest.raises(SiteError, match="no language-model head"):
        measure_probe(BertModel(config).eval(), IDS, "mxfp4", "w16a16")


def test_command(tiny_llama: Path, text: Path, tmp_path: Path, srdd: Run) -> None:
    out, rin = tmp_path / "probe.json", tmp_path / "rin.yaml"
    rin.write_text(yaml.safe_dump(make_rin({0: 0.5, 1: 1.5, 2: 1.0}).model_dump(mode="json", exclude_none=True)))
    given = (
        "--model",
        tiny_llama,
        "--quant",
        "mxfp4",
        "--data",
        text,
        "--samples",
        "2",
        "--seq-len",
        "16",
        "--out",
        out,
    )
    code, shown, said = srdd("probe", *given, "--seeds", "2", "--multipliers", rin, "--modes", "w16a16,w4a4")
    assert code == 0, said
    for words in ("Where it breaks: loss ratio above 1.1", "loss over sigma", "guided", "w4a4"):
        assert words in shown
    document = Probe.model_validate_json(out.read_text())
    assert len(document.trials) == 2 * 2 * 2 * len(SHARES)
    code, again, _ = srdd("show", out)
    assert code == 0
    assert "Where it breaks" in again
    code, printed, _ = srdd("show", out, "--json")
    assert json.loads(printed)["document"] == "srdd-probe"
    code, _, shown = srdd("zones", out)
    assert code == 2
    assert "the document of a probe" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sigmas", "a"], "--sigmas 'a'"),
        (["--modes", "w8a8"], "mxfp4:even has 4 bits"),
        (["--target", "norm"], "--target 'norm'"),
        (["--multipliers", "no-such.yaml"], "no rin document at no-such.yaml"),
        (["--criterion", "x"], "--criterion x: expected loss, entropy, agreement"),
        (["--sigmas", "-1"], "--sigmas [-1.0]: expected finite numbers above 0"),
        (["--limit", "0.5"], "--limit 0.5: expected a ratio above 1"),
        (["--criterion", "agreement", "--limit", "2"], "--limit 2: agreement is a share"),
        (["--quant", "mxfp4,nvfp4"], "--quant mxfp4,nvfp4: a probe is of one format"),
    ],
)
def test_bad_options_are_found_before_the_model_is_opened(
    arguments: list[str],
    words: str,
    tiny_llama: Path,
    text: Path,
    tmp_path: Path,
    srdd: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("srdd.models.source.open_model", lambda *_, **__: pytest.fail("a model was opened"))
    out = tmp_path / "probe.json"
    given = (
        "--model",
        tiny_llama,
        "--quant",
        "mxfp4",
        "--data",
        text,
        "--samples",
        "2",
        "--seq-len",
        "16",
        "--out",
        out,
    )
    code, printed, shown = srdd("probe", *given, *arguments)
    assert (code, printed, out.exists()) == (2, "", False), shown
    assert words in shown.strip().splitlines()[-1]
