"""From a report to the noise document: series, strategy, schedule and target joined into one RinConfig.

Not here: strategies (multipliers.py) and files. When errors come from Linear inputs and noise goes on norms, only
inputs that a norm feeds count, each norm gets a multiplier of its own (`norm_multipliers`), all normalised together,
and a layer's is the mean of its norms'.

Worked number: errors 0.1 before q/k/v and 0.3 before gate/up in the only layer: the mean is 0.2, so the attention norm
gets 0.5, the MLP norm 1.5, the layer 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from srdd.analysis.series import Series, layer_series, series_of
from srdd.analysis.strategies import Choices, Plan, plan
from srdd.core.roles import NORMS, Norm, norm_of
from srdd.documents.report import Report
from srdd.documents.rin import CLASSES, Feeds, RinConfig, RinProvenance, Schedule, Target
from srdd.documents.schema import Site
from srdd.errors import OptionError

QERL = Schedule(sigma_start=0.05, sigma_end=0.0005, num_stages=10)  # as `srdd multipliers` without options
_DIGITS = 6  # of a multiplier in the document; the error it comes from is known to three or four
_PER_NORM = ("variable", "inverse", "ceiling")  # strategies in which a norm's own error decides


def guide(
    report: Report,
    report_sha256: str = "",
    version: str = "",
    *,
    site: str | None = None,
    quant: str | None = None,
    metric: str = "relative_error",
    strategy: str = "variable",
    choices: Choices | None = None,
    schedule: Schedule = QERL,
    target: Target = "rmsnorm",
    relative: bool = False,
) -> tuple[RinConfig, Series]:
    """The document and the series it was made from. Raises OptionError and ReportError.

    `report_sha256` and `version` are what the document says of its origin; without a version that of this package.
    """
    if target not in CLASSES:
        raise OptionError(f"--target {target}: expected one of {', '.join(CLASSES)}")
    choices = choices or Choices()
    series = layer_series(report, site, quant, metric)
    feeds, norms = None, None
    if series.kind == "input" and target != "linear":
        feeds, per_norm = _fed_by_norms(report, series)
        fed = [s for sites in by_norm(_inputs(report)).values() for s in sites]
        series = series_of(fed, report, "input", series.spec, series.metric)
        if strategy in _PER_NORM:
            made, norms = _plan_norms(series, per_norm, strategy, choices)
        else:
            made = plan(series, strategy, choices)
    else:
        made = plan(series, strategy, choices)
    config = RinConfig(
        provenance=series.made(
            RinProvenance,
            report.model,
            report_sha256,
            srdd=version,
            strategy=strategy,
            normalize=_normalize(strategy, choices),
            clamp=choices.clamp,
            scheme=made.scheme,
            notes=made.notes,
        ),
        schedule=schedule,
        target=target,
        target_classes=CLASSES[target],
        relative=relative,
        layer_multipliers=_rounded(made.layer_multipliers),
        norm_multipliers=None if norms is None else {norm: _rounded(values) for norm, values in norms.items()},
        feeds=feeds,
        phases=made.phases,
        lr_multipliers=None if made.lr_multipliers is None else _rounded(made.lr_multipliers),
    )
    return config, series


def _inputs(report: Report) -> list[Site]:
    return [site for site in report.sites if site.kind == "input" and site.layer is not None]


def _fed_by_norms(report: Report, series: Series) -> tuple[Feeds, dict[Norm, Series]]:
    inputs = [site for site in _inputs(report) if series.spec in site.formats]
    groups = by_norm(inputs)
    fed = {site.name for sites in groups.values() for site in sites}
    unfed = roles([site for site in inputs if site.name not in fed])
    if not fed:
        raise OptionError(
            f"no Linear input of this report is known to be fed by a norm (roles: {', '.join(unfed)}); "
            "use --site output, or --target linear"
        )
    feeds = Feeds(attention=roles(groups["attention"]), mlp=roles(groups["mlp"]), unfed=unfed)
    made = {n: series_of(groups[n], report, "input", series.spec, series.metric) for n in NORMS if groups[n]}
    return feeds, made


def _plan_norms(
    series: Series, per_norm: Mapping[Norm, Series], strategy: str, choices: Choices
) -> tuple[Plan, dict[Norm, dict[int, float]]]:
    """One plan over all norms, so that they are normalised together; a layer's multiplier is the mean of its norms'."""
    places = [(norm, i) for norm, s in per_norm.items() for i in range(len(s.layers))]
    together = replace(
        series,
        layers=tuple(range(len(places))),
        measurements=tuple(per_norm[norm].measurements[i] for norm, i in places),
    )
    joint = plan(together, strategy, choices)
    norms: dict[Norm, dict[int, float]] = {norm: {} for norm in per_norm}
    for place, (norm, i) in enumerate(places):
        norms[norm][per_norm[norm].layers[i]] = joint.layer_multipliers[place]
    layers = sorted({layer for values in norms.values() for layer in values})
    means = {layer: fmean(values[layer] for values in norms.values() if layer in values) for layer in layers}
    notes = [] if choices.clamp is None else [f"clamped to {choices.clamp[0]:g} to {choices.clamp[1]:g}, norm by norm"]
    return Plan(means, notes=notes), norms


def _normalize(strategy: str, choices: Choices) -> str | None:
    if strategy == "ceiling":
        return "max"
    return (choices.normalize or "mean") if strategy in ("variable", "inverse") else None


def _rounded(values: Mapping[int, float]) -> dict[int, float]:
    return {layer: round(value, _DIGITS) for layer, value in values.items()}


def by_norm(sites: Sequence[Site]) -> dict[Norm, list[Site]]:
    """Input sites by the norm that feeds them; those without are left out."""
    found: dict[Norm, list[Site]] = {norm: [] for norm in NORMS}
    for site in sites:
        norm = norm_of(site.role, site.name)
        if norm is not None:
            found[norm].append(site)
    return found


def roles(sites: Sequence[Site]) -> list[str]:
    """The roles of all modules that read these inputs, in order of appearance."""
    names = (member.rpartition(".")[2] for site in sites for member in (site.members or [site.name]))
    found = dict.fromkeys(role for role in names if not role.isdigit())
    return list(found)
