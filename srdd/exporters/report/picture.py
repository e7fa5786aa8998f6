"""A report as one still picture for a paper: PNG, SVG or PDF, one figure each.

Formats differ in colour, dash and marker, so that a picture can be read in grey; colours are those of Okabe and Ito,
and cividis. The title says what is drawn: metric, kind of site, format, model. No date is written: same input, same
bytes.

A new figure is a function and its row in FIGURES.

Not here: numbers, and the page (html.py), which shows more.
"""

from __future__ import annotations

import io
import math
import warnings as python_warnings
from collections.abc import Callable
from typing import Any

from srdd.analysis.bundle import Bundle, View
from srdd.analysis.first_look import layer_numbers, shown_metric, zones_of
from srdd.analysis.layer_costs import Numbers
from srdd.analysis.overview import KIND_TITLES
from srdd.analysis.series import choose_kind, choose_specs
from srdd.analysis.site_costs import site_numbers
from srdd.core.gaussian import gaussian_metrics
from srdd.core.metrics import RANKED, Metric
from srdd.documents.parts import Kind
from srdd.documents.schema import Measurement
from srdd.documents.summary import merge_measurements
from srdd.errors import MissingExtraError, NoEffectError, ReportError, SettingError, setting

REPORT_SUFFIXES = (".png", ".svg", ".pdf")
USES = frozenset({"figure", "title", "metric", "kind", "formats", "zones", "baseline"})
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00")
_DASHES = ("-", ":", (0, (7, 2)), "-.", (0, (9, 2, 2, 2)), "-")
_MARKERS = ("o", "s", "D", "^", "x", "*")
_SETTINGS = {
    "font.size": 9,
    "text.parse_math": False,  # a name with $ is no formula
    "svg.hashsalt": "srdd",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}


def render(bundle: Bundle, view: View) -> bytes:
    """The picture. Raises SettingError, NoEffectError, MissingExtraError, and ReportError with nothing to draw."""
    name = view.figure or "profile"
    draw, needs = FIGURES.get(name, (None, frozenset()))
    if draw is None:
        raise SettingError("figure", name, f"expected one of {', '.join(FIGURES)}")
    for option, given in (("zones", bundle.zones), ("baseline", bundle.baseline), ("metric", view.metric)):
        if given is not None and option not in needs:
            users = ", ".join(other for other, (_, uses) in FIGURES.items() if option in uses)
            raise NoEffectError(option, f"on {setting('figure', name)} (only on {users})")
    try:
        import matplotlib
        from matplotlib.backends import backend_agg, backend_pdf, backend_svg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("pictures need matplotlib: pip install 'srdd[plots]'") from None
    canvases: dict[str, Any] = {
        ".png": backend_agg.FigureCanvasAgg,
        ".svg": backend_svg.FigureCanvasSVG,
        ".pdf": backend_pdf.FigureCanvasPdf,
    }
    undated: dict[str, dict[str, None]] = {
        ".png": {"Software": None},
        ".svg": {"Date": None},
        ".pdf": {"CreationDate": None},
    }
    suffix = view.suffix or ".png"
    out = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS), python_warnings.catch_warnings():
        python_warnings.filterwarnings("ignore", message="Glyph")  # a name in a script the font lacks
        figure = Figure(figsize=(8, 4.2))
        canvases[suffix](figure)
        draw(figure, _Subject(bundle, view))
        figure.savefig(out, format=suffix[1:], dpi=200, metadata=undated[suffix])
    return out.getvalue()


class _Subject:
    """What is drawn: the kind, formats and metric chosen, and the layers that have them."""

    def __init__(self, bundle: Bundle, view: View) -> None:
        self.bundle = bundle
        self.kind: Kind = choose_kind(bundle.report, view.kind)
        self.specs = choose_specs(bundle.report, view.formats)
        self.layers = [layer for layer in bundle.report.layers if layer.kind == self.kind]
        self.specs = [spec for spec in self.specs if any(spec in layer.formats for layer in self.layers)]
        if not self.specs:
            raise ReportError(
                f"the report has no layer with {self.kind} sites; scan with {setting('sites', self.kind)}"
            )
        self.metric: Metric = RANKED[shown_metric(bundle.report, self.kind, self.specs[0], view.metric)]
        self.of = "layers" if self.metric.formula is None else KIND_TITLES[self.kind]
        self.title = view.title

    def title_of(self, what: str) -> str:
        return self.title or f"{what}\n{_short(self.bundle.report.model.id)}"

    def numbers(self, spec: str) -> dict[int, Numbers]:
        return layer_numbers(self.bundle.report, self.kind, spec, self.metric)

    @property
    def axis(self) -> str:
        return f"{self.metric.name} {self.metric.unit}".strip()


