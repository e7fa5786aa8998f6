"""What the sites of a report cost, for heatmaps: a number for every weight, input and output.

A weight has the cost of its Linear, an input that of the fusion group or Linear that reads it, an output that of its
layer, all in the mode that ranks. Several experts in one place have none.

Not here: costs of layers (layer_costs.py).

Worked number: q, k and v are 0.1 each and their group 0.4: the three weights have 0.1, the input that feeds them 0.4.
"""

from __future__ import annotations

from collections.abc import Mapping

from srdd.analysis.layer_costs import Numbers, Priced, cost_modes, has_costs, priced_layers
from srdd.core.metrics import COSTS, Metric
from srdd.core.modes import Mode, choose_mode
from srdd.documents.costs import Costs
from srdd.documents.parts import Kind
from srdd.documents.report import Report
from srdd.documents.schema import Site

UNPRICED = Priced({})


def site_costs(report: Report, spec: str) -> list[Priced]:
    """One entry for every site of the report, in its order; empty entries where no cost is known."""
    costs = report.costs
    if costs is None or not has_costs(report, spec):
        return [UNPRICED] * len(report.sites)
    modules = _modules(costs, spec, choose_mode(None, cost_modes(costs, spec), spec))
    layers, _ = priced_layers(report, spec)
    return [_of(site, modules, layers) for site in report.sites]


def site_numbers(report: Report, kind: Kind, spec: str, metric: Metric) -> list[tuple[Site, Numbers]]:
    """The sites of a kind, each with that by which a metric is told: its cost, or what was measured of it."""
    every = zip(report.sites, site_costs(report, spec), strict=True)
    known = [(site, priced) for site, priced in every if site.kind == kind and spec in site.formats]
    return [(site, priced if metric in COSTS and priced.costs else site.formats[spec]) for site, priced in known]


def _modules(costs: Costs, spec: str, mode: Mode) -> dict[tuple[str, ...], Priced]:
    """Predicted KL by the modules that are quantized together: those of a group, and each Linear alone."""
    rows = [(tuple(sorted(row.members)), row) for row in costs.groups]
    kls = {names: row.predicted_kl for names, row in rows if row.format == spec}
    for linear in costs.linears:
        if linear.format == spec:
            kls[linear.module,] = linear.predicted_kl
    return {names: Priced({COSTS[0].name: kl[mode]}) for names, kl in kls.items() if mode in kl}


def _of(site: Site, modules: Mapping[tuple[str, ...], Priced], layers: Mapping[int, Priced]) -> Priced:
    if site.kind == "output":
        return UNPRICED if site.layer is None else layers.get(site.layer, UNPRICED)
    if site.kind == "input":
        return modules.get(tuple(sorted(site.members or [site.name])), UNPRICED)
    return modules.get((site.name.removesuffix(".weight"),), UNPRICED)
