"""sigma over a training: against QeRL's formula written out, at every edge, and on the command line."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import make_rin
from hypothesis import given
from hypothesis import strategies as st

from srdd.cli.app import main
from srdd.documents.rin import RinConfig, Schedule
from srdd.documents.schedule import levels, multiplier, sigma, stretches
from srdd.errors import NoiseError

QERL = Schedule(sigma_start=0.05, sigma_end=0.0005, num_stages=10)


def qerl(step: int, total: int, start: float, end: float, stages: int) -> float:
    """QeRL's noise_scheduler as its facts state it, in exact fractions."""
    trend = [start * (end / start) ** (k / (stages - 2)) for k in range(stages - 1)]
    interval = step // Fraction(total, stages)
    return 0.0 if interval == 0 else trend[min(int(interval) - 1, len(trend) - 1)]


def test_the_worked_example() -> None:
    values = [sigma(QERL, step, 29) for step in range(29)]
    assert values[:3] == [0, 0, 0]
    assert values[3:6] == [0.05] * 3
    assert values[6:9] == pytest.approx([0.05 * 0.01**0.125] * 3, rel=1e-12)
    assert round(values[6], 4) == 0.0281
    assert values[27:] == [0.0005] * 2
    assert [(s.first, s.last) for s in stretches(QERL, 29)][:3] == [(0, 2), (3, 5), (6, 8)]


@pytest.mark.parametrize("stages", [3, 4, 7, 10, 20])
def test_every_step_of_every_length_is_qerls(stages: int) -> None:
    schedule = Schedule(sigma_start=0.01, sigma_end=0.0001, num_stages=stages)
    for total in range(1, 130):
        for step in range(total):
            assert sigma(schedule, step, total) == pytest.approx(qerl(step, total, 0.01, 0.0001, stages), rel=1e-12)


def test_where_qerls_float_division_differs() -> None:
    """Only on exact borders, where it rounds the quotient; 1 // 0.1 is 9 and not 10."""
    different = []
    for total in range(1, 300):
        for step in range(total):
            ours, floats = Fraction(step * 10, total) // 1, step // (total / 10)
            if int(ours) != int(floats):
                different.append((step, total))
    assert all(step * 10 % total == 0 for step, total in different)
    assert len(different) < 100


def test_the_end_of_the_training_is_its_last_step() -> None:
    assert sigma(QERL, 29, 29) == sigma(QERL, 28, 29) == 0.0005
    assert levels(QERL)[0] == 0.05
    assert levels(QERL)[-1] == 0.0005
    assert len(levels(QERL)) == 9


@pytest.mark.parametrize(("step", "total"), [(0, 0), (-1, 10), (11, 10), (0, -3)])
def test_steps_outside_the_training(step: int, total: int) -> None:
    with pytest.raises(NoiseError, match=r"total_steps|outside the training"):
        sigma(QERL, step, total)


def test_constant_and_linear() -> None:
    constant = Schedule(kind="constant", sigma_start=0.02, sigma_end=0.02)
    assert {sigma(constant, step, 7) for step in range(8)} == {0.02}
    linear = Schedule(kind="linear", sigma_start=0.04, sigma_end=0.0)
    assert [sigma(linear, step, 5) for step in range(5)] == pytest.approx([0.04, 0.03, 0.02, 0.01, 0])
    assert sigma(linear, 0, 1) == 0.04


def test_warmup_is_silent_and_a_tenth_is_a_tenth() -> None:
    linear = Schedule(kind="linear", sigma_start=0.04, sigma_end=0.02, warmup_share=0.1)
    assert [sigma(linear, step, 10) for step in (0, 1, 9)] == [0.0, 0.04, 0.02]
    for total in (10, 29, 200):  # the share QeRL has by construction changes nothing
        named = Schedule(sigma_start=0.05, sigma_end=0.0005, num_stages=10, warmup_share=0.1)
        assert [sigma(named, s, total) for s in range(total)] == [sigma(QERL, s, total) for s in range(total)]
    none = Schedule(sigma_start=0.05, sigma_end=0.0005, num_stages=10, warmup_share=0.0)
    assert sigma(none, 0, 9) == 0.05
    assert sigma(none, 8, 9) == 0.0005


@given(
    st.sampled_from(["staged", "linear", "constant"]),
    st.integers(1, 400),
    st.integers(3, 30),
    st.one_of(st.none(), st.floats(0, 0.99)),
)
def test_noise_never_grows_and_stays_in_range(kind: Any, total: int, stages: int, share: float | None) -> None:
    end = 0.05 if kind == "constant" else 0.001
    schedule = Schedule(
        kind=kind,
        sigma_start=0.05,
        sigma_end=end,
        num_stages=stages if kind == "staged" else None,
        warmup_share=share,
    )
    values = [sigma(schedule, step, total) for step in range(total)]
    noisy = [value for value in values if value]
    assert values[: len(values) - len(noisy)] == [0] * (len(values) - len(noisy))  # silence comes first
    assert noisy == sorted(noisy, reverse=True)
    assert all(end - 1e-15 <= value <= 0.05 for value in noisy)


def phased() -> RinConfig:
    return make_rin(
        {0: 0.5, 1: 2.0},
        phases=[
            {"from_share": 0.25, "layer_factors": {0: 1.0, 1: 0.5}},
            {"from_share": 0.5, "layer_factors": {0: 3.0, 1: 0.0}},
        ],
        outside_layers=0.7,
        norm_multipliers={"attention": {0: 0.1, 1: 4.0}},
    )


def test_multipliers_with_phases_and_norms() -> None:
    config = phased()
    assert [multiplier(config, 1, None, step, 8) for step in (0, 1, 2, 3, 4, 8)] == [2, 2, 1, 1, 0, 0]
    assert [multiplier(config, 0, "attention", step, 8) for step in (0, 2, 4)] == pytest.approx([0.1, 0.1, 0.3])
    assert multiplier(config, 0, "mlp", 0, 8) == 0.5
    assert multiplier(config, None, None, 4, 8) == 0.7
    with pytest.raises(NoiseError, match="layer 5 has no multiplier"):
        multiplier(config, 5, None, 0, 8)


@pytest.fixture
def rin_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "rin.yaml"
    path.write_text(yaml.safe_dump(phased().model_dump(mode="json", exclude_none=True)))
    return path


def test_the_command(rin_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", str(rin_yaml), "--steps", "29"]) == 0
    shown = capsys.readouterr()
    assert "silent" in shown.out
    assert "0.02812" in shown.out
    assert "█" in shown.out
    assert "3 of 29 steps without noise" in shown.out
    assert "--layer N" in shown.out
    assert main(["schedule", str(rin_yaml), "--steps", "8", "--layer", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert (rows["document"], rows["schema_version"]) == ("srdd-schedule", 1)
    expected = [sigma(QERL, step, 8) * f for step, f in enumerate([2, 2, 1, 1, 0, 0, 0, 0])]
    assert rows["sigma"] == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0"], "--steps 0: expected 1 or more"),
        (["--steps", "5", "--layer", "2"], "--layer 2"),
    ],
)
def test_bad_input(arguments: list[str], words: str, rin_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", str(rin_yaml), *arguments]) == 2
    assert words in capsys.readouterr().err