def _profile(figure: Any, subject: _Subject) -> None:
    axes = figure.add_subplot()
    for place, spec in enumerate(subject.specs):
        _lines(axes, subject, spec, place)
    base = subject.bundle.baseline
    for place, spec in enumerate(subject.specs if base else []):
        assert base is not None
        rows = layer_numbers(base, subject.kind, spec, subject.metric)
        y = [_drawn(subject.metric, row.value(subject.metric.name)) for row in rows.values()]
        style = {"color": _COLOURS[place % 6], "marker": _MARKERS[place % 6], "markerfacecolor": "none"}
        axes.plot([*rows], y, "--", lw=0.7, alpha=0.7, ms=5, label=f"baseline, {spec}", **style)
    found = zones_of(subject.bundle, subject.kind, subject.specs[0], subject.metric.name)
    for index, zone in enumerate(found.zones if found and len(found.zones) > 1 else []):
        grey = "0.88" if index % 2 == 0 else "0.96"
        axes.axvspan(min(zone.layers) - 0.5, max(zone.layers) + 0.5, color=grey, zorder=0, lw=0)
        middle = (min(zone.layers) + max(zone.layers)) / 2
        axes.text(middle, 1.0, zone.label, transform=axes.get_xaxis_transform(), ha="center", va="top", color="0.35")
    _finish(axes, subject, f"{subject.metric.name}, {subject.of}")


def _lines(axes: Any, subject: _Subject, spec: str, place: int) -> None:
    """One format: its line, two standard errors as a band, Gaussian data dashed."""
    metric, rows = subject.metric, subject.numbers(spec)
    y = [_drawn(metric, row.value(metric.name)) for row in rows.values()]
    errors = [2 * _drawn(metric, row.error(metric.name)) for row in rows.values()]
    colour = _COLOURS[place % 6]
    axes.plot([*rows], y, linestyle=_DASHES[place % 6], marker=_MARKERS[place % 6], ms=4, color=colour, label=spec)
    if any(math.isfinite(error) for error in errors):
        low, high = [a - e for a, e in zip(y, errors, strict=True)], [a + e for a, e in zip(y, errors, strict=True)]
        axes.fill_between([*rows], low, high, color=colour, alpha=0.2, lw=0)
    usual = (gaussian_metrics(spec) or {}).get(metric.name)
    if usual is not None:
        axes.axhline(_drawn(metric, usual), color=colour, lw=0.9, dashes=(6, 4))


def _finish(axes: Any, subject: _Subject, what: str) -> None:
    axes.set_xlabel("decoder layer")
    axes.set_ylabel(subject.axis)
    axes.set_title(subject.title_of(what), fontsize=10)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.01)
    axes.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)


def _zones(figure: Any, subject: _Subject) -> None:
    """Every layer as a bar, in the shade and hatch of its zone, with the zone's name and label."""
    axes, spec, metric = figure.add_subplot(), subject.specs[0], subject.metric
    found = zones_of(subject.bundle, subject.kind, spec, metric.name)
    if found is None:
        raise ReportError(f"no zones: {metric.name} is not known for every layer under {spec}")
    of = subject.numbers(spec)
    shades, hatches = {"high": "#D55E00", "medium": "#999999", "low": "#0072B2"}, ("", "//", "xx", "..", "\\\\", "++")
    for index, zone in enumerate(found.zones):
        layers = [layer for layer in zone.layers if layer in of]
        values = [_drawn(metric, of[layer].value(metric.name)) for layer in layers]
        name = f"{zone.name} ({zone.span}): {zone.label}"
        style = {"color": shades[zone.label], "hatch": hatches[index % 6], "edgecolor": "white", "label": name}
        axes.bar(layers, values, width=0.85, **style)
    for cut in found.cuts:
        axes.axvline(cut.before_layer - 0.5, color="black", lw=1)
        where = axes.get_xaxis_transform()
        axes.text(cut.before_layer - 0.4, 1.0, f"{cut.stability:.0%}", transform=where, va="top", fontsize=8)
    _finish(axes, subject, f"Zones by {metric.name}, {subject.of}, {spec}")


