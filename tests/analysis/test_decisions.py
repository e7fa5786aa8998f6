"""What a check may call a failure: chance, the place of the largest values, and the tensor to blame."""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
import torch
from builders import make_report, tally

from srdd import kernels
from srdd.analysis.comparison.beginning import beginning
from srdd.analysis.comparison.decisions import decide
from srdd.analysis.comparison.gate import check
from srdd.analysis.comparison.limits import Limit
from srdd.analysis.comparison.older import sharing_documents
from srdd.analysis.comparison.pairing import Pair, pairs
from srdd.analysis.comparison.policy import Policy, check_undecided, load_policy
from srdd.analysis.layer_costs import Priced
from srdd.core.formats import parse
from srdd.core.metrics import BY_NAME, GATED
from srdd.core.position import cost_scatter, swing_db
from srdd.core.student import critical
from srdd.core.tally import Tally
from srdd.core.uncertainty import total
from srdd.documents.costs import Cost
from srdd.documents.report import Report
from srdd.documents.schema import measurement
from srdd.errors import ReportError, SettingError
from srdd.exporters.check.text import headline, undecided_text

SPEC = "mxfp4:even"
LIMIT = (Limit(metric="relative_error", max_worse=0.05),)


def of(errors: list[float], layers: int = 3) -> Report:
    """Layer 1 with these relative errors by sequence, the others at 0.3."""
    rows = [[tally(0.3) for _ in errors] for _ in range(layers)]
    rows[1] = [tally(error) for error in errors]
    return make_report({"output": rows}, [SPEC])


BASE = of([0.3] * 8)


def test_beyond_its_bound_and_beyond_chance_is_failed() -> None:
    verdict = check(of([0.4, 0.41] * 4), BASE, Policy(limits=LIMIT))
    ((failure,),) = [case.failures for case in verdict.cases]
    assert (verdict.passed, failure.name, failure.undecided) == (False, "layer 1", False)
    assert failure.standard_error == pytest.approx(0.005 / math.sqrt(7))


@pytest.mark.parametrize("undecided", ["pass", "fail"])
def test_beyond_its_bound_by_chance_is_undecided(undecided: Any) -> None:
    verdict = check(of([0.2, 0.56] * 4), BASE, Policy(limits=LIMIT, undecided=undecided))
    (case,) = verdict.cases
    (finding,) = case.undecided
    assert verdict.passed is (undecided == "pass")
    assert finding.undecided
    assert len(case.failures) == (undecided == "fail")
    error = 0.18 / math.sqrt(7)
    assert finding.standard_error == pytest.approx(error)
    # 0.38 is 0.03 beyond: a family of three tests with 7 degrees of freedom
    assert finding.needed == math.ceil(8 * (critical(7, 3) * error / 0.03) ** 2)
    assert undecided_text(case, finding).endswith(f"about {finding.needed:,} documents would decide")
    assert ("1 undecided" in headline(verdict)) is (undecided == "pass")


def test_the_family_decides() -> None:
    """What one place alone would be failed for is chance among many."""
    errors = [0.35, 0.37, 0.36, 0.38, 0.35, 0.39, 0.37, 0.37]
    alone = check(
        of(errors, 2), of([0.3] * 8, 2), Policy(limits=(Limit(metric="relative_error", max_worse=0.055, layers="1"),))
    )
    many = check(of(errors, 400), of([0.3] * 8, 400), Policy(limits=(Limit(metric="relative_error", max_worse=0.055),)))
    assert not alone.passed
    assert many.passed
    assert len(many.cases[0].undecided) == 1


def test_undecided_in_a_policy_file(tmp_path: Path) -> None:
    path = tmp_path / "srdd.toml"
    path.write_text('undecided = "fail"\n[[limit]]\nmetric = "relative_error"\nmax_worse = 0.05\n')
    assert load_policy(path).undecided == "fail"
    path.write_text('undecided = "perhaps"\n[[limit]]\nmetric = "relative_error"\nmax_worse = 0.05\n')
    with pytest.raises(ReportError, match="expected pass or fail"):
        load_policy(path)
    with pytest.raises(SettingError, match="expected pass or fail"):
        check_undecided(True)


