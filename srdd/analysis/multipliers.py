"""From a report to the noise document: series, strategy, dose, schedule and target joined into one RinConfig.

Not here: the strategies (strategies.py), how much noise (dose.py), and files. When errors come from Linear inputs and
noise goes on norms, only inputs that a norm feeds count. Each norm gets a multiplier of its own (`norm_multipliers`),
all normalised together, and a layer's multiplier is the mean of its norms'.

Worked number: errors 0.1 before q/k/v and 0.3 before gate/up in the only layer: the mean is 0.2, so the attention norm
gets 0.5, the MLP norm 1.5, the layer 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from srdd.analysis.dose import Amount, Course, dosed
from srdd.analysis.layer_costs import cost_modes
from srdd.analysis.series import Series, layer_series, noise_series, series_of
from srdd.analysis.strategies import (
    NO_CLAMP,
    Multipliers,
    StrategyOptions,
    apply_strategy,
    default_strategy,
    known_strategy,
)
from srdd.analysis.trust import trust_in
from srdd.core.metrics import COSTS, NOISE_SENSITIVITY
from srdd.core.modes import Mode, choose_mode
from srdd.core.roles import NORMS, Norm, norm_of
from srdd.documents.report import Report
from srdd.documents.rin import CLASSES, Feeds, RinConfig, RinProvenance, Schedule, Target
from srdd.documents.schema import Site
from srdd.errors import NoEffectError, ReportError, SettingError, setting

_UNSET = Schedule(sigma_start=1.0, sigma_end=1.0, kind="constant")  # until it is dosed
_DIGITS = 6  # of a multiplier in the document; the error it comes from is known to three or four
_MORE_TO_THE_WORSE = ("variable", "ceiling", "targeted", "tiered")
_PER_NORM = ("variable", "inverse", "ceiling")  # in which a norm's own error decides


def find_multipliers(
    report: Report,
    report_sha256: str = "",
    version: str = "",
    *,
    kind: str | None = None,
    spec: str | None = None,
    metric: str | None = None,
    mode: str | None = None,
    strategy: str | None = None,
    options: StrategyOptions | None = None,
    course: Course | None = None,
    amount: Amount | None = None,
    target: Target = "rmsnorm",
    relative: bool = False,
) -> tuple[RinConfig, Series]:
    """The document and the series it was made from, which is chosen as by `layer_series`.

    Without `strategy` layers that cost more get less noise ("inverse"), and by an error statistic more ("variable",
    the study's rule). "equal-damage" takes the report's noise sensitivities instead of a ranking. `amount` says how
    much noise the schedule starts with: by default what costs 0.05 nats a token, where the report tells. `mode` is
    that of a cost, and of the probe in `amount`. `report_sha256` and `version` are what the document says of its
    origin; the default version is this package's.

    Raises SettingError, NoEffectError, ConflictError and ReportError. A sigma that may break the model is not refused
    here: `srdd.analysis.dose.refuse_breaking` does.
    """
    if target not in CLASSES:
        raise SettingError("target", target, f"expected one of {', '.join(CLASSES)}")
    options, course, amount = options or StrategyOptions(), course or Course(), amount or Amount()
    if strategy is not None and known_strategy(strategy).of_noise:
        _refuse_ranking(strategy, kind=kind, spec=spec, metric=metric)
        series = noise_series(report, target, relative=relative)
    else:
        series = layer_series(report, kind, spec, metric, None if amount.probe else mode)
        if amount.probe and series.mode and (priced := _priced_mode(report, series, mode)) is not None:
            series = layer_series(report, kind, spec, metric, priced)
    strategy = strategy or default_strategy(series)
    feeds, norms = None, None
    if series.kind == "input" and target != "linear":
        feeds, per_norm = _fed_by_norms(report, series)
        fed = [s for sites in by_norm(_inputs(report)).values() for s in sites]
        series = series_of(fed, report, "input", series.spec, series.metric)
        if strategy in _PER_NORM:
            multipliers, norms = _by_norm(series, per_norm, strategy, options)
        else:
            multipliers = apply_strategy(series, strategy, options)
    else:
        multipliers = apply_strategy(series, strategy, options)
    config = RinConfig(
        provenance=series.made(
            RinProvenance,
            report.model,
            report_sha256,
            srdd=version,
            strategy=strategy,
            normalize=_normalize(strategy, options),
            clamp=_clamp(strategy, options),
            scheme=multipliers.scheme,
        ),
        schedule=_UNSET,
        target=target,
        target_classes=CLASSES[target],
        relative=relative,
        layer_multipliers=_rounded(multipliers.layer_multipliers),
        norm_multipliers=None if norms is None else {norm: _rounded(values) for norm, values in norms.items()},
        feeds=feeds,
        phases=multipliers.phases,
        lr_multipliers=None if multipliers.lr_multipliers is None else _rounded(multipliers.lr_multipliers),
    )
    config, said = dosed(report, config, course, replace(amount, mode=mode if amount.probe else None))
    trust = None if strategy == "global" else trust_in(report, series)
    config.provenance.notes = [*multipliers.notes, *_against_cost(series, strategy), *([trust] if trust else []), *said]
    return config, series


def _refuse_ranking(strategy: str, **given: str | None) -> None:
    unused = [name for name, value in given.items() if value is not None]
    if unused:
        raise NoEffectError(unused, f"on {strategy}, which takes the noise sensitivities of the model")


def _priced_mode(report: Report, series: Series, mode: str | None) -> Mode | None:
    """The mode of a probe as one in which layers have a cost too; None where they have none in it."""
    assert report.costs is not None  # or there were no such series
    try:
        return choose_mode(mode, cost_modes(report.costs, series.spec), series.spec)
    except SettingError:
        return None


def by_norm(sites: Sequence[Site]) -> dict[Norm, list[Site]]:
    """Input sites by the norm that feeds them; those that no norm feeds are left out."""
    groups: dict[Norm, list[Site]] = {norm: [] for norm in NORMS}
    for site in sites:
        norm = norm_of(site.role, site.name)
        if norm is not None:
            groups[norm].append(site)
    return groups


def roles(sites: Sequence[Site]) -> list[str]:
    """The roles of all modules that read these inputs, in order of appearance."""
    names = (member.rpartition(".")[2] for site in sites for member in (site.members or [site.name]))
    return list(dict.fromkeys(role for role in names if not role.isdigit()))


def _inputs(report: Report) -> list[Site]:
    return [site for site in report.sites if site.kind == "input" and site.layer is not None]


def _fed_by_norms(report: Report, series: Series) -> tuple[Feeds, dict[Norm, Series]]:
    inputs = [site for site in _inputs(report) if series.spec in site.formats]
    groups = by_norm(inputs)
    fed = {site.name for sites in groups.values() for site in sites}
    unfed = roles([site for site in inputs if site.name not in fed])
    if not fed:
        raise ReportError(
            f"no Linear input of this report is known to be fed by a norm (roles: {', '.join(unfed)}); "
            f"use {setting('kind', 'output')}, or {setting('target', 'linear')}"
        )
    feeds = Feeds(attention=roles(groups["attention"]), mlp=roles(groups["mlp"]), unfed=unfed)
    per_norm = {n: series_of(groups[n], report, "input", series.spec, series.metric) for n in NORMS if groups[n]}
    return feeds, per_norm


def _by_norm(
    series: Series, per_norm: Mapping[Norm, Series], strategy: str, options: StrategyOptions
) -> tuple[Multipliers, dict[Norm, dict[int, float]]]:
    """The strategy over all norms at once, so that they are normalised together; a layer gets the mean of its norms."""
    places = [(norm, i) for norm, s in per_norm.items() for i in range(len(s.layers))]
    together = replace(
        series,
        layers=tuple(range(len(places))),
        measurements=tuple(per_norm[norm].measurements[i] for norm, i in places),
    )
    joint = apply_strategy(together, strategy, options)
    norms: dict[Norm, dict[int, float]] = {norm: {} for norm in per_norm}
    for place, (norm, i) in enumerate(places):
        norms[norm][per_norm[norm].layers[i]] = joint.layer_multipliers[place]
    layers = sorted({layer for values in norms.values() for layer in values})
    means = {layer: fmean(values[layer] for values in norms.values() if layer in values) for layer in layers}
    clamp = _clamp(strategy, options)
    return Multipliers(means, notes=[f"clamped to {clamp[0]:g} to {clamp[1]:g}, norm by norm"] if clamp else []), norms


def _against_cost(series: Series, strategy: str) -> list[str]:
    if series.metric in (*COSTS, NOISE_SENSITIVITY) and strategy in _MORE_TO_THE_WORSE:
        return [f"warning: {strategy} puts more noise where it costs more; inverse spares the layers that cost most"]
    return []


def _normalize(strategy: str, options: StrategyOptions) -> str | None:
    return options.normalize or known_strategy(strategy).normalize


def _clamp(strategy: str, options: StrategyOptions) -> tuple[float, float] | None:
    clamp = known_strategy(strategy).clamp if options.clamp is None else options.clamp
    return None if clamp == NO_CLAMP else clamp


def _rounded(values: Mapping[int, float]) -> dict[int, float]:
    return {layer: round(value, _DIGITS) for layer, value in values.items()}
