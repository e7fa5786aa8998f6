"""Means over draws of stochastic rounding: by hand, through a file, and merged from halves of the text."""

import json
import math

import pytest
from pydantic import ValidationError

from srdd.documents.costs import Clean, Cost, Costs, CostSettings, LayerCost, LinearCost, Ratio, WholeCost
from srdd.documents.mean_of_draws import mean_of_draws
from srdd.documents.merging_costs import merge_costs
from srdd.documents.parts import Calibration
from srdd.errors import ReportError

SR, PLAIN = "mxfp4_sr:rceil", "mxfp4:even"


def ratio(above: list[float]) -> Ratio:
    return Ratio.of(above, [4.0] * len(above))


def one_draw(kls: list[float], formats: list[str], errors: tuple[float, float, float] = (1, 2, 4)) -> Costs:
    """Costs with one draw: `kls` by sequence, `errors` the squared output errors of a Linear, W, A and W+A."""
    hashes = [f"h{i}" for i in range(len(kls))]
    calibration = Calibration(source="text", seq_len=8, sequence_hashes=hashes)
    kl, top1 = Cost.of(kls), Cost.of([1 - value for value in kls])
    whole = [
        WholeCost(
            format=f,
            mode="both",
            loss=Cost.of([2 + v for v in kls]),
            kl=kl,
            top1=top1,
            kl_quantiles={"0.5": kls[0], "1": max(kls)},
            no_effect=kls[0] == 0,
        )
        for f in formats
    ]
    layers = [
        LayerCost(layer=0, format=f, mode="both", predicted_kl=kl, scores={"weight sqnr_db": 0.1}) for f in formats
    ]
    parts = dict(zip(("weight", "input", "both"), errors, strict=True))
    linears = [
        LinearCost(
            module="q",
            role="q",
            parameters=6,
            format=f,
            output_error={mode: ratio([square] * len(kls)) for mode, square in parts.items()},  # type: ignore[misc]
            interaction=0.0,
        )
        for f in formats
    ]
    return Costs(
        settings=CostSettings(formats=formats, modes=["both"], how=["predicted"], calibration=calibration),
        clean=Clean(loss=Cost.of([2.0] * len(kls)), entropy=Cost.of([1.0] * len(kls))),
        whole=whole,
        layers=layers,
        linears=linears,
    )


def joined() -> Costs:
    return mean_of_draws([one_draw([0.1, 0.3], [SR, PLAIN]), one_draw([0.2, 0.4], [SR], (3, 2, 8))], [SR])


def test_means_and_spreads_by_hand() -> None:
    row, plain = joined().whole
    assert row.kl.sequences == pytest.approx([0.15, 0.35])
    assert (row.kl.value, row.kl.error) == (pytest.approx(0.25), pytest.approx(0.1))  # over sequences
    assert row.kl.draws == pytest.approx([0.2, 0.3])
    assert row.kl.spread == pytest.approx(0.1 / math.sqrt(2))  # over draws
    assert row.top1.spread == pytest.approx(0.1 / math.sqrt(2))
    assert row.kl_quantiles == pytest.approx({"0.5": 0.15, "1": 0.4})
    change = joined().loss_change(row)
    assert change is not None
    assert change.draws == pytest.approx([0.1, 0.15])
    assert (plain.kl.draws, plain.kl.spread, plain.kl.value) == (None, None, pytest.approx(0.2))
    layer = joined().layers[0]
    assert layer.predicted_kl is not None
    assert layer.predicted_kl.draws == pytest.approx([0.2, 0.3])
    assert layer.scores == {"weight sqnr_db": 0.1}


def test_relative_errors_are_roots_of_mean_squares() -> None:
    linear = joined().linears[0]
    weight = linear.output_error["weight"]
    assert weight.above == [2.0, 2.0]
    assert weight.value == pytest.approx(math.sqrt(2 / 4))
    assert weight.draws == pytest.approx([math.sqrt(1 / 4), math.sqrt(3 / 4)])
    assert linear.interaction == pytest.approx((6 - 2 - 2) / 6)


def test_no_effect_only_if_no_draw_has_one() -> None:
    none, some = one_draw([0.0, 0.0], [SR]), one_draw([0.1, 0.0], [SR])
    assert mean_of_draws([none, none], [SR]).whole[0].no_effect
    assert not mean_of_draws([none, some], [SR]).whole[0].no_effect


def test_a_single_draw_has_no_spread_and_nothing_drawn_changes_nothing() -> None:
    single = mean_of_draws([one_draw([0.1, 0.3], [SR])], [SR]).whole[0].kl
    assert (single.draws, single.spread) == ([0.2], None)
    plain = one_draw([0.1, 0.3], [PLAIN])
    assert mean_of_draws([plain], []) == plain


def test_through_a_file_draws_stay_and_others_are_not_mentioned() -> None:
    tree = json.loads(json.dumps(joined().model_dump(mode="json")))
    assert tree["whole"][0]["kl"]["spread"] == pytest.approx(0.0707, abs=1e-4)
    assert set(tree["whole"][1]["kl"]) == {"value", "error", "sequences"}, "as documents were before"
    assert set(tree["linears"][1]["output_error"]["weight"]) == {"value", "error", "above", "below"}
    tree["whole"][0]["kl"]["spread"] = 7.0  # the draws are the truth
    again = Costs.model_validate(tree)
    assert again == joined()
    tree["whole"][0]["kl"]["drawn"] = 1
    with pytest.raises(ValidationError, match="drawn"):
        Costs.model_validate(tree)


def halves() -> tuple[Costs, Costs]:
    def half(costs: Costs, name: str) -> Costs:
        names = [name + h for h in costs.settings.calibration.sequence_hashes]
        calibration = costs.settings.calibration.model_copy(update={"sequence_hashes": names})
        return costs.model_copy(update={"settings": costs.settings.model_copy(update={"calibration": calibration})})

    a = mean_of_draws([one_draw([0.1], [SR]), one_draw([0.2], [SR])], [SR])
    b = mean_of_draws([one_draw([0.4, 0.6], [SR], (1, 1, 1)), one_draw([0.5, 0.3], [SR], (2, 2, 2))], [SR])
    return half(a, "a"), half(b, "b")


def test_halves_of_the_text_merge_draw_by_draw() -> None:
    a, b = halves()
    merged = merge_costs(a, b)
    kl = merged.whole[0].kl
    assert kl.sequences == pytest.approx([0.15, 0.45, 0.45])
    assert kl.draws == pytest.approx([1.1 / 3, 1.0 / 3])
    error = merged.linears[0].output_error["weight"]
    assert error.draws == pytest.approx([math.sqrt((1 + 1 + 1) / 12), math.sqrt((1 + 2 + 2) / 12)])


def test_halves_of_other_draws_do_not_merge() -> None:
    a, b = halves()
    b.whole[0].kl.draws = [0.5]
    with pytest.raises(ReportError, match=r"kl of the model mxfp4_sr:rceil both has 2 and 1 draws"):
        merge_costs(a, b)
