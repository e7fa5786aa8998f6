"""Costs of the whole model are gated, by format and mode, paired by sequence; built in where both reports know them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from builders import make_costs
from priced_reports import KLS, PLAIN, PRICED, SPEC, report

from srdd.analysis.comparison.cases import Held
from srdd.analysis.comparison.gate import check, families
from srdd.analysis.comparison.limits import Limit
from srdd.analysis.comparison.policy import Policy, parse_floor, parse_limit, scope_of
from srdd.documents.costs import Cost
from srdd.documents.report import Report
from srdd.errors import ReportError, SettingError

Run = Callable[..., tuple[int, str, str]]
NOWHERE = scope_of(None, None, None)


def worse(kl: float = 1.0, top1: float = 0.0, mode: str = "both") -> Report:
    """The priced report with another KL (times) and agreement (more or less) of the whole model."""
    costs = PRICED.costs
    assert costs is not None
    rows = [
        row.model_copy(
            update={
                "kl": Cost.of([kl * value for value in row.kl.sequences or []]),
                "loss": Cost.of([3 + kl * value for value in row.kl.sequences or []]),
                "top1": Cost.of([top1 + value for value in row.top1.sequences or []]),
            }
        )
        if row.mode == mode
        else row
        for row in costs.whole
    ]
    return report(costs.model_copy(update={"whole": rows}))


def held(text: str, new: Report, *, spec: str | None = None) -> list[tuple[str, bool]]:
    cases = check(new, PRICED, Policy(limits=(parse_limit(text, scope_of(None, spec, None)),), undecided="fail")).cases
    return [(case.worst.name, case.passed) for case in cases]


@pytest.mark.parametrize(
    ("text", "new", "passes"),
    [
        ("kl=+10%", worse(1.09), True),
        ("kl=+10%", worse(1.11), False),
        ("kl=+0.3", worse(1.11), True),
        ("loss=+0.02", worse(1.005), True),
        ("loss=+0.02", worse(1.02), False),
        ("top1=-0.5%", worse(top1=-0.004), True),
        ("top1=-0.5%", worse(top1=-0.006), False),
        ("top1=-0.005", worse(top1=-0.006), False),
        ("top1=-0.5%", worse(top1=0.1), True),
    ],
)
def test_limits_of_the_whole_model(text: str, new: Report, passes: bool) -> None:
    ((name, passed),) = held(text, new)
    assert passed is passes
    assert passes or name == "W4A4"


def test_every_mode_is_held_and_the_failing_one_is_named() -> None:
    verdict = check(worse(1.5, mode="weight"), PRICED, Policy(limits=(parse_limit("kl=+10%", NOWHERE),)))
    (case,) = verdict.cases
    assert (case.kind, case.format, case.checked) == ("model", SPEC, 2)
    assert [failure.name for failure in case.failures] == ["W4A16"]
    assert case.failures[0].bound == pytest.approx(1.1 * sum(KLS) / 3)


def test_they_are_built_in_where_both_reports_know_them() -> None:
    def limits(new: Report, base: Report) -> set[str]:
        return {case.limit for case in check(new, base).cases if case.kind == "model"}

    assert limits(PRICED, PRICED) == {"kl +10%", "loss +0.02"}
    assert limits(PLAIN, PRICED) == limits(PRICED, PLAIN) == set()
    assert not check(worse(1.2), PRICED, Policy(are_defaults=True, undecided="fail")).passed
    assert check(worse(0.9), PRICED).passed
    other = report(make_costs({SPEC: KLS, "nvfp4:nvidia": KLS}))
    assert limits(PRICED, other) == set(), "a format is missing"
    assert limits(other, PRICED) == {"kl +10%", "loss +0.02"}


def test_floors_need_no_baseline() -> None:
    assert check(PRICED, None, Policy(floors=(parse_floor("kl=3", NOWHERE),))).passed
    assert not check(PRICED, None, Policy(floors=(parse_floor("kl=1", NOWHERE),))).passed
    assert not check(PRICED, None, Policy(floors=(parse_floor("top1=70%", NOWHERE),))).passed


@pytest.mark.parametrize(
    ("text", "scope", "words"),
    [
        ("kl=+10%", ("output", None, None), "that is of the whole model, not of output sites"),
        ("kl=+10%", (None, None, "0-3"), "that is of the whole model, not of layers 0-3"),
        ("kl=+10%", (None, "nvfp4", None), "the whole model was measured under mxfp4:even"),
    ],
)
def test_what_is_of_no_part(text: str, scope: tuple[str | None, str | None, str | None], words: str) -> None:
    with pytest.raises(ReportError, match=words):
        check(PRICED, PRICED, Policy(limits=(parse_limit(text, scope_of(*scope)),)))


def test_what_is_not_there_or_says_better() -> None:
    with pytest.raises(ReportError, match="the whole model was not measured in this report"):
        check(PRICED, PLAIN, Policy(limits=(parse_limit("kl=+10%", NOWHERE),)))
    with pytest.raises(ReportError, match="the new report has no costs of mxfp4:even"):
        check(PLAIN, PRICED, Policy(limits=(parse_limit("kl=+10%", NOWHERE),)))
    for text in ("kl=-10%", "top1=+1%"):
        with pytest.raises(SettingError, match="is worse when it"):
            parse_limit(text, NOWHERE)


def test_the_built_in_limits_are_narrowed(tmp_path: Path, srdd: Run) -> None:
    PRICED.save(tmp_path / "base.json")
    worse(2.0).save(tmp_path / "new.json")
    files = (tmp_path / "new.json", "--baseline", tmp_path / "base.json", "--undecided", "fail")
    code, shown, _ = srdd("check", *files)
    assert code == 1
    assert "model mxfp4:even W4A4: kl 4.20, baseline 2.10, bound 2.31 (kl +10%)" in " ".join(shown.split())
    assert srdd("check", *files, "--site", "output")[0] == 0, "costs are of no site"
    assert srdd("check", *files, "--layers", "0-3")[0] == 0
    assert srdd("check", *files, "--quant", "mxfp4")[0] == 1
    assert srdd("check", *files, "--quant", "nvfp4")[0] == 2
    assert srdd("check", *files, "--limit", "kl=+110%")[0] == 0


def test_costs_are_not_outnumbered() -> None:
    """Two places of costs beside hundreds of error statistics have half of the level, not two hundredths of it."""
    held = [
        Held(Limit(metric="kl", max_worse="10%"), "model", SPEC, [None] * 2),  # type: ignore[list-item]
        Held(Limit(metric="relative_error", max_worse="5%"), "output", SPEC, [None] * 300),  # type: ignore[list-item]
        Held(Limit(metric="relative_error", max_worse="5%"), "weight", SPEC, [None] * 900),  # type: ignore[list-item]
    ]
    assert families(held) == {True: 4, False: 600}
    assert families(held[:1]) == {True: 2, False: 0}
    assert families(held[1:]) == {True: 0, False: 300}
