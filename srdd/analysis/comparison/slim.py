"""A report made slim: what a gate needs of it, at most 100 kB for 30 layers under three formats.

It keeps the metrics of `STEPS_IN_1` for every site and whole layer, each with its scatter over at most 16 units of
text, marks that tell which tensor changed, and the costs of layers and of the whole model. It does not keep sums,
counts of blocks, other metrics, and costs of single Linears: limits on these need the report.

Not here: the file (srdd.documents.baseline), and how the gate reads it (recalled.py).

Worked number: 211 weights, 121 inputs and 30 outputs under three formats are 1,086 measurements of some 5 values.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from srdd.analysis.comparison.dead import dead_rows
from srdd.analysis.comparison.marks import mark_of
from srdd.analysis.comparison.older import told
from srdd.analysis.comparison.pairing import By, measured
from srdd.core.layers import span
from srdd.core.metrics import BY_NAME
from srdd.core.uncertainty import means_without_each
from srdd.documents.baseline import (
    LAYER,
    MOST_UNITS,
    PAIRED,
    STEPS_IN_1,
    Baseline,
    Columns,
    LayerRows,
    Marks,
    SlimCosts,
    Steps,
    Table,
    WholeRow,
    is_small,
)
from srdd.documents.costs import Cost, Costs
from srdd.documents.packed import join, pack
from srdd.documents.parts import Calibration, Kind
from srdd.documents.report import Report
from srdd.documents.schema import Measurement, Site
from srdd.errors import ReportError

_DIGITS_OF_A_WEIGHT = 14  # less than what adding in another order changes
_DIGITS_OF_AN_ACTIVATION = 7
_DIGITS_OF_A_SUM = 9  # that may cancel, after the first digit of the sum of magnitudes
_DIGITS_OF_A_COST = 7
_DIGITS_OF_AN_RMS = 5
_UNSEEN = 0.01  # steps of a value: a scatter below that is none

Place = tuple[int | None, str]  # layer and name


def slim(report: Report, *, report_sha256: str | None = None) -> Baseline:
    """The slim baseline of a report. Raises ReportError for one without sums, as of version 0."""
    if not report.has_sums:
        raise ReportError(f"the report of {report.model.id} holds no sums, so no slim baseline is made; scan again")
    most, *fewer = MOST_UNITS
    made = _in_units(report, most, report_sha256)
    for most in fewer:
        if is_small(made):
            break
        made = _in_units(report, most, report_sha256)
    return made


def _in_units(report: Report, most: int, report_sha256: str | None) -> Baseline:
    """Of so many units of text at most."""
    of_sites = _fewer(report.settings.calibration, most)
    of_costs = _fewer(report.costs.settings.calibration, most) if report.costs is not None else {}
    report = told(report, of_sites, of_costs)
    error_steps = {spec: _error_steps(report, spec) for spec in report.settings.formats}
    return Baseline(
        srdd=version("srdd"),
        report_sha256=report_sha256,
        model=report.model,
        settings=report.settings,
        uncovered=report.coverage.uncovered,
        error_steps=error_steps,
        regrouped=bool(of_sites or of_costs),
        tables=_tables(report, error_steps, most),
        marks=_marks(report),
        costs=None if report.costs is None else _costs(report.costs),
    )


def _fewer(calibration: Calibration | None, most: int) -> dict[str, list[Any]]:
    """Documents that take neighbouring units together, where there are more than so many."""
    if calibration is None or calibration.units <= most:
        return {}
    unit_of = calibration.unit_of or range(calibration.units)
    groups = [f"group {unit * most // calibration.units}" for unit in unit_of]
    return {"documents": groups, "offsets": calibration.offsets or [0] * len(groups)}


def _error_steps(report: Report, spec: str) -> int:
    """How many steps of the relative error make 1: so many that the largest has four digits."""
    found = (site.formats[spec].value("relative_error") for site in report.sites if spec in site.formats)
    largest = max((value for value in found if math.isfinite(value)), default=0.0)
    digits = 0 if largest <= 0 else -math.floor(math.log10(largest))
    return int(10 ** min(max(3 + digits, 0), 9))


def _tables(report: Report, error_steps: Mapping[str, int], most: int) -> list[Table]:
    tables = []
    for kind in report.settings.kinds:
        counts = [site.layer for site in report.sites if site.kind == kind and site.layer is not None]
        ways: list[By] = ["module", "layer"] if len(counts) > len(set(counts)) else ["module"]
        for by in ways:
            formats = {spec: measured(report, kind, spec, by) for spec in report.settings.formats}
            # those outside the layers are modules
            known = [place for rows in formats.values() for place in rows if by == "module" or place[0] is not None]
            alike: dict[tuple[str, ...], list[Place]] = defaultdict(list)
            for place in dict.fromkeys(known):
                alike[tuple(spec for spec, rows in formats.items() if place in rows)].append(place)
            for specs, same in alike.items():
                for names, places in _by_name(same):
                    columns = {}
                    for spec in specs:
                        steps = STEPS_IN_1 | {"relative_error": error_steps[spec]}
                        rows = [formats[spec][place] for place in places]
                        columns[spec] = _columns(rows, steps, most)
                        first = [formats[specs[0]][place] for place in places]
                        if kind == "weight" and by == "module" and _rms(rows) != _rms(first):
                            columns[spec].rms = _rms(rows)
                    tables.append(Table(kind=kind, by=by, formats=columns, **names))
    return tables


def _by_name(places: Iterable[Place]) -> list[tuple[dict[str, Any], list[Place]]]:
    """Places whose names differ in the layer's number alone, under one name; others each under their own."""
    alike: dict[str, list[Place]] = defaultdict(list)
    single = []
    for layer, name in places:
        template = _template(layer, name)
        if template is None:
            single.append(({"name": name, "layer": layer}, [(layer, name)]))
        else:
            alike[template].append((layer, name))
    made = []
    for template, found in alike.items():
        found = sorted(found, key=lambda place: place[0] or 0)
        made.append(({"name": template, "layers": span([layer for layer, _ in found if layer is not None])}, found))
    return made + single