def _heatmap(figure: Any, subject: _Subject) -> None:
    """Layer x role; several sites of one place are merged."""
    axes, spec, metric = figure.add_subplot(), subject.specs[0], subject.metric
    known = site_numbers(subject.bundle.report, subject.kind, spec, metric)
    sites = [site for site, _ in known]
    roles = list(dict.fromkeys(site.role for site in sites))
    layers: list[int | None] = [*sorted({site.layer for site in sites if site.layer is not None})]
    layers += [None] if any(site.layer is None for site in sites) else []
    places: dict[tuple[str, int | None], list[Numbers]] = {}
    for site, row in known:
        places.setdefault((site.role, site.layer), []).append(row)
    grid = [[_drawn(metric, _merged(places.get((role, layer)), metric)) for layer in layers] for role in roles]
    worse_is_dark = "cividis_r" if metric.better == "down" else "cividis"
    shown = axes.pcolormesh(grid, cmap=worse_is_dark, edgecolors="white", lw=0.4)
    figure.colorbar(shown, label=subject.axis)
    axes.set_yticks([place + 0.5 for place in range(len(roles))], [_short(role) for role in roles])
    step = max(1, len(layers) // 16)
    names = ["out" if layer is None else str(layer) for layer in layers]
    axes.set_xticks([place + 0.5 for place in range(0, len(layers), step)], names[::step])
    axes.invert_yaxis()
    axes.set_xlabel("decoder layer")
    axes.set_title(subject.title_of(f"{metric.name}, {KIND_TITLES[subject.kind]}, {spec}"), fontsize=10)


def _merged(parts: list[Numbers] | None, metric: Metric) -> float:
    if not parts:
        return math.nan
    measured = [part for part in parts if isinstance(part, Measurement)]
    return (merge_measurements(measured) if len(measured) > 1 else parts[0]).value(metric.name)


def _scatter(figure: Any, subject: _Subject) -> None:
    """Layers by SQNR and relative error, every one numbered; colour is the crest factor."""
    axes, spec = figure.add_subplot(), subject.specs[0]
    rows = [layer for layer in subject.layers if spec in layer.formats]
    metrics = RANKED["sqnr_db"], RANKED["relative_error"]
    x, y = ([_drawn(metric, layer.formats[spec].value(metric.name)) for layer in rows] for metric in metrics)
    crests = [layer.formats[spec].value("crest") for layer in rows]
    known = [math.log10(crest) if crest > 0 else math.nan for crest in crests]
    shown = axes.scatter(x, y, c=known, cmap="cividis_r", edgecolors="0.3", lw=0.5)
    figure.colorbar(shown, label="log10 of the crest factor")
    for layer, a, b in zip(rows, x, y, strict=True):
        if math.isfinite(a + b):
            axes.annotate(str(layer.layer), (a, b), xytext=(4, 3), textcoords="offset points", fontsize=7)
    usual = gaussian_metrics(spec)
    if usual is not None:
        axes.plot(usual["sqnr_db"], 100 * usual["relative_error"], "*", ms=12, color="#D55E00", label="Gaussian data")
        axes.legend(frameon=False)
    axes.set(xlabel="SQNR dB (higher is better)", ylabel="relative error % (lower is better)")
    axes.set_title(
        subject.title_of(f"SQNR against relative error, {KIND_TITLES[subject.kind]} by layer, {spec}"), fontsize=10
    )


def _drawn(metric: Metric, value: float) -> float:
    if not math.isfinite(value):
        return math.nan
    return 100 * value if metric.unit == "%" else value


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:29]}…{text[-29:]}"


# name -> the function and the options it has a use for
FIGURES: dict[str, tuple[Callable[[Any, _Subject], None], frozenset[str]]] = {
    "profile": (_profile, frozenset({"zones", "baseline", "metric"})),
    "heatmap": (_heatmap, frozenset({"metric"})),
    "scatter": (_scatter, frozenset()),
    "zones": (_zones, frozenset({"zones", "metric"})),
}
