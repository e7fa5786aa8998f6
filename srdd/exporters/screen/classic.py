"""The first screen of a report without costs: the same form, and plain words on what is not known.

Not here: the facts (srdd.analysis.classic_screen).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from srdd.analysis.classic_screen import ClassicScreen, WorstLayers, classic_screen
from srdd.analysis.short_names import name_of
from srdd.core.metrics import BY_NAME
from srdd.exporters.screen.layout import INDENT, Paper
from srdd.exporters.typed import typed, typed_model

if TYPE_CHECKING:
    from srdd.documents.report import Report

_TITLES = {"weight": "weights", "input": "Linear inputs", "output": "decoder-layer outputs"}
_FORMATS = 6


def render_classic(paper: Paper, report: Report, where: str) -> ClassicScreen:
    """Everything below the header; `where` is what commands need to find the report, a space before it."""
    facts = classic_screen(report)
    paper.add()
    paper.section("VERDICT", facts.why)
    cells = [["", "bits", "relative error", "SQNR"]]
    for row in facts.formats[:_FORMATS]:
        errors = [BY_NAME["relative_error"].text(row.relative_error), BY_NAME["sqnr_db"].text(row.sqnr_db)]
        units = [f"{errors[0]} %", f"{errors[1]} dB"]
        cells.append([row.spec, f"{row.bits:.2f}" if row.bits else "-", *units])
    paper.columns(cells)
    if len(facts.formats) > _FORMATS:
        paper.add(f"  and {len(facts.formats) - _FORMATS} more: srdd show{where} --stats")
    paper.add()
    if facts.where is None:
        paper.section("WHERE", "no layer holds a number")
    else:
        _where(paper, facts.where)
    paper.add()
    first = typed(facts.formats[0].spec, "FORMAT") if facts.formats else "FORMAT"
    paper.section("WHAT TO DO")
    paper.add("  measure what it costs before you decide; an error of a tensor is no loss yet", INDENT)
    paper.add()
    commands = [f"srdd impact --model {typed_model(report.model)} --quant {first}"]
    paper.items("NEXT", [*commands, f"srdd show{where} --stats", f"srdd report{where}"], " · ")
    paper.section("TRUST", "errors against measured KL: Spearman 0.37 and less on SmolLM2")
    return facts


def _where(paper: Paper, where: WorstLayers) -> None:
    metric = where.metric
    unit = f" {metric.unit}" if metric.unit else ""
    paper.section("WHERE", f"{name_of(where.spec)}, {_TITLES[where.kind]}: the worst by {metric.name}")
    values = [row.formats[where.spec].value(metric.name) for row in where.rows]
    digits = max(len(str(row.layer)) for row in where.rows)
    texts = [f"{metric.text(value)}{unit}" for value in values]
    number = max(map(len, texts))
    largest = max(map(abs, values)) or 1.0
    for row, value, text in zip(where.rows, values, texts, strict=True):
        bar = paper.bar(abs(value) / largest, paper.bar_room(30)) if metric.better == "down" else ""
        other = "sqnr_db" if metric.name == "relative_error" else "crest"
        beside = row.formats[where.spec].value(other)
        more = f"{BY_NAME[other].text(beside)} {BY_NAME[other].unit}" if math.isfinite(beside) else ""
        paper.add(f"  layer {row.layer:>{digits}}  {text:>{number}} {bar:<18}  {more}".rstrip())
    left = where.layers - len(where.rows)
    if left:
        paper.add(f"  {left} other{'s' if left > 1 else ''}")
