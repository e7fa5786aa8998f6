"""What died is named: weights and rows of zeros, constants, and weights whose size changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import make_report, tally
from transformers import LlamaConfig, LlamaForCausalLM

import srdd as package
from srdd.analysis.comparison.gate import check
from srdd.analysis.comparison.limits import Factor
from srdd.analysis.comparison.policy import Policy, load_policy, parse_limit, scope_of
from srdd.core.dead import dead_text
from srdd.core.metrics import BY_NAME
from srdd.core.tally import Tally
from srdd.documents.report import Report
from srdd.errors import SettingError
from srdd.runs.scans.weights import order_sum

Run = Callable[..., tuple[int, str, str]]
NAME = "model.layers.1.mlp.down_proj"


def scanned(change: Callable[[torch.Tensor], object] | None = None) -> Report:
    """The weights of a tiny Llama, after a change of one of them."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    )
    if change is not None:
        with torch.no_grad():
            change(model.get_submodule(NAME).weight)
    return package.scan(model.eval(), sites="weight", formats="mxfp4", backend="eager")


GOOD = scanned()


def test_by_hand() -> None:
    assert dead_text(Tally(n=4, nonzero=0)) == "all zero"
    assert dead_text(Tally(n=4, nonzero=4, sum_x=2, sum_x2=1)) == "one value throughout"
    assert dead_text(Tally(n=4, nonzero=4, sum_x=2, sum_x2=1.1)) == ""
    assert dead_text(Tally(n=1, nonzero=0)) == dead_text(Tally(n=4, nonzero=0, excluded=32)) == ""
    half = Tally(n=8, nonzero=6, deadzone=2, sum_x2=32)
    assert BY_NAME["zero_ratio"].of(half) == 0.25
    assert BY_NAME["zero_ratio_after"].of(half) == 0.5
    assert BY_NAME["rms"].of(half) == 2


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        (lambda w: w.zero_(), "all zero"),
        (lambda w: w.fill_(0.25), "one value throughout"),
        (lambda w: w[3:7].zero_(), "4 of 64 output channels are all zero: rows 3-6"),
        (lambda w: w[63].zero_(), "1 of 64 output channels are all zero: rows 63"),
        (lambda w: w[:32].zero_(), "32 of 64 output channels are all zero: rows 0-31"),
        (lambda w: w[:, 5].zero_(), "1 of 128 input channels are all zero: columns 5"),
        (
            lambda w: (w[:, 5].zero_(), w[7:9].zero_()),
            "2 of 64 output channels are all zero: rows 7-8; 1 of 128 input channels are all zero: columns 5",
        ),
    ],
)
def test_what_died_fails_and_is_named(change: Callable[[torch.Tensor], object], noted: str) -> None:
    new = scanned(change)
    site = next(site for site in new.sites if site.name.startswith(NAME) and site.kind == "weight")
    assert [str(note) for note in site.notes if note.level == "dead"] == [f"ERROR: dead: {noted}"]
    assert str(new.warnings[0]).startswith(f"ERROR: dead: 1 weight(s): {site.name}, {noted}")
    verdict = check(new, GOOD)
    assert not verdict.passed
    assert verdict.problems == [f"weight {site.name}: {noted} (was not in the baseline)"]
    assert check(new, new).passed, "what was dead before is nothing new"
    assert check(GOOD, new).problems == [], "coming to life is no problem"


def test_more_dead_rows_than_before_are_new() -> None:
    (problem,) = check(scanned(lambda w: w[:9].zero_()), scanned(lambda w: w[:8].zero_())).problems
    assert problem.endswith("rows 0-8 (fewer in the baseline)")


def test_half_of_the_values_zeroed_fails() -> None:
    verdict = check(scanned(lambda w: w[:, ::2].zero_()), GOOD)
    failed = {case.metric for case in verdict.cases if case.failures}
    assert "zero_ratio" in failed
    names = [case.failures[0].name for case in verdict.cases if case.metric == "zero_ratio" and case.failures]
    assert names == [NAME]


@pytest.mark.parametrize("times", [16.0, 1 / 16, 64.0])
def test_a_weight_of_another_size_fails_and_is_named(times: float) -> None:
    verdict = check(scanned(lambda w: w.mul_(times)), GOOD)
    (case,) = (case for case in verdict.cases if case.metric == "rms")
    (failure,) = case.failures
    assert failure.name.startswith(NAME)
    assert failure.base is not None
    assert failure.new / failure.base == pytest.approx(times)
    assert failure.bound / failure.base == pytest.approx(2.0 if times > 1 else 0.5)
    assert check(scanned(lambda w: w.mul_(1.5)), GOOD).passed
    wider = Policy(limits=(Factor(metric="rms", factor=100.0, site="weight"),))
    assert check(scanned(lambda w: w.mul_(times)), GOOD, wider).passed


@pytest.mark.parametrize(("to", "of"), [(1, 0), (0, 1)])
def test_a_weight_that_became_a_copy_of_another_fails(to: int, of: int) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    )
    name = "model.layers.{}.mlp.down_proj"
    with torch.no_grad():
        model.get_submodule(name.format(to)).weight.copy_(model.get_submodule(name.format(of)).weight)
    new = package.scan(model.eval(), sites="weight", formats="mxfp4", backend="eager")
    verdict = check(new, GOOD)
    assert verdict.problems == [
        f"weight {name.format(to)} is now equal to {name.format(of)}, and was not in the baseline"
    ]
    assert not verdict.passed
    assert check(new, new).passed
    assert check(GOOD, new).passed