def test_the_swing_covers_what_a_factor_does() -> None:
    """One massive value among Gaussian ones: its place in the octave moves the SQNR, and the swing says how far."""
    x = torch.randn(256, 64, generator=torch.Generator().manual_seed(5))
    x[7, 9] = 400.0
    counted = [
        Tally.from_vector(kernels.measure(x * (1 + step / 20), "mxfp4", backend="eager").tolist()) for step in range(20)
    ]
    values = [10 * math.log10(t.sum_x2 / t.sum_e2) for t in counted]
    swings = [swing_db([t], parse("mxfp4")) for t in counted]
    moved = max(values) - min(values)
    assert moved > 3
    assert all(moved <= swing < moved + 4 for swing in swings)
    assert (
        swing_db(
            [Tally.from_vector(kernels.measure(x.clamp(-3, 3), "mxfp4", backend="eager").tolist())], parse("mxfp4")
        )
        < 0.1
    )
    assert math.isnan(swing_db([], parse("mxfp4")))


def changed(report: Report, kind: str, layers: list[int]) -> Report:
    sites = []
    for site in report.sites:
        if site.kind == kind and site.layer in layers:
            one = [tally(0.3, power=120.0)] * len(next(iter(site.formats.values())).sequences or [0])
            measured = measurement(total(one), one if kind != "weight" else None)
            site = site.model_copy(update={"formats": {SPEC: measured}})
        sites.append(site)
    return report.model_copy(update={"sites": sites})


BOTH = make_report({"weight": [[tally(0.3)]] * 4, "output": [[tally(0.3)] * 4] * 4}, [SPEC])


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        ({"output": [2, 3]}, "equal up to layer 1, begins at layer 2: output"),
        ({"output": [2, 3], "weight": [2]}, "equal up to layer 1, begins at layer 2: weight"),
        ({"output": [0, 1, 2, 3], "weight": [0, 1, 2, 3]}, "begins at layer 0: output"),  # training changed them all
    ],
)
def test_where_it_begins(kinds: dict[str, list[int]], text: str) -> None:
    new = BOTH
    for kind, layers in kinds.items():
        new = changed(new, kind, layers)
    began = beginning(BOTH, new)
    assert began is not None
    assert began.text.startswith(text)
    assert began.changed_weights == len(kinds.get("weight", []))


def test_what_a_pass_reaches_first_is_to_blame() -> None:
    """A weight of layer 3 changed, but layer 1 was other before it could be."""
    new = changed(changed(BOTH, "weight", [3]), "output", [1, 2, 3])
    began = beginning(BOTH, new)
    assert began is not None
    assert (began.layer, began.kind, began.equal_up_to) == (1, "output", 0)


def test_more_threads_change_no_weight() -> None:
    """They add float64 numbers in another order."""
    sites = []
    for site in BOTH.sites:
        (measured,) = site.formats.values()
        if site.kind == "weight":
            sums = [value * (1 + 1e-15) if value % 1 else value for value in measured.tally]
            measured = measured.model_validate({"tally": sums})
        sites.append(site.model_copy(update={"formats": {SPEC: measured}}))
    assert beginning(BOTH, BOTH.model_copy(update={"sites": sites})) is None


def test_equal_reports_begin_nowhere() -> None:
    assert beginning(BOTH, BOTH) is None


def test_an_older_baseline_is_told_the_documents() -> None:
    """Eight sequences of four documents: both reports have four units, and the change is paired."""
    calibration = BASE.settings.calibration
    assert calibration is not None
    known = {"documents": [name for name in "abcd" for _ in range(2)], "offsets": [0, 1] * 4}
    tree = of([0.3, 0.32] * 4).model_dump(mode="json")
    tree["settings"]["calibration"] |= known
    new = Report.from_tree(tree, "new")
    base, same = sharing_documents(of([0.2, 0.22] * 4), new)
    assert same is new
    assert base.settings.calibration is not None
    assert base.settings.calibration.units == 4
    assert sharing_documents(new, base) == (new, base)
    (pair,) = [p for p in pairs(base, new, "output", SPEC) if p.layer == 1]
    assert pair.degrees(BY_NAME["relative_error"]) == 3
    assert pair.error(BY_NAME["relative_error"]) == pytest.approx(0, abs=1e-12)


