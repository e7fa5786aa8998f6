"""A report as Markdown for a pull request or a meeting: verdict and worst ten first, details folded.

Not here: judgements (overview.py). Names come from strangers' checkpoints: nothing in them may become a link, a
mention, a heading, a cell or a tag. Worked number: "a|b <i>" is written "a\\|b &lt;i\\>".
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

from srdd.bundle import Bundle, Choices
from srdd.metrics import BY_NAME, MAIN
from srdd.overview import KIND_TITLES, Overview, main_metric, overview, zones_of
from srdd.page_facts import facts, warnings
from srdd.report import Report
from srdd.schema import Kind, Measurement
from srdd.series import choose_kind, choose_kinds, choose_metric, choose_specs

REPORT_SUFFIXES = (".md",)
USES = frozenset({"title", "metric", "site", "quant", "impact", "zones", "baseline"})
_TITLES = {"sqnr_db": "SQNR dB", "relative_error": "rel. error %"} | {
    "deadzone_ratio": "zeroed %",
    "saturation_ratio": "clipped %",
}


def render(bundle: Bundle, choices: Choices) -> str:
    """The document. Raises OptionError for a kind, format or metric that the report lacks."""
    report = bundle.report
    kind, specs = choose_kind(report, choices.site), choose_specs(report, choices.quant)
    layers = [layer for layer in report.layers if layer.kind == kind and specs[0] in layer.formats]
    metric = choose_metric(choices.metric).name if choices.metric else main_metric(layers, specs[0])
    found = overview(bundle, kind, specs[0], zones_of(bundle, kind, specs[0], metric))
    lines = [f"# {text(choices.title or f'srdd: {report.model.id}')}", ""]
    lines += [f"**{text(found.headline)}.** {text(found.sentence)}", ""]
    lines += _worst(found)
    lines += ["**How sure.**", "", *(f"- {text(said)}" for said in found.sure), ""]
    lines += ["**What next.**", ""]
    for place, step in enumerate(found.steps, 1):
        lines.append(f"{place}. {text(step.why)}" + (f" `{step.command}`" if step.command else ""))
    told = warnings(bundle, choose_kinds(report, None))
    lines += ["", "**Before you trust a number.**", "", *(f"- {text(said)}" for said in told), ""] if told else [""]
    lines += _costs(bundle)
    lines += _folded("Formats of this report", _formats(found))
    lines += _folded("The scan", _table(["", ""], [[label, value] for label, value in facts(report)]))
    for other in choose_kinds(report, choices.site):
        for spec in specs:
            title = f"Layers: {KIND_TITLES[other]}, {spec}"
            lines += _folded(title, _layers(report, bundle.baseline, other, spec))
    return "\n".join(lines).rstrip() + "\n"


def text(given: str) -> str:
    """Plain text that stays plain: no tags, links, mentions, references, emphasis or cells."""
    line = " ".join(given.split()).replace("&", "&amp;").replace("<", "&lt;").replace("@", "&#64;")
    line = re.sub(r"([\\`*_\[\]#|>~!$])", r"\\\1", line)
    return re.sub(r"(?i)(https?|ftp|www)([:.])", lambda m: f"{m[1]}&#{ord(m[2])};", line)


def _worst(found: Overview) -> list[str]:
    if not found.worst:
        return []
    of = "flagged layers" if found.worst_are_flagged else "layers (none is beyond a limit)"
    rows = []
    for row in found.worst:
        cells = [_number(name, *row.values[name], bold=name in row.beyond) for name in MAIN]
        rows.append([str(row.layer), *cells, text(row.cause)])
    headings = ["layer", *(_TITLES[name] for name in MAIN), "why (its noise)"]
    limits = [f"A layer is beyond a limit (bold) when {text(', '.join(found.limits))}.", ""] if found.limits else []
    return [f"The {len(rows)} worst {of}:", "", *_table(headings, rows, escape=False), "", *limits]


def _number(name: str, value: float, error: float = math.nan, *, bold: bool = False) -> str:
    metric = BY_NAME[name]
    shown = metric.text(value) if math.isnan(error) else f"{metric.text(value)} ± {metric.text(error)}"
    return f"**{shown}**" if bold else shown


def _formats(found: Overview) -> list[str]:
    rows = [
        [
            row.format,
            f"{row.bits_per_value:g}" if row.bits_per_value else "?",
            BY_NAME["sqnr_db"].text(row.sqnr_db),
            f"{row.flagged} of {row.layers}",
            "passes" if row.passes else "too many",
        ]
        for row in (found.advice.formats if found.advice else [])
    ]
    return _table(["format:rule", "bits a value", "mean SQNR dB", "layers beyond its limits", "verdict"], rows)


def _costs(bundle: Bundle) -> list[str]:
    if bundle.impact is None or not bundle.impact.whole:
        return []
    points = {"weight": "W", "input": "A", "both": "W+A"}
    rows = [
        [
            row.format,
            points[row.point],
            f"{row.loss.value:.3f}",
            f"{100 * row.loss_change.value:.1f}",
            f"{row.kl.value:.4f}" + (f" ± {row.kl.error:.4f}" if row.kl.error is not None else ""),
            f"{100 * row.top1.value:.1f}",
        ]
        for row in bundle.impact.whole
    ]
    headings = ["format", "quantized", "loss", "change %", "KL", "same top token %"]
    return ["**What it costs.**", "", *_table(headings, rows), ""]


def _layers(report: Report, baseline: Report | None, kind: Kind, spec: str) -> list[str]:
    rows = [layer for layer in report.layers if layer.kind == kind and spec in layer.formats]
    before = {
        layer.layer: layer.formats.get(spec) for layer in (baseline.layers if baseline else []) if layer.kind == kind
    }
    headings = ["layer", *(_TITLES[name] for name in MAIN), *(["baseline SQNR dB"] if baseline else [])]
    body = []
    for row in rows:
        measured = row.formats[spec]
        old = before.get(row.layer)
        cells = [_cell(measured, name) for name in MAIN]
        body.append([str(row.layer), *cells, *([_cell(old, "sqnr_db") if old else "-"] if baseline else [])])
    return _table(headings, body, escape=False)


def _cell(measured: Measurement, name: str) -> str:
    return _number(name, measured.value(name), measured.error(name) if measured.sequences else math.nan)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, escape: bool = True) -> list[str]:
    lines = [f"| {' | '.join(headings)} |", f"| {' | '.join('---' for _ in headings)} |"]
    return lines + [f"| {' | '.join(text(cell) if escape else cell for cell in row)} |" for row in rows]


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    """The title stands in HTML, where a backslash would be shown."""
    return [f"<details><summary>{html.escape(' '.join(title.split()))}</summary>", "", *lines, "", "</details>", ""]
