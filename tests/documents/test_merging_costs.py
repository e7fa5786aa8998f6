"""Costs merge: halves give exactly the whole, a scan and costs join, and what contradicts is refused in one line."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from builders import make_costs, make_report, report_of_costs, tally

from srdd.core.modes import MODES
from srdd.documents.costs import (
    Clean,
    Cost,
    Costs,
    CostSettings,
    ExpertCost,
    GroupCost,
    LayerCost,
    LinearCost,
    Ratio,
    Sensitivity,
    Unpriced,
    WholeCost,
)
from srdd.documents.merging import merge
from srdd.documents.parts import Calibration, Model
from srdd.documents.report import Report, dumps
from srdd.errors import ReportError

Run = Callable[..., tuple[int, str, str]]
SPECS = ("mxfp4:even", "mxfp8:rceil")
MODEL = Model(id="toy", parameter_count=1024, layer_count=2, weights_hash="hash of toy")
NAMES = ("a", "b", "c", "d", "e")


def numbers(key: object, sequences: Sequence[str]) -> list[float]:
    """One number a sequence, whatever else was measured beside it."""
    return [random.Random(f"{key} {name}").uniform(0.1, 1) for name in sequences]


def measured(sequences: Sequence[str], specs: Sequence[str] = SPECS, **changes: Any) -> Report:
    """Costs with every field there is, of these sequences. Expert 1 gets tokens from "d" and "e" alone."""

    def cost(*key: object) -> Cost:
        return Cost.of(numbers(key, sequences))

    def ratio(*key: object) -> Ratio:
        return Ratio.of(numbers((*key, "above"), sequences), numbers("below", sequences))

    def linear(spec: str) -> LinearCost:
        errors = {mode: ratio("linear", spec, mode) for mode in MODES}
        sums = {mode: math.fsum(error.above or ()) for mode, error in errors.items()}
        row = LinearCost(module="l.0.q_proj", role="q_proj", layer=0, group="l.0.qkv", parameters=64, format=spec)
        row.output_error, row.predicted_kl = errors, {mode: cost("linear", spec, mode) for mode in MODES}
        row.interaction = (sums["both"] - sums["weight"] - sums["input"]) / sums["both"]
        return row

    def expert(spec: str, number: int) -> ExpertCost:
        row = ExpertCost(
            module="l.0.experts", expert=number, layer=0, group="l.0.experts", parameters=8, tokens=0, format=spec
        )
        got = [name for name in sequences if number == 0 or name in "de"]
        if got:
            values = [
                value if name in got else 0.0
                for name, value in zip(sequences, numbers((spec, number), sequences), strict=True)
            ]
            row.tokens, row.predicted_kl = len(got), {"both": Cost.of(values)}
        return row

    pairs = [(spec, mode) for spec in specs for mode in ("weight", "both")]
    settings = CostSettings(
        formats=list(specs),
        modes=["weight", "both"],
        how=["predicted", "layers", "groups"],
        calibration=Calibration(source="toy", seq_len=8, sequence_hashes=list(sequences)),
        left_out=["lm_head"],
        sensitive=["norm"],
        seed=3,
    ).model_copy(update=changes)
    idle = not set(sequences) & {"d", "e"}
    costs = Costs(
        settings=settings,
        clean=Clean(loss=cost("loss"), entropy=cost("entropy")),
        whole=[
            WholeCost(format=spec, mode=mode, **{name: cost(name, spec, mode) for name in ("loss", "kl", "top1")})
            for spec, mode in pairs
        ],
        layers=[
            LayerCost(
                layer=layer,
                format=spec,
                mode=mode,
                **{
                    name: cost(name, layer, spec, mode)
                    for name in ("predicted_kl", "measured_kl", "predicted_kl_own", "predicted_kl_linears", "noise_kl")
                },
                **{name: ratio(name, layer, spec, mode) for name in ("measured_error", "isolated", "cumulative")},
                scores={"weight sqnr_db": 0.1},
            )
            for spec, mode in pairs
            for layer in range(2)
        ],
        groups=[
            GroupCost(name="l.0.qkv", layer=0, members=["l.0.q_proj"], parameters=64, format=spec,
                      predicted_kl={"both": cost("group", spec)}, measured_kl={"both": cost("swap", spec)})
            for spec in specs
        ],
        linears=[linear(spec) for spec in specs],
        experts=[expert(spec, number) for spec in specs for number in range(2)],
        sensitivities=[
            Sensitivity(name="n", kind="norm", layer=0, feeds="attention", parameters=8, rms=1.1, trace=cost("trace"))
        ],
        unpriced=[Unpriced(module="l.0.conv", parameters=5, reason="no Linear")]
        + ([Unpriced(module="l.0.experts.1", parameters=8, reason="no tokens")] if idle else []),
    )  # fmt: skip
    return report_of_costs(costs, MODEL)


def scan(sequences: Sequence[str]) -> Report:
    """Two layers; each sequence has its own noise."""
    rows = [[tally(0.1, numbers((layer, "noise"), [name])[0]) for name in sequences] for layer in range(2)]
    report = make_report({"weight": [[tally(0.1)]] * 2, "output": rows}, hashes=sequences)
    return report.model_copy(update={"model": MODEL})


def changed(report: Report, **fields: Any) -> Report:
    assert report.costs is not None
    return report.model_copy(update={"costs": report.costs.model_copy(update=fields)})


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_halves_give_exactly_the_whole(cut: int) -> None:
    whole = measured(NAMES)
    assert dumps(merge(measured(NAMES[:cut]), measured(NAMES[cut:]))) == dumps(whole)


def test_parts_merge_in_any_order() -> None:
    parts = [measured("ab"), measured("c"), measured("de")]
    for order in itertools.permutations(parts):
        merged = reduce(merge, order)
        assert merged.costs is not None
        names = [*itertools.chain(*(part.costs.settings.calibration.sequence_hashes for part in order if part.costs))]
        assert merged == measured(names)
        kl = merged.costs.whole[0].kl
        assert (kl.value, kl.error) == (
            measured(NAMES).costs.whole[0].kl.value,
            measured(NAMES).costs.whole[0].kl.error,
        )  # type: ignore[union-attr]


def test_a_worked_mean() -> None:
    a, b = (Cost.of(values) for values in ([0.1, 0.3], [0.2]))
    assert (b.error, a.error) == (None, pytest.approx(0.1))
    merged = Cost.of([*(a.sequences or ()), *(b.sequences or ())])
    assert (merged.value, merged.error) == (pytest.approx(0.2), pytest.approx(0.0577, abs=1e-4))


def test_quantiles_over_tokens_drop_and_the_largest_stays() -> None:
    def with_quantiles(report: Report, largest: float) -> Report:
        assert report.costs is not None
        rows = [row.model_copy(update={"kl_quantiles": {"0.5": 0.1, "1": largest}}) for row in report.costs.whole]
        return changed(report, whole=rows)

    merged = merge(with_quantiles(measured("ab"), 3.0), with_quantiles(measured("cd"), 2.0)).costs
    assert merged is not None
    assert [row.kl_quantiles for row in merged.whole] == [{"1": 3.0}] * 4


def test_scores_of_activations_drop_and_those_of_weights_stay() -> None:
    def with_score(report: Report, value: float) -> Report:
        assert report.costs is not None
        scores = {"weight sqnr_db": 0.1, "output sqnr_db": value}
        return changed(report, layers=[row.model_copy(update={"scores": scores}) for row in report.costs.layers])

    merged = merge(with_score(measured("ab"), 0.2), with_score(measured("cd"), 0.3)).costs
    assert merged is not None
    assert all(row.scores == {"weight sqnr_db": 0.1} for row in merged.layers)


def test_an_expert_without_tokens_costs_nothing_only_where_it_got_some_elsewhere() -> None:
    costs = merge(measured("ab"), measured("de")).costs
    assert costs is not None
    row = next(row for row in costs.experts if row.expert == 1)
    assert (row.tokens, (row.predicted_kl["both"].sequences or [])[:2]) == (2, [0.0, 0.0])
    assert [row.module for row in costs.unpriced] == ["l.0.conv"]
    costs = merge(measured("a"), measured("b")).costs
    assert costs is not None
    idle = [row for row in costs.experts if row.expert == 1]
    assert all((row.tokens, row.predicted_kl) == (0, {}) for row in idle), "not a cost of 0"
    assert {row.module for row in costs.unpriced} == {"l.0.conv", "l.0.experts.1"}


@pytest.mark.parametrize("swapped", [False, True])
def test_a_scan_and_costs_join(swapped: bool) -> None:
    sites, costs = scan(NAMES), measured("ab")
    joined = merge(costs, sites) if swapped else merge(sites, costs)
    assert (joined.sites, joined.costs) == (sites.sites, costs.costs)
    assert joined.settings == sites.settings
    assert joined.coverage == sites.coverage
    assert joined.summary == sites.summary


def test_scans_with_costs_of_halves_are_the_scan_with_costs_of_the_whole() -> None:
    halves = [merge(scan(part), measured(part)) for part in ("ab", "cde")]
    assert dumps(merge(*halves)) == dumps(merge(scan(NAMES), measured(NAMES)))


def test_costs_of_other_formats_join_in_their_order() -> None:
    one, other = measured(NAMES, SPECS[:1]), measured(NAMES, SPECS[1:])
    assert dumps(merge(one, other)) == dumps(measured(NAMES))
    joined = merge(other, one)
    assert joined.settings.formats == list(reversed(SPECS))
    assert [row.format for row in joined.costs.linears] == list(reversed(SPECS))  # type: ignore[union-attr]


def test_predicted_and_measured_costs_of_the_same_tokens_complete_each_other() -> None:
    whole = measured(NAMES).costs
    assert whole is not None
    hidden: dict[str, tuple[list[str], dict[str, None], dict[str, dict[str, Cost]]]] = {
        "predicted": (["predicted"], {"measured_kl": None, "measured_error": None}, {"measured_kl": {}}),
        "measured": (["layers", "groups"], {"predicted_kl": None}, {"predicted_kl": {}}),
    }
    parts = [
        changed(
            measured(NAMES, how=how, **({} if how == ["predicted"] else {"sensitive": [], "seed": 0})),
            layers=[row.model_copy(update=of_layers) for row in whole.layers],
            groups=[row.model_copy(update=of_groups) for row in whole.groups],
        )
        for how, of_layers, of_groups in hidden.values()
    ]  # fmt: skip
    assert merge(*parts).costs == whole
    joined = merge(*reversed(parts)).costs
    assert joined is not None
    assert (joined.layers, joined.groups, joined.settings.seed) == (whole.layers, whole.groups, 3)


def test_the_same_sequences_in_another_order_are_put_in_order() -> None:
    one, other = measured(NAMES, SPECS[:1]), measured(list(reversed(NAMES)), SPECS[1:])
    assert merge(one, other).costs == measured(NAMES).costs


def test_costs_of_modes_join() -> None:
    a = report_of_costs(make_costs({SPECS[0]: [0.1, 0.2]}, modes=("weight",)))
    b = report_of_costs(make_costs({SPECS[0]: [0.1, 0.2]}, modes=("both",)))
    both = make_costs({SPECS[0]: [0.1, 0.2]}, modes=("weight", "both"))
    joined = merge(a, b).costs
    assert joined is not None
    assert (joined.whole, joined.groups, joined.settings) == (both.whole, both.groups, both.settings)
    assert joined.linears == both.linears
    assert [(row.mode, row.layer) for row in joined.layers] == [("weight", 0), ("weight", 1), ("both", 0), ("both", 1)]


def other_model() -> Report:
    return measured("cd").model_copy(update={"model": MODEL.model_copy(update={"id": "other"})})


def louder() -> Report:
    costs = measured("ab").costs
    assert costs is not None
    rows = [row.model_copy(update={"kl": Cost.of([9.0, 9.0])}) for row in costs.whole]
    return changed(measured("ab"), whole=rows)


def without_values() -> Report:
    costs = measured("cd").costs
    assert costs is not None
    return changed(measured("cd"), clean=Clean(loss=Cost(value=1.0), entropy=Cost(value=1.0)))


def in_bfloat16() -> Report:
    report = measured("ab")
    return report.model_copy(update={"settings": report.settings.model_copy(update={"dtype": "bfloat16"})})


BAD: dict[str, tuple[Callable[[], Report], Callable[[], Report], str]] = {
    "other model": (lambda: measured("ab"), other_model, "not of one model: id of the model differs (toy and other)"),
    "overlap": (lambda: measured("ab"), lambda: measured("bc"), "costs of 1 sequence(s) are in both reports"),
    "part of the tokens": (lambda: measured("ab"), lambda: measured("abc"), "costs of 2 sequence(s) are in both"),
    "other tokens": (lambda: scan("ab"), lambda: measured("bc"), "costs of other tokens than the scan's: 1 of 2 sequ"),
    "other text": (
        lambda: measured("ab"),
        lambda: measured("cd", calibration=Calibration(source="x", seq_len=8, sequence_hashes=["c", "d"])),
        "costs of other texts: toy at 8 tokens, x at 8",
    ),
    "other length": (
        lambda: measured("ab"),
        lambda: measured("cd", calibration=Calibration(source="toy", seq_len=9, sequence_hashes=["c", "d"])),
        "costs of other texts: toy at 8 tokens, toy at 9",
    ),
    "other seed": (lambda: measured("ab"), lambda: measured("cd", seed=4), "seed differs (3 and 4)"),
    "other way": (lambda: measured("ab"), lambda: measured("cd", how=["layers"]), "how differs (predicted, layers, "),
    "other modules": (lambda: measured("ab"), lambda: measured("cd", left_out=[]), "left_out differs (lm_head and "),
    "other formats": (lambda: measured("ab"), lambda: measured("cd", SPECS[:1]), "formats differs (mxfp4:even, mxfp8"),
    "other labels": (lambda: measured("ab"), lambda: measured("ab", label_samples=2), "label_samples is 1 and 2"),
    "left out": (lambda: measured("ab"), lambda: measured("ab", left_out=[]), "left_out is lm_head and none"),
    "another number": (lambda: measured("ab"), louder, "contradict each other: kl of the model mxfp4:even weight is"),
    "rows missing": (lambda: measured("ab"), lambda: changed(measured("cd"), linears=[]), "other rows of Linears"),
    "no head": (lambda: measured("ab"), lambda: changed(measured("cd"), clean=None), "one has the loss of the model"),
    "version 1": (lambda: measured("ab"), without_values, "loss of the model has no values by sequence"),
    "dtype": (
        lambda: scan("ab"),
        in_bfloat16,
        "dtype differs (float32 and bfloat16)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_belong_together_is_refused(case: str, tmp_path: Path, srdd: Run) -> None:
    first, second, words = BAD[case]
    with pytest.raises(ReportError) as caught:
        merge(first(), second())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    first().save(tmp_path / "a.json")
    second().save(tmp_path / "b.json")
    code, printed, shown = srdd("merge", tmp_path / "a.json", tmp_path / "b.json", "--out", tmp_path / "whole.json")
    assert (code, printed, len(shown.splitlines())) == (2, "", 1)
    assert "b.json: " in shown
    assert words in shown
    assert not (tmp_path / "whole.json").exists()


def test_the_command_joins_parts_of_both_kinds_in_any_order(tmp_path: Path, srdd: Run) -> None:
    parts = {"cost-b": measured("cd"), "scan-a": scan("ab"), "cost-a": measured("ab"), "scan-b": scan("cd")}
    for name, part in parts.items():
        part.save(tmp_path / f"{name}.json")
    out = tmp_path / "whole.json"
    paths = [tmp_path / f"{name}.json" for name in parts]
    code, printed, shown = srdd("merge", *paths, "--out", out)
    assert (code, printed) == (0, ""), shown
    assert (
        "whole.json: <Report of toy: mxfp4:even; sites: 2 weight, 2 output; costs: predicted, layers, groups of mxf"
        in shown
    )
    joined = Report.load(out)
    assert joined.sites == scan("abcd").sites
    assert joined.costs == measured("cdab").costs
    code, _, shown = srdd("merge", *paths, "--out", out)
    assert (code, len(shown.splitlines())) == (2, 1)
    assert "--force" in shown
    assert srdd("merge", *paths, "--out", out, "--force")[0] == 0


def test_one_report_is_nothing_to_merge(tmp_path: Path, srdd: Run) -> None:
    scan("ab").save(tmp_path / "a.json")
    code, _, shown = srdd("merge", tmp_path / "a.json", "--out", tmp_path / "b.json")
    assert (code, shown) == (2, "srdd: error: one report is nothing to merge; give two or more\n")
    code, _, shown = srdd("merge", "-", "-", "--out", tmp_path / "b.json")
    assert (code, "only one report can come from standard input" in shown) == (2, True)
    code, _, shown = srdd("merge", tmp_path / "a.json", tmp_path / "gone.json", "--out", tmp_path / "b.json")
    assert (code, "no report at" in shown, (tmp_path / "b.json").exists()) == (2, True, False)
