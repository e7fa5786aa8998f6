"""What to do about a format by what it costs: the dearest layers first, never all of them.

Flagged are the fewest layers that carry half of the predicted cost of all single layers, and at most all but one. The
whole model's KL decides before: up to FREE nats a token there is nothing to do. Where half of the cost lies in more
than 30 % of the layers, keeping some in higher precision helps little, and another format is the answer.

Not here: advice by error statistics (advice.py), keep-lists by fusion group with bits, and a plan.

Worked number: layers predicted at 0.1, 0.9, 0.1 and 0.1 nats: layer 1 alone carries half of 1.2, so 1 of 4 is flagged,
25 %, under 30 %: keep it in higher precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from srdd.analysis.blame import blame
from srdd.analysis.choices import choices_of
from srdd.analysis.dear_groups import dear_groups
from srdd.analysis.keep import carrying, whole_cost
from srdd.analysis.layer_costs import cost_modes, cost_specs, has_costs
from srdd.analysis.series import Series, cost_series
from srdd.analysis.short_names import inside_name
from srdd.analysis.verdicts import LIMITS, verdict_of
from srdd.core.formats import bits_per_value, parse
from srdd.core.metrics import significant
from srdd.core.modes import Mode, mode_title
from srdd.documents.advice import Action, Advice, Against, Candidate, Flagged, KeptGroup, Remedy, Verdict, WhatIf
from srdd.documents.costs import Costs
from srdd.documents.parts import Estimate
from srdd.documents.report import Report
from srdd.errors import SettingError

FREE = LIMITS["free"]  # nats a token
_MANY = 0.30  # of the layers
_GROUPS = 2  # named in a cause


def advise_by_cost(report: Report, spec: str) -> Advice:
    """The advice for a format that has costs, by its full name. Raises SettingError, ReportError."""
    series = cost_series(report, spec)
    assert report.costs is not None  # or there were no series
    assert series.mode is not None
    costs, mode = report.costs, series.mode
    kls = dict(zip(series.layers, series.values, strict=True))
    ranked = flagged_layers(kls)
    whole = whole_kl(costs, series)
    verdict, rule = _verdict(whole, len(ranked), len(kls))
    candidates = _candidates(report, mode)
    others = [_series(report, other, mode) for other in cost_specs(report) if other != spec]
    action: Action = "another format" if verdict == "reconsider_format" else "higher precision"
    flagged = [
        Flagged(
            layer=layer,
            beyond={series.metric.name: kls[layer]},
            severity=kls[layer] * len(kls) / (math.fsum(kls.values()) or 1.0),
            action=action,
            cause=dearest_parts(costs, layer, spec, mode),
            what_if=_what_if(layer, [other for other in others if other is not None]),
        )
        for layer in (ranked if verdict != "no_action" else [])
    ]
    return Advice(
        model=report.model.id,
        site="layer",
        quant=spec,
        mode=mode,
        against="cost",
        limits={},
        layers=len(kls),
        verdict=verdict,
        rule=f"{spec} {mode_title(mode, spec)}: {rule}",
        flagged=flagged,
        formats=candidates,
        groups=dear_groups(report, spec, mode) if verdict != "no_action" else [],
        remedies=_remedies(costs, spec, mode),
        next_format=_next(candidates, spec, whole.value) if verdict == "reconsider_format" else None,
        notes=[note for note in report.warnings if note.level in ("version 0", "dead", "error")],
    )


def priced_spec(report: Report, spec: str | None, against: Against | None) -> str | None:
    """The format whose costs advise; None where it has none and they were not asked for by name."""
    if not has_costs(report):
        raise SettingError("against", against, "no costs in this report; scan again with costs")
    known = cost_specs(report)
    chosen = known[0] if spec is None else spec if spec in known else parse(spec).spec
    if chosen in known:
        return chosen
    if against == "cost" or chosen not in report.settings.formats:
        raise SettingError("spec", spec, f"the costs are of {', '.join(known)}")
    return None


def flagged_layers(kls: Mapping[int, float]) -> list[int]:
    """The fewest layers that carry half of the cost of all, dearest first, and never all."""
    ranked = sorted(kls, key=lambda layer: (-kls[layer], layer))
    return ranked[: min(carrying(list(kls.values())), len(ranked) - 1)]


def whole_kl(costs: Costs, series: Series) -> Estimate:
    """The KL of the whole model in the mode of a series, or where it was not measured the sum of its layers."""
    row = None if series.mode is None else whole_cost(costs, series.spec, series.mode)
    return Estimate(value=math.fsum(series.values)) if row is None else Estimate(value=row.kl.value, error=row.kl.error)


def dearest_parts(costs: Costs, layer: int, spec: str, mode: Mode) -> str:
    """ "mlp.gate_up 45 %, mlp.down 30 %; inputs": which fusion groups of a layer cost most, and what is to blame."""
    groups = [g for g in costs.groups if (g.layer, g.format) == (layer, spec) and mode in g.predicted_kl]
    total = math.fsum(g.predicted_kl[mode].value for g in groups)
    dearest = sorted(groups, key=lambda g: -g.predicted_kl[mode].value)[:_GROUPS]
    parts = [f"{inside_name(g)} {g.predicted_kl[mode].value / total:.0%}" for g in dearest if total > 0]
    found = blame(costs, spec, layer, mode)
    blamed = "weights and inputs" if found == "both" else found
    return "; ".join(part for part in (", ".join(parts), blamed) if part) or "its parts were not measured"


def _verdict(whole: Estimate, flagged: int, layers: int) -> tuple[Verdict, str]:
    said = f"{significant(whole.value, whole.error)} nats a token"
    if whole.value <= FREE:
        return "no_action", f"{said}, up to {FREE:g}: no action"
    said += f"; {flagged} of {layers} layers carry half of the predicted cost"
    if flagged == 0 or flagged / layers > _MANY:
        return "reconsider_format", f"{said}, above {_MANY:.0%} of them: reconsider the format"
    return "higher_precision", f"{said}: keep those in higher precision"


def _series(report: Report, spec: str, mode: Mode) -> Series | None:
    known = report.costs is not None and mode in cost_modes(report.costs, spec)
    return cost_series(report, spec, mode=mode) if known else None


def _candidates(report: Report, mode: Mode) -> list[Candidate]:
    rows = []
    for spec in cost_specs(report):
        series = _series(report, spec, mode)
        if series is None or report.costs is None:
            continue
        kl = whole_kl(report.costs, series)
        carried = flagged_layers(dict(zip(series.layers, series.values, strict=True)))
        rows.append(
            Candidate(
                format=spec,
                bits_per_value=bits_per_value(spec),
                sqnr_db=None,
                kl=kl,
                flagged=len(carried) if kl.value > FREE else 0,
                layers=len(series.layers),
                passes=kl.value <= FREE,
            )
        )
    return rows


def _what_if(layer: int, others: Sequence[Series]) -> list[WhatIf]:
    rows = []
    for other in others:
        kls = dict(zip(other.layers, other.values, strict=True))
        if layer in kls:
            bits = bits_per_value(other.spec)
            rows.append(WhatIf(format=other.spec, predicted_kl=kls[layer], bits_per_value=bits))
    return sorted(rows, key=lambda row: row.predicted_kl or 0.0)


def _remedies(costs: Costs, spec: str, mode: Mode) -> list[Remedy]:
    choices = choices_of(costs, spec, mode, [verdict_of(row) for row in costs.whole])
    return [
        Remedy(
            why=one.why,
            base=one.base,
            higher=one.found.higher if one.found else None,
            keep=[KeptGroup(name=g.name, layer=g.layer) for g in one.found.kept(one.kept)] if one.found else [],
            bits_per_value=one.bits,
            kl=Estimate(value=one.kl, error=one.error),
            word=one.word,
        )
        for one in choices
    ]


def _next(candidates: Sequence[Candidate], spec: str, kl: float) -> str | None:
    """The format of fewest bits that is free, else the one of fewest bits that costs at most half; or None."""
    others = [row for row in candidates if row.format != spec and row.kl is not None]
    better = [row for row in others if row.passes] or [row for row in others if row.kl and row.kl.value <= kl / 2]
    ranked = sorted(better, key=lambda row: (row.bits_per_value or math.inf, row.kl.value if row.kl else 0.0))
    return ranked[0].format if ranked else None
