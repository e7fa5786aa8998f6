"""A report as a tidy table: one row per site, format and metric.

Numbers are written so that they read back to the last bit; empty means none, "inf" an exact copy. A spreadsheet would
run a name that begins like a formula, and names come from strangers' checkpoints: such text gets an apostrophe in
front.

Not here: sums, which are in the report, and layers.

Worked number: a site with sqnr_db 20 under mxfp4:even gives the line
"weight,7,down_proj,model.layers.7.mlp.down_proj,mxfp4:even,sqnr_db,20.0,".
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

from srdd.analysis.bundle import Bundle, View
from srdd.analysis.layer_costs import Priced
from srdd.analysis.series import choose_kinds, choose_specs
from srdd.analysis.site_costs import site_costs
from srdd.core.metrics import COSTS, METRICS, Metric, any_metric
from srdd.documents.report import Report
from srdd.errors import SettingError

REPORT_SUFFIXES = (".csv",)
USES = frozenset({"metric", "kind", "formats"})
COLUMNS = ("site", "layer", "role", "module", "format", "metric", "value", "standard_error")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def render(bundle: Bundle, view: View) -> str:
    """The table. Raises SettingError for a kind, format or metric that the report lacks."""
    report = bundle.report
    kinds, specs = choose_kinds(report, view.kind), choose_specs(report, view.formats)
    metrics = METRICS if view.metric is None else [any_metric(view.metric)]
    costs = {spec: site_costs(report, spec) for spec in specs}
    if view.metric is not None and not _is_known(report, metrics[0], costs):
        raise SettingError("metric", view.metric, "no site has it in this report")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for place, site in enumerate(report.sites):
        if site.kind not in kinds:
            continue
        who = (site.kind, "" if site.layer is None else site.layer, _text(site.role), _text(site.name))
        for spec in specs:
            measured = site.formats.get(spec)
            if measured is None:
                continue
            for metric in metrics:
                value, error = measured.value(metric.name), math.nan
                if metric in COSTS and (priced := costs[spec][place]).costs:
                    value, error = priced.value(metric.name), priced.error(metric.name)
                elif measured.sequences:
                    error = measured.error(metric.name)
                writer.writerow((*who, _text(spec), metric.name, _number(value), _number(error)))
    return out.getvalue()


def _is_known(report: Report, metric: Metric, costs: Mapping[str, Sequence[Priced]]) -> bool:
    """Whether any site has a number."""
    if metric in COSTS and any(math.isfinite(row.value(metric.name)) for rows in costs.values() for row in rows):
        return True
    return any(not math.isnan(site.formats[spec].value(metric.name)) for site in report.sites for spec in site.formats)


def _text(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(value)
