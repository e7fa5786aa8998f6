"""Reports know which of their sequences are of one document: saved, loaded, merged in any order, and older ones."""

import json
from itertools import permutations
from typing import Any

import pytest
from builders import make_report
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from srdd.core.metrics import BY_NAME, METRICS
from srdd.documents.costs import Clean, Cost, Costs, CostSettings, LayerCost, Ratio
from srdd.documents.merging import merge
from srdd.documents.parts import Calibration, notes_on_units
from srdd.documents.report import Report, dumps

NAMES = "pqrst"
DOCUMENTS, OFFSETS = ["a", "a", "b", "b", "c"], [0, 8, 0, 8, 0]
NOISES = [1.0, 3.0, 2.0, 5.0, 9.0]
SPEC = "mxfp4:even"


def calibration(places: tuple[int, ...], *, known: bool = True) -> Calibration:
    return Calibration(
        source="toy",
        seq_len=8,
        sequence_hashes=[NAMES[place] for place in places],
        documents=[DOCUMENTS[place] for place in places] if known else [],
        offsets=[OFFSETS[place] for place in places] if known else [],
    )


def make(*places: int, known: bool = True) -> Report:
    """Two layers of outputs and their costs on some of five sequences of three documents."""
    from builders import tally

    report = make_report(
        {"output": [[tally(0.1, noise=NOISES[place] * layer) for place in places] for layer in (1, 2)]},
        hashes=[NAMES[place] for place in places],
    )
    told = calibration(places, known=known)
    values = [NOISES[place] for place in places]
    costs = Costs(
        settings=CostSettings(formats=[SPEC], modes=["both"], how=["predicted"], calibration=told),
        clean=Clean(loss=Cost.of(values), entropy=Cost.of(values)),
        layers=[
            LayerCost(
                layer=layer,
                format=SPEC,
                mode="both",
                predicted_kl=Cost.of([layer * value for value in values]),
                isolated=Ratio.of(values, [100.0] * len(places)),
            )
            for layer in (1, 2)
        ],
    )
    settings = report.settings.model_copy(update={"calibration": told})
    return Report(**{**dict(report), "settings": settings, "costs": costs, "warnings": notes_on_units(told)})


def errors_of(report: Report) -> tuple[Any, ...]:
    assert report.costs is not None
    assert report.costs.clean is not None
    sites = [site.formats[SPEC] for site in report.sites]
    layers = [layer.formats[SPEC] for layer in report.layers]
    return (
        [one.units for one in (*sites, *layers)],
        [one.standard_errors for one in (*sites, *layers)],
        report.costs.clean.loss.error,
        [(row.predicted_kl, row.isolated) for row in report.costs.layers],
    )


def test_errors_by_hand() -> None:
    """Noise of 4, 7 and 9 by document, of 2, 2 and 1 sequences; the loss without each 16 / 3, 13 / 3, 11 / 4."""
    report = make(0, 1, 2, 3, 4)
    assert report.costs is not None
    assert report.costs.clean is not None
    without = [16 / 3, 13 / 3, 11 / 4]
    expected = (2 / 3 * sum((one - sum(without) / 3) ** 2 for one in without)) ** 0.5
    assert report.costs.clean.loss.error == pytest.approx(expected, rel=1e-12)
    assert report.costs.clean.loss.value == 4.0
    measured = report.sites[0].formats[SPEC]
    assert measured.units == 3
    assert measured.without_each(BY_NAME["relative_rms"]) == pytest.approx([(one / 100) ** 0.5 for one in without])
    isolated = report.costs.layers[0].isolated
    assert isolated is not None
    assert isolated.error == pytest.approx(measured.error("relative_rms"), rel=1e-12)


def test_a_report_is_loaded_with_its_units() -> None:
    report = make(0, 1, 2, 3, 4)
    loaded = Report.from_tree(json.loads(dumps(report)), "r.json")
    assert loaded == report
    assert errors_of(loaded) == errors_of(report)
    assert dumps(loaded) == dumps(report)
    assert "unit_of" not in dumps(report)


