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

from srdd.analysis.bundle import Bundle, View
from srdd.analysis.series import choose_kinds, choose_specs
from srdd.core.metrics import METRICS

REPORT_SUFFIXES = (".csv",)
USES = frozenset({"metric", "kind", "formats"})
COLUMNS = ("site", "layer", "role", "module", "format", "metric", "value", "standard_error")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def render(bundle: Bundle, view: View) -> str:
    """The table. Raises SettingError for a kind, format or metric that the report lacks."""
    from srdd.core.metrics import any_metric

    report = bundle.report
    kinds, specs = choose_kinds(report, view.kind), choose_specs(report, view.formats)
    wanted = [metric.name for metric in METRICS] if view.metric is None else [any_metric(view.metric).name]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for site in report.sites:
        if site.kind not in kinds:
            continue
        who = (site.kind, "" if site.layer is None else site.layer, _text(site.role), _text(site.name))
        for spec in specs:
            measured = site.formats.get(spec)
            if measured is None:
                continue
            for name in wanted:
                error = measured.error(name) if measured.sequences else math.nan
                writer.writerow((*who, _text(spec), name, _number(measured.value(name)), _number(error)))
    return out.getvalue()


def _text(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(value)
