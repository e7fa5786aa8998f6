"""Rows of fusion groups, Linears, experts, sensitivities, and what has no cost, from a prediction.

Not here: layers and the whole model (rows.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from srdd.core.modes import MODES, Mode
from srdd.documents.costs import Cost, ExpertCost, GroupCost, LinearCost, Sensitivity, Unpriced
from srdd.kernels.precision import to_float64
from srdd.models.sites import Site
from srdd.models.wrapped import named_modules
from srdd.runs.impact.fisher import Fisher
from srdd.runs.impact.linears import OutputErrors
from srdd.runs.impact.routed import expert_of
from srdd.runs.impact.rows import by_mode, cost, linear_row, per_token
from srdd.runs.impact.subject import Subject


def group_rows(
    subject: Subject,
    specs: Sequence[str],
    fisher: Fisher | None,
    tokens: int,
    measured: Mapping[tuple[str, str], dict[Mode, Cost]] | None = None,
) -> list[GroupCost]:
    """Every fusion group and every Linear that stands alone, where something is known of it."""
    members: dict[str, list[Site]] = {}
    for site in subject.sites:
        members.setdefault(site.group or site.module, []).append(site)
    rows = []
    for spec in specs:
        for name, sites in members.items():
            predicted = by_mode(fisher.scores.groups, spec, name, tokens) if fisher else {}
            swapped = (measured or {}).get((spec, name), {})
            if predicted or swapped:
                rows.append(
                    GroupCost(
                        name=name,
                        layer=sites[0].layer,
                        members=[site.module for site in sites],
                        parameters=sum(subject.sizes[site.module] for site in sites),
                        format=spec,
                        predicted_kl=predicted,
                        measured_kl=swapped,
                    )
                )
    return rows


def linear_rows(
    subject: Subject,
    specs: Sequence[str],
    fisher: Fisher | None,
    tokens: int,
    errors: Mapping[tuple[str, str], OutputErrors] | None = None,
) -> list[LinearCost]:
    """Every Linear that ran; those of routed experts are experts."""
    rows = []
    for spec in specs:
        for site in subject.linears:
            predicted = by_mode(fisher.scores.modules, spec, site.module, tokens) if fisher else {}
            measured = (errors or {}).get((spec, site.module))
            if predicted or measured:
                rows.append(linear_row(site, spec, measured, predicted, subject.sizes[site.module]))
    return rows


def expert_rows(subject: Subject, specs: Sequence[str], fisher: Fisher, tokens: int) -> list[ExpertCost]:
    """Every expert, with the tokens that it got; without tokens it has no cost, which is not a cost of 0."""
    scores = fisher.scores
    rows = []
    for spec in specs:
        for (module, expert), (sites, parameters) in _experts_of(subject, fisher).items():
            found = {mode: per_token(scores.experts.get((spec, mode, module, expert)), tokens) for mode in MODES}
            rows.append(
                ExpertCost(
                    module=module,
                    expert=expert,
                    layer=sites[0].layer,
                    group=sites[0].group,
                    parameters=parameters,
                    tokens=max(scores.tokens.get((module, expert), {}).values(), default=0),
                    format=spec,
                    predicted_kl={mode: kl for mode, kl in found.items() if kl is not None},
                )
            )
    return rows


def sensitivity_rows(subject: Subject, fisher: Fisher, tokens: int) -> list[Sensitivity]:
    """Norms, then Linears, whose gradients were taken."""
    traces = fisher.scores.traces
    rows = []
    modules = dict(named_modules(subject.stack.model))
    for norm in subject.norms:
        if (score := traces.get(norm.name)) is not None:
            trace = cost([value / tokens for value in score.diagonal])
            rows.append(
                Sensitivity(
                    name=norm.name,
                    kind="norm",
                    layer=norm.layer,
                    feeds=norm.feeds,
                    parameters=norm.weight.numel(),
                    rms=_rms(norm.weight, norm.offset),
                    trace=trace,
                )
            )
    for site in subject.sites:
        name = f"{site.module}.weight"
        if (score := traces.get(name)) is not None:
            weight = modules[site.module].weight
            trace = cost([value / tokens for value in score.diagonal])
            rows.append(
                Sensitivity(
                    name=name,
                    kind="linear",
                    layer=site.layer,
                    parameters=subject.sizes[site.module],
                    rms=_rms(weight),
                    trace=trace,
                )
            )
    return rows


def unpriced_rows(subject: Subject, fisher: Fisher) -> list[Unpriced]:
    """Modules that quantize and got no prediction. An expert without tokens has a row of its own, without a cost."""
    priced = {name for _, _, name in fisher.scores.modules}
    modules = dict(named_modules(subject.stack.model))
    blocks = {site.group for site in subject.sites if expert_of(site.module) and site.module in fisher.ran}
    rows = []
    for site in subject.sites:
        name = site.module
        if name in priced or (expert_of(name) and site.group in blocks):
            continue
        if name in fisher.strange:
            reason = f"{type(modules[name]).__name__} is called in a form in which single experts cannot be told apart"
        elif name in fisher.ran:
            reason = "it runs before the first layer, and gradients are taken from there on"
        else:
            reason = "it does not run on text alone"
        rows.append(Unpriced(module=name, parameters=subject.sizes[name], reason=reason))
    return rows


def _experts_of(subject: Subject, fisher: Fisher) -> dict[tuple[str, int], tuple[list[Site], int]]:
    """All experts of mixtures that ran in a form that is understood: their modules and how many values they hold."""
    experts: dict[tuple[str, int], tuple[list[Site], int]] = {}
    fused = {module for module, _ in fisher.scores.tokens}
    for site in subject.sites:
        size = subject.sizes[site.module]
        if site.role == "experts" and site.module in fused:
            count = max(expert for module, expert in fisher.scores.tokens if module == site.module) + 1
            experts.update({(site.module, expert): ([site], size // count) for expert in range(count)})
        elif (place := expert_of(site.module)) is not None:
            sites, known = experts.get(place, ([], 0))
            experts[place] = ([*sites, site], known + size)
    return experts


def _rms(weight: object, offset: float = 0.0) -> float:
    value: float = (to_float64(weight.detach()) + offset).square().mean().sqrt().item()  # type: ignore[attr-defined]
    return value
