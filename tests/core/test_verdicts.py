"""Both verdicts: the classic thresholds, and what is unusual for the model. Random weights must flag nothing."""

import pytest
import torch
from torch import nn

import srdd
from srdd.cli.scan import parse_thresholds
from srdd.core.metrics import BY_NAME
from srdd.core.verdicts import is_unusual, robust_z, violates
from srdd.documents.report import Report
from srdd.errors import OptionError

FORMATS = "mxfp4,nvfp4,mxfp8,mxfp6_e2m3,mxint8,mxfp4:floor"


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(128, 256, bias=False)
        self.small = nn.Linear(128, 32, bias=False)


class Stack(nn.Module):
    def __init__(self, layers: int, seed: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(layers))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


def flagged(report: Report) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for row in report.summary:
        found.setdefault(row.format, set()).update(row.unusual)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_gaussian_weights_flag_nothing(seed: int) -> None:
    report = srdd.scan(Stack(24, seed), formats=FORMATS, sites="weight")
    assert all(not layers for layers in flagged(report).values())


def test_one_planted_outlier_layer_flags_exactly_itself() -> None:
    model = Stack(24, 0)
    with torch.no_grad():
        model.layers[17].wide.weight[:, 3::32] *= 60
    report = srdd.scan(model, formats="mxfp4,nvfp4,mxfp4:floor", sites="weight")
    assert set(map(frozenset, flagged(report).values())) == {frozenset({17})}


def test_robust_z_by_hand() -> None:
    metric = BY_NAME["sqnr_db"]
    z = robust_z(metric, dict(zip("abcde", (18.9, 19.0, 19.1, 19.0, 15.0), strict=True)))
    assert z["e"] == pytest.approx(-4 / 0.14826)
    assert is_unusual(metric, z["e"])
    assert not is_unusual(metric, -z["e"]), "unusually good is no problem"


def test_too_few_values_have_no_z() -> None:
    assert robust_z(BY_NAME["sqnr_db"], {"a": 1.0, "b": 2.0, "c": 50.0}) == {}


@pytest.mark.parametrize(("value", "expected"), [(19.9, True), (20.0, False), (float("nan"), False), (None, False)])
def test_classic_threshold(value: float | None, expected: bool) -> None:
    assert violates(BY_NAME["sqnr_db"], value, 20.0) is expected


def test_thresholds_can_be_overridden() -> None:
    assert parse_thresholds(["sqnr_db=18"]) == {
        "sqnr_db": 18.0,
        "relative_error": 0.1,
        "deadzone_ratio": 0.05,
        "saturation_ratio": 0.01,
    }


@pytest.mark.parametrize("text", ["sqnr_db", "sqnr=3", "sqnr_db=x", "kurtosis=3", "sqnr_db=inf"])
def test_bad_thresholds(text: str) -> None:
    with pytest.raises(OptionError, match="threshold"):
        parse_thresholds([text])