def _template(layer: int | None, name: str) -> str | None:
    """ "model.layers.{layer}.mlp.up_proj"; None where the layer's number is no part of the name."""
    if layer is None or LAYER in name:
        return None
    for end in (" ", "."):
        parts = name.split(end)
        if str(layer) in parts:
            parts[parts.index(str(layer))] = LAYER
            return end.join(parts)
    return None


def _columns(row: Sequence[Measurement], steps: Mapping[str, int], most: int) -> Columns:
    values: dict[str, Any] = {}
    each: dict[str, str] = {}
    for metric, in_1 in steps.items():
        column = [_steps(metric, one.value(metric), in_1) for one in row]
        if all(one is None for one in column):
            continue
        values[metric] = _offsets(column)
        words = [pack(_few(one, metric, most), _UNSEEN / in_1) if metric in PAIRED else "" for one in row]
        if any(words):
            each[metric] = join(words)
    return Columns(values=values, each=each)


def _few(one: Measurement, metric: str, most: int) -> list[float]:
    """A metric without each unit; of an expert that saw its own choice of many sequences, a few neighbours together."""
    if one.units > most:
        one = one.model_copy()
        count = len(one.sequences or ())
        one.group(tuple(place * most // count for place in range(count)))
    return one.without_each(BY_NAME[metric])


def _offsets(column: Sequence[Steps]) -> list[Steps]:
    """The least of a column, then how much more each is."""
    if len(set(column)) == 1:
        return [column[0]]
    least = min((value for value in column if isinstance(value, int)), default=0)
    return [least, *(value - least if isinstance(value, int) else value for value in column)]


def _steps(metric: str, value: float, per_one: int) -> Steps:
    """A value in whole steps, to the worse side."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "exact"
    if BY_NAME[metric].better == "up":
        steps = math.floor(value * per_one)
        return steps - (steps / per_one > value)
    steps = math.ceil(value * per_one)
    return steps + (steps / per_one < value)


def _rms(rows: Sequence[Measurement]) -> list[float | None]:
    values = [row.value("rms") for row in rows]
    return [None if math.isnan(value) else _rounded(value, _DIGITS_OF_AN_RMS) for value in values]


def _marks(report: Report) -> list[Marks]:
    marks = []
    for kind in report.settings.kinds:
        spec = report.settings.formats[0]
        sites = {(site.layer, site.name): site for site in report.sites if site.kind == kind and site.formats}
        for names, places in _by_name(sites):
            marks.append(_mark(kind, spec, names, [sites[place] for place in places]))
    return marks


def _mark(kind: Kind, spec: str, names: dict[str, Any], sites: Sequence[Site]) -> Marks:
    found = [mark for site in sites if (mark := mark_of(site, spec)) is not None]
    digits = _DIGITS_OF_A_WEIGHT if kind == "weight" else _DIGITS_OF_AN_ACTIVATION
    kept: dict[str, Any] = {
        "sum_x": [_to_share(mark.sum_x, mark.sum_abs_x) for mark in found],
        "sum_abs_x": [_rounded(mark.sum_abs_x, digits) for mark in found],
    }
    if kind == "weight":
        dead = {str(place): rows for place, site in enumerate(sites) if (rows := dead_rows(site))[0]}
        kept |= {
            "digests": " ".join(mark.digest for mark in found),
            "worst": [mark.worst for mark in found],
            "order": [None if mark.order is None else _rounded(mark.order, _DIGITS_OF_AN_ACTIVATION) for mark in found],
            "rms": _rms([next(iter(site.formats.values())) for site in sites]),
            "dead": dead,
        }
    else:
        kept |= {
            "sum_x4": [_rounded(mark.sum_x4 or 0.0, digits) for mark in found],
        }
    return Marks(kind=kind, format=spec, **names, **kept)


def _to_share(value: float, of: float) -> float:
    """Rounded to a small share of the sum of magnitudes, by which sums of values are compared."""
    return value if of <= 0 else round(value, -math.floor(math.log10(of)) + _DIGITS_OF_A_SUM)


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _costs(costs: Costs) -> SlimCosts:
    whole = [
        WholeRow(
            format=row.format,
            mode=row.mode,
            no_effect=row.no_effect,
            kl=_units(row.kl, up=True),
            loss=_units(row.loss, up=True),
            top1=_units(row.top1, up=False),
        )
        for row in costs.whole
        if row.kl.sequences  # version 1 kept none
    ]
    tables: dict[tuple[str, Any, Any], dict[int, Cost]] = defaultdict(dict)
    for row in costs.layers:
        for name, cost in (("predicted_kl", row.predicted_kl), ("measured_kl", row.measured_kl)):
            if cost is not None and cost.sequences:
                tables[row.format, row.mode, name][row.layer] = cost
    return SlimCosts(
        settings=costs.settings.model_copy(update={"left_out": []}),
        whole=whole,
        layers=[
            LayerRows(
                format=spec,
                mode=mode,
                cost=name,
                layers=span(sorted(rows)),
                values=[_worse(rows[layer].value, 5, up=True) for layer in sorted(rows)],
                each=join([pack(_without(rows[layer])) for layer in sorted(rows)]),
            )
            for (spec, mode, name), rows in tables.items()
        ],
    )


def _without(cost: Cost) -> list[float]:
    return means_without_each(cost.sequences, cost.unit_of) if cost.sequences else []


def _units(cost: Cost, *, up: bool) -> list[float]:
    return [_worse(cost.value, _DIGITS_OF_A_COST, up=up), *(_rounded(one, _DIGITS_OF_A_COST) for one in cost.by_unit)]


def _worse(value: float, digits: int, *, up: bool) -> float:
    """Rounded, but never to the better side."""
    near = _rounded(value, digits)
    if value == 0 or (near >= value if up else near <= value):
        return near
    step = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1)
    return _rounded(near + step if up else near - step, digits)