def test_a_layer_cannot_improve_by_dying() -> None:
    dying = replace(tally(0.3), nonzero=tally(0.3).n / 2)
    verdict = check(make_report({"output": [[dying] * 2] * 4}), make_report({"output": [[tally(0.3)] * 2] * 4}))
    assert not verdict.passed


def test_a_checkpoint_that_was_pruned_on_purpose_passes() -> None:
    pruned = scanned(lambda w: w[:, ::2].zero_())
    limit = parse_limit("zero_ratio=+60%", scope_of(None, None, None))
    assert limit.bound(0.0) == pytest.approx(0.6)
    assert check(pruned, GOOD, Policy(limits=(limit,))).passed


def test_a_factor_is_written_with_an_x(tmp_path: Path) -> None:
    limit = parse_limit("rms=x4", scope_of("weight", None, None))
    assert isinstance(limit, Factor)
    assert (limit.text, limit.bound(2.0, 9.0), limit.bound(2.0, 1.0)) == ("rms x4 (weight)", 8.0, 0.5)
    for text, words in (("rms=x1", "expected above 1"), ("sqnr_db=x2", "is a logarithm"), ("rms=+1", "cannot rank")):
        with pytest.raises(SettingError, match=words):
            parse_limit(text, scope_of(None, None, None))
    (tmp_path / "policy.toml").write_text(
        '[[limit]]\nmetric = "sqnr_db"\nmax_worse = 0.5\n[[limit]]\nmetric = "rms"\nfactor = 3\nsite = "weight"\n'
    )
    assert [limit.text for limit in load_policy(tmp_path / "policy.toml").limits] == [
        "sqnr_db -0.5",
        "rms x3 (weight)",
    ]


def test_strict_scans_fail(tmp_path: Path, srdd: Run) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    )
    with torch.no_grad():
        model.get_submodule(NAME).weight[:8].zero_()
    model.save_pretrained(tmp_path / "dead")
    out = tmp_path / "report.json"
    code, shown, said = srdd(
        "scan", tmp_path / "dead", "--sites", "weight", "--quant", "mxfp4", "--out", out, "--strict"
    )
    assert code == 1
    assert "is all zero (--strict)" in said
    assert "8 of 64 output channels are all zero: rows 0-7" in " ".join(shown.split())


@pytest.mark.parametrize(
    "change",
    [lambda w: w.neg_(), lambda w: w.copy_(w.flip(0)), lambda w: w.copy_(w[[1, 0, *range(2, len(w))]])],
    ids=["sign", "order", "two rows"],
)
def test_the_same_values_elsewhere_or_negated_fail(change: Callable[[torch.Tensor], object]) -> None:
    verdict = check(scanned(change), GOOD)
    (problem,) = verdict.problems
    assert problem.startswith(f"weight {NAME}")
    assert problem.endswith("holds the values of the baseline in another order or with the other sign")


@pytest.mark.parametrize("change", [lambda w: w.mul_(1.0001), lambda w: w.mul_(1 - 1e-6), lambda w: w[3, 5].mul_(1.01)])
def test_a_step_of_training_is_no_rearrangement(change: Callable[[torch.Tensor], object]) -> None:
    assert check(scanned(change), GOOD).problems == []


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (3, 4), (63, 127), (0, 5)])
def test_two_rows_or_columns_in_each_others_place(rows: int, columns: int) -> None:
    def swap(w: torch.Tensor) -> None:
        w[[rows - 1, rows]] = w[[rows, rows - 1]]

    def turn(w: torch.Tensor) -> None:
        w[:, [columns, 0]] = w[:, [0, columns]]

    for change in (swap, turn):
        verdict = check(scanned(change), GOOD)
        assert not verdict.passed
        assert f"weight {NAME} holds the values of the baseline in another order" in verdict.problems[0]


def test_the_order_sum_by_hand() -> None:
    u = [0.0, 0.6180339887498949, 0.2360679774997898]  # fractional parts of 0, 1 and 2 times the golden ratio
    v = [0.0, 0.4142135623730951, 0.8284271247461903]  # and of the square root of 2
    x = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0]])
    wanted = sum(v[r] * u[c] * float(x[r, c]) for r in range(3) for c in range(3))
    assert order_sum(x, 0) == pytest.approx(wanted, rel=1e-6)
    assert order_sum(x[:1], 0) + order_sum(x[1:], 1) == pytest.approx(wanted, rel=1e-6), "of chunks it adds"
    assert order_sum(torch.empty(0, 3), 0) == 0
    assert order_sum(x.T.contiguous(), 0) != pytest.approx(wanted, rel=0.01)
    assert math.isnan(order_sum(torch.tensor([[1.0, math.inf], [0.0, 1.0]]), 0))


@pytest.mark.parametrize("size", [1e-6, 1e-4, 1e-3, 1e-2])
def test_a_small_step_of_one_weight_is_no_other_order(size: float) -> None:
    def step(w: torch.Tensor) -> None:
        draws = torch.Generator().manual_seed(round(1 / size))
        w += size * w.std() * torch.randn(w.shape, generator=draws)

    assert not any("another order" in problem for problem in check(scanned(step), GOOD).problems)


def test_a_limit_of_ones_own_lets_no_dead_weight_pass_unless_it_is_on_zeros() -> None:
    dead = scanned(lambda w: w.zero_())
    turned = scanned(lambda w: w.copy_(w.flip(0)))
    for text, names_dead in (("sqnr_db=-0.5", True), ("rms=x2", True), ("zero_ratio=+60%", False)):
        own = Policy(limits=(parse_limit(text, scope_of(None, None, None)),))
        assert any("all zero" in problem for problem in check(dead, GOOD, own).problems) is names_dead
        assert any("another order" in problem for problem in check(turned, GOOD, own).problems)
