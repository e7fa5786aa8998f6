"""One metric along the layers: a number for every layer, or an error that names the layer."""

import math

import pytest
from builders import make_report, tally

from srdd.analysis.series import choose_kind, choose_specs, layer_series
from srdd.core.metrics import BY_NAME, as_error, choose_metric
from srdd.core.tally import Tally
from srdd.errors import OptionError, ReportError, SettingError

REPORT = make_report(
    {"weight": [[tally(0.1)], [tally(0.2)]], "output": [[tally(0.3), tally(0.5)], [tally(0.2), tally(0.2)]]},
    ["mxfp4:even", "nvfp4:nvidia"],
)


def test_outputs_and_the_first_format_are_the_default() -> None:
    series = layer_series(REPORT)
    assert (series.kind, series.spec, series.layers, series.depth) == ("output", "mxfp4:even", (0, 1), 2)
    assert series.values == pytest.approx([0.4, 0.2])
    assert series.standard_errors == pytest.approx([0.1, 0.0])  # of a mean of 0.3 and 0.5
    assert layer_series(REPORT, "weight", "nvfp4").values == pytest.approx([0.1, 0.2])
    assert all(map(math.isnan, layer_series(REPORT, "weights").standard_errors))


def test_errors_are_larger_when_worse() -> None:
    assert layer_series(REPORT, metric="sqnr_db").errors == pytest.approx([0.1, 0.1])  # 20 dB
    assert as_error(BY_NAME["cosine"], 0.99) == pytest.approx(0.01)
    assert as_error(BY_NAME["deadzone_ratio"], 0.3) == 0.3


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: choose_metric("kurtosis"), OptionError, "cannot rank layers; expected one of: sqnr_db"),
        (lambda: choose_kind(REPORT, "input"), SettingError, "kind=input: the report has weight, output"),
        (lambda: choose_specs(REPORT, "mxfp8"), SettingError, "formats=mxfp8: the report has mxfp4:even, nvfp4:nvidia"),
        (lambda: layer_series(make_report({"weight": []}, hashes=["a"])), ReportError, "the report is empty"),
        (
            lambda: layer_series(make_report({"weight": [[tally(0.1)], [Tally()]]})),
            ReportError,
            r"layer\(s\) 1",
        ),
        (
            lambda: layer_series(make_report({"weight": [[tally(0.1, noise=0.0)]]}), metric="sqnr_db"),
            ReportError,
            "finite",
        ),
    ],
)
def test_what_a_report_lacks_is_said(call, error, words) -> None:
    with pytest.raises(error, match=words):
        call()
