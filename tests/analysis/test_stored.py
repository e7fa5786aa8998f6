"""Better or worse than rounding to nearest: decibels by hand, and the word on costs."""

import math

import pytest
from builders import make_report, tally

from srdd.analysis.stored import stored_facts
from srdd.documents.costs import Cost, Costs, CostSettings, WholeCost
from srdd.documents.parts import Calibration
from srdd.documents.report import Report
from srdd.exporters.screen.stored import cost_verdict, verdict

BOTH = ("nvfp4:stored", "nvfp4:nvidia")


def report(stored: list[float], fresh: list[float], specs: tuple[str, str] = BOTH) -> Report:
    """One weight a layer of power 100 and these noise powers."""
    made = [make_report({"weight": [[tally(0.1, noise)] for noise in powers]}, [spec]) for powers, spec in zip((stored, fresh), specs, strict=True)]  # fmt: skip # noqa: E501
    sites = [a.model_copy(update={"formats": a.formats | b.formats}) for a, b in zip(made[0].sites, made[1].sites, strict=True)]  # fmt: skip # noqa: E501
    settings = made[0].settings.model_copy(update={"formats": [*specs]})
    return made[0].model_copy(update={"sites": sites, "settings": settings})


def with_costs(base: Report, stored: list[float], fresh: list[float]) -> Report:
    hashes = [f"s{i}" for i in range(len(stored))]
    settings = CostSettings(
        formats=[*BOTH],
        modes=["weight"],
        how=[],
        calibration=Calibration(source="toy", seq_len=8, sequence_hashes=hashes),
    )
    ones = Cost.of([1.0] * len(stored))
    whole = [
        WholeCost(format=spec, mode="weight", loss=ones, kl=Cost.of(kl), top1=ones)
        for spec, kl in zip(BOTH, (stored, fresh), strict=True)
    ]
    return base.model_copy(update={"costs": Costs(settings=settings, whole=whole)})


def test_decibels_are_ratios_of_sums() -> None:
    facts = stored_facts(report([2.0, 1.0, 1.0], [1.0, 1.0, 1.0]))
    assert facts is not None
    (form,) = facts.forms
    assert form.errors.stored_db == pytest.approx(10 * math.log10(300 / 4))
    assert form.errors.fresh_db == pytest.approx(20.0)
    assert form.much_worse == (("model.layers.0.mlp.down_proj", pytest.approx(-10 * math.log10(2))),)
    assert form.much_better == 0
    said = verdict(form)
    assert said.startswith(
        "stored codes: 18.75 dB, round-to-nearest 20.00 dB (worse by 1.25 dB); 1 of 3 weights is worse"
    )
    assert "model.layers.0.mlp.down_proj (-3.01)" in said


def test_equal_better_and_exact() -> None:
    def said(stored: list[float], fresh: list[float]) -> str:
        facts = stored_facts(report(stored, fresh))
        assert facts is not None
        return verdict(facts.forms[0])

    assert "(the same); none of 2 weights" in said([1.0, 1.0], [1.0, 1.0])
    assert "(better by 3.01 dB); none of 2 weights is worse by more than 0.5 dB; 2 better" in said(
        [1.0, 1.0], [2.0, 2.0]
    )
    assert "stored codes: exact, round-to-nearest 20.00 dB (without error)" in said([0.0], [1.0])
    assert "(the same)" in said([0.0], [0.0])
    assert "(the other without error)" in said([1.0], [0.0])
    assert "worse by 0.0004 dB" in said([1.0001, 1.0001], [1.0, 1.0])


def test_without_codes_there_are_no_facts() -> None:
    assert stored_facts(make_report({"weight": [[tally(0.1)]]})) is None


def test_without_a_fresh_format() -> None:
    only = report([1.0], [1.0], ("fp8_block:stored", "mxfp4:even"))
    facts = stored_facts(only)
    assert facts is not None
    assert facts.forms[0].fresh is None
    assert "no format here rounds as they are stored" in verdict(facts.forms[0])


@pytest.mark.parametrize(
    ("stored", "fresh", "said"),
    [
        ([0.1, 0.11, 0.12], [0.2, 0.21, 0.22], "cost less than rounding anew: by 0.100 ± 0"),
        ([0.3, 0.31, 0.32], [0.2, 0.21, 0.22], "cost more than rounding anew: by 0.100 ± 0"),
        ([0.1, 0.3, 0.2], [0.2, 0.2, 0.21], "which costs less is not firm"),
        ([0.2, 0.2, 0.2], [0.2, 0.2, 0.2], "the stored codes cost what rounding anew costs"),
    ],
)
def test_the_word_on_costs(stored: list[float], fresh: list[float], said: str) -> None:
    facts = stored_facts(with_costs(report([2.0], [1.0]), stored, fresh))
    assert facts is not None
    assert facts.costs is not None
    assert said in cost_verdict(facts)
    bent = "cost less" in said
    assert facts.errors_and_cost_disagree == bent
    assert ("although their errors are larger: the cost decides" in cost_verdict(facts)) == bent
