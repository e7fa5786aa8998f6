"""The fusion groups that carry half of a format's cost: what is to blame, why it quantizes badly, what others save.

The cause is told by the sums of the site to blame: the input that the group reads, or the weight of its costliest
Linear. Tallies know values and no channels: "a few massive values" may be one channel.

Not here: keep-lists (keep.py), layers (cost_advice.py).

Worked number: groups at 0.3, 0.1 and 0.1 nats: the first carries 60 %, so it stands alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from srdd.analysis.blame import Blame, blame_of
from srdd.analysis.causes import cause
from srdd.analysis.keep import carrying
from srdd.core.formats import bits_per_value
from srdd.core.modes import Mode
from srdd.documents.advice import DearGroup, WhatIf
from srdd.documents.costs import Costs, GroupCost
from srdd.documents.parts import Estimate
from srdd.documents.report import Report
from srdd.documents.schema import Site


def dear_groups(report: Report, spec: str, mode: Mode) -> list[DearGroup]:
    """Dearest first, the fewest that carry half; nothing where groups were not priced."""
    costs = report.costs
    if costs is None:
        return []
    rows = _of(costs, spec, mode)
    total = math.fsum(row.predicted_kl[mode].value for row in rows)
    ranked = sorted(rows, key=lambda row: (-row.predicted_kl[mode].value, row.name))
    others = {
        other: {row.name: row.predicted_kl[mode].value for row in _of(costs, other, mode)}
        for other in costs.settings.formats
        if other != spec
    }
    measured = [site for site in report.sites if spec in site.formats]
    weights = {site.name.removesuffix(".weight"): site for site in measured if site.kind == "weight"}
    inputs = {frozenset(site.members or [site.name]): site for site in measured if site.kind == "input"}
    found = []
    for row in ranked[: carrying([row.predicted_kl[mode].value for row in rows])]:
        kl = row.predicted_kl[mode]
        blamed = blame_of({m: cost.value for m, cost in row.predicted_kl.items()}) if mode == "both" else ""
        found.append(
            DearGroup(
                name=row.name,
                layer=row.layer,
                members=row.members,
                predicted_kl=Estimate(value=kl.value, error=kl.error),
                share=kl.value / total if total > 0 else 0.0,
                blame=blamed,
                cause=_cause(costs, row, spec, mode, _place(blamed, mode), weights, inputs),
                what_if=_what_if(row.name, others),
            )
        )
    return found


def _of(costs: Costs, spec: str, mode: Mode) -> list[GroupCost]:
    return [row for row in costs.groups if row.format == spec and mode in row.predicted_kl]


def _place(blamed: Blame, mode: Mode) -> str:
    """Where to look for the cause: where both are to blame in the inputs, which are quantized anew for every token."""
    return "weight" if blamed == "weights" or mode == "weight" else "input"


def _cause(
    costs: Costs,
    row: GroupCost,
    spec: str,
    mode: Mode,
    place: str,
    weights: Mapping[str, Site],
    inputs: Mapping[frozenset[str], Site],
) -> str:
    if place == "input":
        site = inputs.get(frozenset(row.members))
    else:
        kls = {
            linear.module: linear.predicted_kl[mode].value
            for linear in costs.linears
            if linear.format == spec and linear.module in row.members and mode in linear.predicted_kl
        }
        dearest = max(kls, key=kls.__getitem__, default=row.members[0] if row.members else "")
        site = weights.get(dearest)
    if site is None or site.formats[spec].tally is None:
        return ""
    return cause(spec, site.formats[spec])


def _what_if(name: str, others: Mapping[str, Mapping[str, float]]) -> list[WhatIf]:
    rows: Sequence[WhatIf] = [
        WhatIf(format=other, predicted_kl=kls[name], bits_per_value=bits_per_value(other))
        for other, kls in others.items()
        if name in kls
    ]
    return sorted(rows, key=lambda row: row.predicted_kl or 0.0)
