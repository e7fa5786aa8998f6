"""Two reports of the same text are paired document by document, in whatever order their sequences ran."""

import math

import pytest
from builders import make_report, tally

from srdd.analysis.comparison.pairing import pairs
from srdd.core.metrics import BY_NAME
from srdd.core.uncertainty import jackknife
from srdd.documents.parts import Calibration
from srdd.documents.report import Report

DOCUMENTS = {"p": "a", "q": "a", "r": "b", "s": "b", "t": "c"}
RELATIVE = BY_NAME["relative_error"]


def make(order: str, errors: dict[str, float], *, known: bool = True) -> Report:
    report = make_report({"output": [[tally(errors[name]) for name in order]]}, hashes=list(order))
    told = Calibration(
        source="toy",
        seq_len=8,
        sequence_hashes=list(order),
        documents=[DOCUMENTS[name] for name in order] if known else [],
        offsets=["pqrst".index(name) for name in order] if known else [],
    )
    return Report(**{**dict(report), "settings": report.settings.model_copy(update={"calibration": told})})


BASE = dict(zip("pqrst", (0.1, 0.2, 0.3, 0.1, 0.5), strict=True))
NEW = dict(zip("pqrst", (0.2, 0.2, 0.5, 0.2, 0.9), strict=True))


@pytest.mark.parametrize("order", ["pqrst", "tsrqp", "rtpsq"])
def test_the_error_of_a_change_is_over_documents(order: str) -> None:
    """Changes 0.1, 0, 0.2, 0.1, 0.4 of documents of 2, 2 and 1: without each 0.7 / 3, 0.5 / 3, 0.4 / 4."""
    (pair,) = pairs(make("pqrst", BASE), make(order, NEW), "output", "mxfp4:even")
    assert pair.change("relative_error") == pytest.approx(0.16)
    assert sorted(pair.replicates(RELATIVE)) == pytest.approx([0.1, 0.5 / 3, 0.7 / 3])
    assert pair.error(RELATIVE) == pytest.approx(jackknife([0.1, 0.5 / 3, 0.7 / 3]))
    assert pair.replicates(BY_NAME["crest"]) == []
    assert math.isnan(pair.error(BY_NAME["crest"]))


def test_without_documents_in_both_changes_are_over_sequences() -> None:
    (pair,) = pairs(make("pqrst", BASE, known=False), make("tsrqp", NEW, known=False), "output", "mxfp4:even")
    assert len(pair.replicates(RELATIVE)) == 5


def test_texts_grouped_otherwise_are_two_samples() -> None:
    base, new = make("pqrst", BASE, known=False), make("pqrst", NEW)
    (pair,) = pairs(base, new, "output", "mxfp4:even")
    assert pair.replicates(RELATIVE) == []
    alone = (report.sites[0].formats["mxfp4:even"].error("relative_error") for report in (base, new))
    assert pair.error(RELATIVE) == pytest.approx(math.hypot(*alone))
