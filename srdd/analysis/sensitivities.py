"""What noise on weights costs, by layer: the traces of Fisher information that a report holds of its norms and Linears.

Noise of standard deviation sigma on weights whose traces add up to T costs about sigma^2 / 2 * T nats a token, to
second order. Traces add up over weights, because their noise is independent. With `relative`, sigma counts in units of
each weight's own rms, and a trace counts rms^2 times.

Not here: measuring them (srdd.runs.impact.sensitivity), their series (series.py), and how much noise to give (dose.py).

Worked number: two norms of a layer with traces 130 and 370: 500, so noise of 0.01 on both costs 0.025 nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from srdd.documents.costs import Cost, Sensitivity
from srdd.documents.report import Report
from srdd.documents.rin import EXCLUDE, Target
from srdd.errors import ReportError, setting

_KINDS: dict[Target, tuple[str, ...]] = {"rmsnorm": ("norm",), "linear": ("linear",), "both": ("norm", "linear")}


def sensitivities(report: Report, target: Target = "rmsnorm", exclude: Sequence[str] = EXCLUDE) -> list[Sensitivity]:
    """Those of the weights that get noise. Raises ReportError when the report holds none of a kind."""
    rows = report.costs.sensitivities if report.costs is not None else []
    for kind in _KINDS[target]:
        if not any(row.kind == kind for row in rows):
            how = setting("noise_on", "both" if target == "both" else kind)
            raise ReportError(f"no noise sensitivity of {kind}s in this report; scan again with costs and {how}")
    return [
        row
        for row in rows
        if row.kind in _KINDS[target]
        and not any(fnmatchcase(row.name.rpartition(".")[0], pattern) for pattern in exclude)
    ]


def has_sensitivities(report: Report, target: Target = "rmsnorm") -> bool:
    """Whether the report holds those of every kind that gets noise."""
    known = {row.kind for row in report.costs.sensitivities} if report.costs is not None else set()
    return known >= set(_KINDS[target])


def by_layer(report: Report, target: Target = "rmsnorm", *, relative: bool = False) -> dict[int, Cost]:
    """The sum over the weights of each layer that get noise, in order. Raises ReportError as `sensitivities` does."""
    rows: dict[int, list[Sensitivity]] = {}
    for row in sensitivities(report, target):
        if row.layer is not None:
            rows.setdefault(row.layer, []).append(row)
    if not rows:
        raise ReportError("the noise sensitivities of this report belong to no layer")
    sums = {
        layer: summed({row.name: unit(row, relative=relative) for row in rows[layer]}, rows[layer])
        for layer in sorted(rows)
    }
    dead = [layer for layer, cost in sums.items() if not 0 < cost.value < math.inf]
    if dead:
        raise ReportError(f"noise on layer(s) {', '.join(map(str, dead[:8]))} was measured to cost nothing at all")
    return sums


def unit(row: Sensitivity, *, relative: bool) -> float:
    """What one sigma is in the weight's own units."""
    return row.rms if relative else 1.0


def summed(factors: Mapping[str, float], rows: Sequence[Sensitivity]) -> Cost:
    """The traces added up, each times its squared factor by name, sequence by sequence where all know theirs."""
    squares = [factors[row.name] ** 2 for row in rows]
    counts = {len(row.trace.sequences or []) for row in rows}
    if len(counts) == 1 and counts != {0}:
        known = [row.trace.sequences or [] for row in rows]
        texts = range(counts.pop())
        sums = [math.fsum(f * values[at] for f, values in zip(squares, known, strict=True)) for at in texts]
        return Cost.of(sums, rows[0].trace.unit_of)
    return Cost(value=math.fsum(f * row.trace.value for f, row in zip(squares, rows, strict=True)))
