"""Draws of stochastic rounding in runs: each is what fake quantization gives, and what is not drawn stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, OPTConfig, OPTForCausalLM

import srdd as srdd_package
from srdd.core.formats import parse
from srdd.documents.costs import Costs
from srdd.documents.probe import Probe
from srdd.errors import NoEffectError, SettingError
from srdd.models.fake import fake_quantize
from srdd.models.quantizer import Quantizer
from srdd.runs.divergence import ReferenceLogits
from srdd.runs.experiments.probe import measure_probe
from srdd.runs.impact.predict import predict_costs
from srdd.runs.impact.request import DRAWS
from srdd.runs.impact.run import measure_impact
from srdd.runs.token_ids import token_ids_of

Run = Callable[..., tuple[int, str, str]]
IDS = torch.randint(0, 50, (3, 12), generator=torch.Generator().manual_seed(0))
SR = parse("mxfp4_sr")
EVERY: dict[str, Any] = {"how": ("predicted", "layers", "groups")}


@pytest.fixture
def llama(tiny_llama: Path) -> LlamaForCausalLM:
    model = LlamaForCausalLM.from_pretrained(tiny_llama).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    return model


def impact(model: torch.nn.Module, formats: str, **settings: Any) -> Costs:
    costs = measure_impact(model, IDS, formats, **settings).costs
    assert costs is not None
    return costs


@torch.no_grad()
def kls(model: torch.nn.Module, fmt: str, mode: Any, draw: int, seed: int = 0) -> list[float]:
    """KL of every sequence with one draw, one sequence at a time."""
    _, calibration = token_ids_of(IDS, model)
    found = []
    for row, name in zip(IDS, calibration.sequence_hashes, strict=True):
        reference = ReferenceLogits.of(model(row[None]).logits, row[None])
        with fake_quantize(model, Quantizer(parse(fmt), "eager", seed, draw, sequences=[name]), mode):
            found.append(float(reference.kl(model(row[None]).logits).double().mean()))
    return found


@pytest.mark.parametrize("fmt", ["mxfp4_sr", "nvfp4_sr"])
def test_impact_is_the_mean_over_draws_of_the_fake_quantized_model(llama: LlamaForCausalLM, fmt: str) -> None:
    rows = impact(llama, fmt, modes=("weight", "both"), draws=3, seed=5, backend="eager").whole
    for row in rows:
        draws = [kls(llama, fmt, row.mode, draw, seed=5) for draw in range(3)]
        assert row.kl.draws == pytest.approx([fmean(draw) for draw in draws], rel=1e-3)
        assert row.kl.sequences == pytest.approx([fmean(column) for column in zip(*draws, strict=True)], rel=1e-3)
        assert row.kl.spread == pytest.approx(stdev(map(fmean, draws)), rel=1e-2)


def test_every_cost_has_its_draws_and_other_formats_are_what_they_are_alone(llama: LlamaForCausalLM) -> None:
    mixed = impact(llama, "mxfp4_sr,mxfp4", **EVERY, noise=True)
    alone = impact(llama, "mxfp4", **EVERY, noise=True)
    rows = [*mixed.whole, *mixed.layers, *mixed.groups, *mixed.linears]
    for row in rows:
        numbers = [v for v in row.model_dump().values() if isinstance(v, dict)]
        nested = [v for group in numbers for v in group.values() if isinstance(v, dict)]
        costs = [v for v in (*numbers, *nested) if "value" in v]
        assert costs
        for number in costs:
            assert len(number.get("draws", ())) == (DRAWS if row.format == "mxfp4_sr:rceil" else 0)
    for table in ("whole", "groups", "linears"):
        assert [r for r in getattr(mixed, table) if r.format == "mxfp4:even"] == getattr(alone, table)
    without = [r.model_copy(update={"noise_kl": None}) for r in mixed.layers if r.format == "mxfp4:even"]
    assert without == [r.model_copy(update={"noise_kl": None}) for r in alone.layers]  # one generator for all noise
    assert mixed.sensitivities == alone.sensitivities
    assert mixed.clean == alone.clean


def test_batches_of_any_size_draw_the_same(llama: LlamaForCausalLM) -> None:
    one, three = (impact(llama, "mxfp4_sr", **EVERY, batch_size=size, draws=2) for size in (1, 3))
    for a, b in zip(one.whole, three.whole, strict=True):
        assert a.kl.sequences == pytest.approx(b.kl.sequences, rel=1e-3)
    for c, d in zip(one.layers, three.layers, strict=True):
        assert c.isolated is not None
        assert d.isolated is not None
        assert c.isolated.above == pytest.approx(d.isolated.above, rel=1e-3)


def test_halves_of_the_text_merge_to_the_whole(llama: LlamaForCausalLM) -> None:
    whole = impact(llama, "nvfp4_sr")
    parts = [measure_impact(llama, ids, "nvfp4_sr") for ids in (IDS[:1], IDS[1:])]
    merged = srdd_package.merge(*parts).costs
    assert merged is not None
    for a, b in zip(merged.whole, whole.whole, strict=True):
        assert a.kl.sequences == pytest.approx(b.kl.sequences, rel=1e-6)
        assert a.kl.draws == pytest.approx(b.kl.draws, rel=1e-6)


def test_predictions_of_a_scan_draw_what_impact_draws(llama: LlamaForCausalLM) -> None:
    found = predict_costs(llama, IDS, [SR, parse("mxfp4")], backend="eager")
    want = impact(llama, "mxfp4_sr,mxfp4", backend="eager")
    for row in found.whole:
        other = next(r for r in want.whole if (r.format, r.mode) == (row.format, row.mode))
        assert row.kl.value == pytest.approx(other.kl.value, rel=1e-3)
        assert row.kl.spread == (None if row.format == "mxfp4:even" else pytest.approx(other.kl.spread, rel=1e-2))
    for group, same in zip(found.groups, want.groups, strict=True):
        assert group.predicted_kl["both"].value == pytest.approx(same.predicted_kl["both"].value, rel=1e-3)


def test_a_model_without_an_axis_of_sequences_in_its_linears() -> None:
    torch.manual_seed(0)
    config = OPTConfig(vocab_size=50, hidden_size=64, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4)
    config.word_embed_proj_dim = 64
    costs = impact(OPTForCausalLM(config).eval(), "mxfp4_sr", modes="both")
    sequences = costs.whole[0].kl.sequences
    assert sequences is not None
    assert len(set(sequences)) == len(IDS)


@pytest.mark.parametrize(
    ("formats", "draws", "error", "words"),
    [
        ("mxfp4", 4, NoEffectError, "draws has no effect when no format rounds stochastically"),
        ("identity", 1, NoEffectError, "draws has no effect"),
        ("mxfp4_sr", 0, SettingError, "draws=0: expected 1 or more"),
    ],
)
def test_mistakes(llama: LlamaForCausalLM, formats: str, draws: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        impact(llama, formats, draws=draws)


def probe(model: torch.nn.Module, spec: str, **settings: Any) -> Probe:
    return measure_probe(model, IDS, spec, modes="w16a16,w4a4", sigmas=[0.05, 0.4], seeds=(3, 4), **settings)


def loss(model: torch.nn.Module, ids: Tensor) -> float:
    return fmean(float(model(row[None], labels=row[None]).loss) for row in ids)


@torch.no_grad()
def test_a_probe_draws_once_a_seed_with_and_without_noise(llama: LlamaForCausalLM) -> None:
    found = probe(llama, "mxfp4_sr", backend="eager")
    clean, quantized = found.baselines
    _, calibration = token_ids_of(IDS, llama)
    losses = []
    for draw in (3, 4):
        by_row = []
        for row, name in zip(IDS, calibration.sequence_hashes, strict=True):
            with fake_quantize(llama, Quantizer(SR, "eager", 0, draw, sequences=[name])):
                by_row.append(loss(llama, row[None]))
        losses.append(fmean(by_row))
    assert quantized.draws == pytest.approx(losses, rel=1e-4)
    assert quantized.loss == pytest.approx(fmean(losses), rel=1e-4)
    assert quantized.spread == pytest.approx(stdev(losses), rel=1e-2)
    assert (clean.draws, clean.spread) == (None, None)
    for trial in found.trials:
        if trial.mode == "w4a4":
            assert trial.loss is not None
            assert trial.loss_change == pytest.approx(trial.loss - losses[trial.seed - 3], abs=1e-4)
    again = probe(llama, "mxfp4_sr", backend="eager", batch_size=3)
    assert [t.loss for t in again.trials] == pytest.approx([t.loss for t in found.trials], rel=1e-3)


def test_a_probe_of_another_format_mentions_no_draws(llama: LlamaForCausalLM) -> None:
    tree = probe(llama, "mxfp4").model_dump(mode="json")
    assert [set(row) for row in tree["baselines"]] == [{"mode", "loss", "entropy", "kl_clean", "top1_clean"}] * 2


def test_the_commands_say_mean_and_spread(srdd: Run, tiny_llama: Path, text: Path, tmp_path: Path) -> None:
    of_sr = ("impact", tiny_llama, "--quant", "mxfp4_sr", "--modes", "wa")
    short = ("--data", text, "--samples", 2, "--seq-len", 16, "--backend", "eager", "--force")
    out = tmp_path / "impact.json"
    code, shown, _ = srdd(*of_sr, *short, "--draws", 3, "--out", out)
    assert code == 0
    assert "means over 3 draws of stochastic rounding, which scatter by KL" in " ".join(shown.split())
    assert "draws: its standard deviation over draws" in " ".join(shown.split())
    code, shown, _ = srdd(*of_sr, *short, "--draws", 1, "--out", out)
    assert "of one draw of stochastic rounding" in " ".join(shown.split())
    code, shown, said = srdd("impact", tiny_llama, "--quant", "mxfp4", *short, "--draws", 2, "--out", out)
    assert (code, "--draws has no effect when no format rounds stochastically" in said) == (2, True)
    probed = tmp_path / "probe.json"
    few = ("--modes", "w16a16,w4a4", "--sigmas", "0.1", "--seeds", 2, "--out", probed)
    code, shown, _ = srdd("probe", tiny_llama, "--quant", "mxfp4_sr", *short, *few)
    assert code == 0
    assert "draws scatter" in shown
    assert "2 draws of stochastic rounding, one a seed" in " ".join(shown.split())
    code, again, _ = srdd("show", probed)
    assert "draws scatter" in again