def test_undecided_is_of_changes(tmp_path: Path, srdd: Callable[..., tuple[int, str, str]]) -> None:
    BASE.save(tmp_path / "base.json")
    of([0.2, 0.56] * 4).save(tmp_path / "new.json")
    arguments = (
        "check",
        tmp_path / "new.json",
        "--baseline",
        tmp_path / "base.json",
        "--limit",
        "relative_error=+0.05",
    )
    code, shown, _ = srdd(*arguments)
    assert (code, "PASSED 3 checks, 1 undecided" in shown, "documents would decide" in shown) == (0, True, True)
    assert srdd(*arguments, "--undecided", "fail")[0] == 1
    code, _, said = srdd("check", tmp_path / "new.json", "--floor", "sqnr_db=1", "--undecided", "fail")
    assert (code, "--undecided has no effect on floors alone" in said) == (2, True), said
    code, _, said = srdd(*arguments, "--undecided", "perhaps")
    assert (code, "expected pass or fail" in said) == (2, True)


@pytest.mark.parametrize(
    ("spec", "mode", "whole", "share"),
    [
        ("mxfp4", "weight", True, 0.16),
        ("mxfp4", "both", False, 0.33),
        ("mxfp8", "input", False, 0.06),
        ("nvfp4", "weight", True, 0.03),
        ("fp8_block", "both", False, 0.03),
    ],
)
def test_costs_scatter_with_the_place_of_values(spec: str, mode: str, whole: bool, share: float) -> None:
    assert cost_scatter(parse(spec), mode, whole=whole) == share


def test_a_cost_of_changed_weights_must_rise_by_more_than_position_makes_it() -> None:
    """Worked by hand: KL 0.2 on all units, +10 % allowed, scatter 0.16 of 0.22 on both sides is 0.0498."""

    def priced(kl: float) -> Priced:
        return Priced({"kl": Cost(value=kl, sequences=[kl] * 4), "loss": Cost(value=3 + kl, sequences=[3 + kl] * 4)})

    kl, loss = GATED["kl"], GATED["loss"]
    pair = Pair(
        "model", "mxfp4:even", "mxfp4:even", None, "W4A16", priced(0.2), priced(0.3), (0, 1, 2, 3), scatter=0.16
    )
    error = 0.16 * 0.22 * math.sqrt(2)
    found = decide(pair, kl, 0.3 - 0.22, 1, 1.1)
    assert (found.sure, found.error) == (False, pytest.approx(error))
    assert decide(pair, kl, 0.3 - 0.22, 1, 1.1, moved=False).sure, (
        "without a changed weight nothing else lies elsewhere"
    )
    assert decide(pair, kl, 3 * error, 1, 1.1).sure
    assert not decide(pair, loss, 0.06, 1).sure, "a loss moves as the KL does: 0.16 of 0.2, twice"
    assert decide(pair, loss, 0.06, 1).error == pytest.approx(0.16 * 0.2 * math.sqrt(2))


def test_a_mean_over_draws_is_as_sure_as_their_number() -> None:
    drawn = Cost(value=0.2, sequences=[0.2] * 4, draws=[0.19, 0.21, 0.19, 0.21])
    pair = Pair(
        "model", "mxfp4_sr", "mxfp4_sr", None, "W4A4", Priced({"kl": drawn}), Priced({"kl": drawn}), (0, 1, 2, 3)
    )
    assert decide(pair, GATED["kl"], 0.01, 1).error == pytest.approx(math.sqrt(2) * stdev(drawn.draws or []) / 2)