def test_an_older_report_has_a_unit_in_each_sequence() -> None:
    tree = json.loads(dumps(make(0, 1, 2, 3, 4)))
    for settings in (tree["settings"], tree["costs"]["settings"]):
        del settings["calibration"]["documents"], settings["calibration"]["offsets"]
    older = Report.from_tree(tree, "older.json")
    assert errors_of(older) == errors_of(make(0, 1, 2, 3, 4, known=False))
    assert errors_of(older)[0] == [5, 5, 5, 5]
    assert errors_of(older)[2] == Cost.of(NOISES).error
    assert errors_of(make(0, 1, 2, 3, 4))[0] == [3, 3, 3, 3]


@given(st.permutations(range(5)), st.integers(1, 4))
def test_parts_in_any_order_merge_to_the_whole(order: list[int], cut: int) -> None:
    merged = merge(make(*order[:cut]), make(*order[cut:]))
    assert errors_of(merged) == errors_of(make(*order))
    assert merged == make(*order)


def test_the_order_of_sequences_changes_no_error() -> None:
    whole = make(0, 1, 2, 3, 4)
    for order in permutations(range(5)):
        other = make(*order)
        for one, two in zip(whole.sites, other.sites, strict=True):
            for metric in METRICS:
                error = two.formats[SPEC].error(metric.name)
                assert one.formats[SPEC].error(metric.name) == pytest.approx(error, rel=1e-12, nan_ok=True)


def test_a_half_that_does_not_know_its_documents_has_one_in_each_sequence() -> None:
    merged = merge(make(0, 1, 2), make(3, 4, known=False))
    told = merged.settings.calibration
    assert told is not None
    assert told.unit_of == (0, 0, 1, 2, 3)
    assert merge(make(0, 1, known=False), make(2, 3, known=False)).settings.calibration == calibration(
        (0, 1, 2, 3), known=False
    )


def test_the_same_sequences_with_and_without_documents_keep_them() -> None:
    for first, second in ((True, False), (False, True)):
        merged = merge(make(0, 1, 2, known=first), make(0, 1, 2, known=second))
        assert errors_of(merged)[:2] == errors_of(make(0, 1, 2))[:2]
        assert errors_of(merged)[2] == errors_of(make(0, 1, 2))[2]


def test_what_is_said_of_parts_is_said_anew_of_the_whole() -> None:
    first, second = make(0, 1), make(2, 3, 4)
    alone = "the text is one document: standard errors over parts of it are too small; give several documents"
    assert first.warnings == [alone]
    rough = "documents: standard errors over fewer than 8 are rough; give more or shorter documents"
    assert second.warnings == [f"the 3 calibration sequences are of 2 {rough}"]
    assert merge(first, second).warnings == [f"the 5 calibration sequences are of 3 {rough}"]
    assert notes_on_units(calibration((0, 2, 4))) == []
    assert notes_on_units(calibration((0, 1, 2), known=False)) == []
    assert notes_on_units(calibration((0,))) == notes_on_units(None) == []


def test_units_have_names_that_no_order_changes() -> None:
    assert calibration((0, 1, 2, 4)).unit_names == ["p q", "r", "t"]
    assert calibration((4, 1, 2, 0)).unit_names == ["t", "p q", "r"]
    assert calibration((1, 0), known=False).unit_names == ["q", "p"]


@pytest.mark.parametrize("changed", [{"documents": ["a"]}, {"offsets": []}, {"documents": [], "offsets": [0] * 5}])
def test_every_sequence_has_a_document_or_none(changed: dict[str, Any]) -> None:
    whole = calibration((0, 1, 2, 3, 4))
    with pytest.raises(ValidationError, match="expected one each, or none"):
        Calibration.model_validate({**whole.model_dump(), **changed})
