"""A report as Markdown for a pull request or a meeting: verdict and worst ten first, details folded.

Names come from strangers' checkpoints: nothing in them may become a link, a mention, a heading, a cell or a tag.
"a|b <i>" is written "a\\|b &lt;i\\>".

Not here: judgements (srdd.analysis.overview).
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

from srdd.analysis.bundle import Bundle, View
from srdd.analysis.costs import MODE_NAMES, groups, linears, main_mode
from srdd.analysis.facts import facts, unsaid, warnings
from srdd.analysis.first_look import shown_metric, zones_of
from srdd.analysis.overview import KIND_TITLES, Overview, overview
from srdd.analysis.series import choose_kind, choose_kinds, choose_specs
from srdd.core.metrics import BY_NAME, MAIN, RANKED, significant
from srdd.documents.costs import Cost, Costs
from srdd.documents.experiment import Experiment
from srdd.documents.parts import Estimate, Kind
from srdd.documents.probe import Probe
from srdd.documents.report import Report
from srdd.documents.schema import Measurement
from srdd.exporters.next_steps import next_steps
from srdd.exporters.wording import conditions, limit_of, loss_of, measured_loss, unit_of

REPORT_SUFFIXES = (".md",)
USES = frozenset({"title", "metric", "kind", "formats", "impact", "zones", "baseline", "probe", "experiment"})
_COSTLIEST = 10
_TITLES = {
    "predicted_kl": "predicted KL",
    "measured_kl": "measured KL",
    "sqnr_db": "SQNR dB",
    "relative_error": "rel. error %",
    "deadzone_ratio": "zeroed %",
    "saturation_ratio": "clipped %",
}


def render(bundle: Bundle, view: View) -> str:
    """The document. Raises SettingError for a kind, format or metric that the report lacks."""
    report = bundle.report
    kind, specs = choose_kind(report, view.kind), choose_specs(report, view.formats)
    metric = shown_metric(report, kind, specs[0], view.metric)
    found = overview(bundle, kind, specs[0], zones_of(bundle, kind, specs[0], metric), metric if view.metric else None)
    lines = [f"# {text(view.title or f'srdd: {report.model.id}')}", ""]
    lines += [f"**{text(found.headline)}.** {text(found.sentence)}", ""]
    lines += _worst(found)
    lines += ["**How sure.**", "", *(f"- {text(said)}" for said in found.sure), ""]
    lines += ["**What next.**", ""]
    for place, step in enumerate(next_steps(bundle, found), 1):
        lines.append(f"{place}. {text(step.why)}" + (f" `{step.command}`" if step.command else ""))
    told = warnings(bundle, choose_kinds(report, None))
    lines += ["", "**Before you trust a number.**", "", *(f"- {text(said)}" for said in told), ""] if told else [""]
    lines += _costs(bundle.costs)
    lines += _linears(bundle.costs)
    lines += _breaks(bundle.probe, report)
    lines += _comparisons(bundle.experiment, report)
    lines += _folded("Formats of this report", _formats(found))
    lines += _folded("The scan", _table(["", ""], [[label, value] for label, value in facts(report)]))
    for other in choose_kinds(report, view.kind):
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
    of = "flagged layers" if found.worst_are_flagged else f"layers by {found.ordered_by}"
    if found.ranked_by:
        of = f"layers by {text(found.ranked_by)} (bold: they carry half of the cost)"
    known = [name for name in _TITLES if name in found.worst[0].values]
    names = [name for name in (found.ordered_by,) if name] + [name for name in known if name != found.ordered_by]
    rows = []
    for row in found.worst:
        cells = [_number(name, *row.values[name], bold=name in row.beyond) for name in names]
        rows.append([str(row.layer), *cells, text(row.cause)])
    why = "its dearest parts" if found.ranked_by else "why (its noise)"
    headings = ["layer", *(_TITLES.get(name, name) for name in names), why]
    limits = [f"A layer is beyond a limit (bold) when {text(', '.join(found.limits))}.", ""] if found.limits else []
    return [f"The {len(rows)} worst {of}:", "", *_table(headings, rows, escape=False), "", *limits]


def _number(name: str, value: float, error: float = math.nan, *, bold: bool = False) -> str:
    metric = RANKED[name]
    if metric.formula is None:
        shown = "-" if math.isnan(value) else significant(value, None if math.isnan(error) else error)
        return f"**{shown}**" if bold else shown
    shown = metric.text(value) if math.isnan(error) else f"{metric.text(value)} ± {metric.text(error)}"
    return f"**{shown}**" if bold else shown


def _formats(found: Overview) -> list[str]:
    candidates = found.advice.formats if found.advice else []
    rows = []
    for row in candidates:
        bits, share = f"{row.bits_per_value:g}" if row.bits_per_value else "?", f"{row.flagged} of {row.layers}"
        if found.ranked_by:
            rows.append([row.format, bits, _estimate(row.kl), share])
        else:
            verdict = "passes" if row.passes else "too many"
            rows.append([row.format, bits, BY_NAME["sqnr_db"].text(row.sqnr_db), share, verdict])
    if found.ranked_by:
        return _table(["format:rule", "bits a value", "KL nats/token", "layers with half of it"], rows)
    return _table(["format:rule", "bits a value", "mean SQNR dB", "layers beyond its limits", "verdict"], rows)


def _costs(costs: Costs | None) -> list[str]:
    if costs is None or not costs.whole:
        return []
    rows = []
    for row in costs.whole:
        change = costs.loss_change(row)
        rows.append(
            [
                row.format,
                MODE_NAMES[row.mode],
                f"{row.loss.value:.3f}",
                _or_dash(None if change is None else 100 * change.value, ".1f"),
                _estimate(row.kl),
                f"{100 * row.top1.value:.1f}",
            ]
        )
    headings = ["format", "quantized", "loss", "change %", "KL", "same top token %"]
    return ["**What it costs.**", "", *_table(headings, rows), ""]


def _linears(costs: Costs | None) -> list[str]:
    if costs is None:
        return []
    lines = []
    for spec in costs.settings.formats:
        rows, of, by = linears(costs, spec, _COSTLIEST)
        cells = [
            [
                row.module,
                *(f"{100 * row.output_error[m].value:.1f}" if m in row.output_error else "-" for m in MODE_NAMES),
                _or_dash(row.interaction, "+.2f"),
                *(_estimate(row.predicted_kl.get(m)) for m in MODE_NAMES),
            ]
            for row in rows
        ]
        headings = ["module", "output error % W", "A", "W+A", "interaction", "predicted KL W", "A", "W+A"]
        if cells:
            lines += _folded(f"Linears, {spec}: the {len(rows)} costliest of {of}, by {by}", _table(headings, cells))
    for spec in costs.settings.formats:
        found, of, by = groups(costs, spec, _COSTLIEST)
        mode = main_mode(costs, spec)
        title = f"Fusion groups, {spec}: the {len(found)} costliest of {of}, by {by}"
        cells = [
            [row.name, _estimate(row.measured_kl.get(mode)), _estimate(row.predicted_kl.get(mode))] for row in found
        ]
        if cells:
            lines += _folded(title, _table(["group", "measured KL", "predicted KL"], cells))
    return lines


def _breaks(probe: Probe | None, report: Report) -> list[str]:
    if probe is None:
        return []
    rows = [
        [
            row.mode,
            row.target,
            row.profile,
            _or_dash(row.sigma, ".3g"),
            "-" if row.interval is None else f"{row.interval[0]:.3g} to {row.interval[1]:.3g}",
            _or_dash(None if row.relative is None else 100 * row.relative, ".1f"),
            row.note,
        ]
        for row in probe.breaks
    ]
    headings = ["mode", "weights", "noise", "sigma", "95 % over seeds", "% of rms", "note"]
    more = [text(said) for said in (f"{unit_of(probe.settings)}.", *unsaid(report, probe.warnings))]
    title = f"How much noise it bears: {probe.settings.format}, {limit_of(probe.settings)}"
    return _folded(title, [*_table(headings, rows), "", *(f"- {said}" for said in more)])


def _comparisons(experiment: Experiment | None, report: Report) -> list[str]:
    if experiment is None:
        return []
    rows = [
        [
            f"{row.a} - {row.b}",
            _or_dash(row.difference, "+.4f"),
            "-" if row.interval is None else f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}",
            _or_dash(row.p, ".2g"),
            _or_dash(row.p_holm, ".2g"),
            row.verdict,
        ]
        for row in experiment.comparisons
    ]
    headings = ["comparison", "difference", "95 %", "p", "p (Holm)", "verdict"]
    arms = _table(["arm", "loss, mean ± std"], [[arm.name, loss_of(arm)] for arm in experiment.arms])
    more = [f"- {text(said)}" for said in (*unsaid(report, experiment.warnings), *conditions(experiment.settings))]
    verdict = f"**{text(experiment.verdict)}** ({text(measured_loss(experiment.settings))}, paired by seed)"
    return _folded("Does guided noise help", [verdict, "", *_table(headings, rows), "", *arms, "", *more])


def _estimate(given: Cost | Estimate | None) -> str:
    if given is None:
        return "-"
    return f"{given.value:.4f}" + ("" if given.error is None else f" ± {given.error:.4f}")


def _or_dash(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


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
