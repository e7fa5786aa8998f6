"""How much noise a model bears: a table and a plot for every target and profile, where each mode breaks.

± is the standard error over seeds. The change of loss has the error over sequences beside it, because seeds alone do
not tell whether other text would show the same. Seeds draw stochastic rounding too: there the first row of a mode says
how far draws scatter without noise, the standard deviation of the loss.

Not here: measuring, and the sentences below the tables (srdd.exporters.wording).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srdd.core.metrics import significant
from srdd.documents.probe import Probe, Profile, Trial, over_seeds
from srdd.exporters.wording import dips, equal_damage, limit_of, profiles, unit_of

if TYPE_CHECKING:
    from rich.console import Console

_HEIGHT, _COLUMN = 12, 9  # of the plot: lines, and characters a sigma


def show(out: Console, document: Probe) -> None:
    """Sigma tables per mode, where each breaks, a plot, and what the small dips are worth."""
    for warning in document.warnings:
        out.print(f"[yellow]warning:[/yellow] {escape(warning)}")
    settings = document.settings
    for target in settings.targets:
        for profile in profiles(document, target):
            _table(out, document, target, profile)
            for line in _plot(document, target, profile):
                out.print(line, highlight=False, markup=False)
    _breaks(out, document)
    for line in (*equal_damage(document), *dips(document), *_drawn(document), unit_of(settings)):
        out.print(line, markup=False)


def _table(out: Console, document: Probe, target: str, profile: Profile) -> None:
    settings = document.settings
    table = Table(
        title=f"{escape(document.model.id)}, {settings.format}: {profile} noise on {target} weights, "
        f"{len(settings.seeds)} seed(s), {settings.calibration.tokens} tokens",
        title_justify="left",
    )
    for heading in ("mode", "sigma", "% of rms", "loss", "change ± seeds ± text", "entropy", "KL", "top-1 %"):
        table.add_column(heading, justify="left" if heading == "mode" else "right", no_wrap=True)
    for mode in settings.modes:
        base = next(b for b in document.baselines if b.mode == mode)
        loss, entropy = (_plain(v, 3) for v in (base.loss, base.entropy))
        spread = "" if base.spread is None else f"draws scatter {base.spread:.3f}"
        table.add_row(mode, "0", "0", loss, spread, entropy, "0", "100")
        for sigma in settings.sigmas[target]:
            trials = document.of(mode, target, profile, sigma)
            table.add_row("", f"{sigma:g}", f"{100 * trials[0].relative:.1f}", *_cells(trials))
        table.add_section()
    out.print(table)


def _cells(trials: Sequence[Trial]) -> list[str]:
    cells = [_mean([t.loss for t in trials], 3)]
    change = over_seeds([t.loss_change for t in trials])
    text = over_seeds([t.sequence_error for t in trials])
    if change is None:
        cells.append("collapsed")
    else:
        errors = (change[1], math.nan if text is None else text[0])
        cells.append(" ± ".join([f"{change[0]:+.3f}", *("-" if math.isnan(e) else f"{e:.3f}" for e in errors)]))
    kl = over_seeds([t.kl for t in trials])
    cells += [_mean([t.entropy for t in trials], 3), "-" if kl is None else significant(kl[0])]
    return [*cells, _mean([t.top1 for t in trials], 1, 100)]


def _drawn(document: Probe) -> list[str]:
    if not any(base.draws for base in document.baselines):
        return []
    count = len(document.settings.seeds)
    what = (
        "each noise is compared with the same draw; 'draws scatter' is the standard deviation of the loss without noise"
    )
    return [f"{count} draws of stochastic rounding, one a seed: {what}"]


def _breaks(out: Console, document: Probe) -> None:
    table = Table(title=f"Where it breaks: {limit_of(document.settings)}", title_justify="left")
    for heading in ("mode", "target", "profile", "sigma", "95 % over seeds", "% of rms", "note"):
        table.add_column(heading, justify="right" if heading in ("sigma", "95 % over seeds", "% of rms") else "left")
    for row in document.breaks:
        interval = "-" if row.interval is None else f"{row.interval[0]:.3g} to {row.interval[1]:.3g}"
        share = "-" if row.relative is None else f"{100 * row.relative:.1f}"
        sigma = "-" if row.sigma is None else f"{row.sigma:.3g}"
        table.add_row(row.mode, row.target, row.profile, sigma, interval, share, row.note)
    out.print(table)


def _plot(document: Probe, target: str, profile: Profile) -> list[str]:
    """Loss over sigma, a letter per mode; points on one another show the later mode."""
    sigmas = document.settings.sigmas[target]
    curves: dict[str, list[float | None]] = {}
    for mode in document.settings.modes:
        base = next(b.loss for b in document.baselines if b.mode == mode)
        means = [over_seeds([t.loss for t in document.of(mode, target, profile, s)]) for s in sigmas]
        curves[mode] = [base, *(None if m is None else m[0] for m in means)]
    values = [v for curve in curves.values() for v in curve if v is not None]
    if not values:
        return []
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    rows = [[" "] * (_COLUMN * (len(sigmas) + 1)) for _ in range(_HEIGHT)]
    letters = dict(zip(curves, "abcdefgh", strict=False))
    for mode, curve in curves.items():
        for place, value in enumerate(curve):
            height = _HEIGHT - 1 if value is None else round((_HEIGHT - 1) * (value - low) / span)
            rows[_HEIGHT - 1 - height][place * _COLUMN + _COLUMN // 2] = "*" if value is None else letters[mode]
    lines = [f"loss over sigma, {target}, {profile}: " + ", ".join(f"{x} {mode}" for mode, x in letters.items())]
    lines[0] += ", * collapsed" if any(None in curve for curve in curves.values()) else ""
    for index, row in enumerate(rows):
        label = f"{high - span * index / (_HEIGHT - 1):7.2f}" if index in (0, _HEIGHT // 2, _HEIGHT - 1) else " " * 7
        lines.append(f"{label} │{''.join(row)}".rstrip())
    lines.append(" " * 8 + "└" + "─" * (_COLUMN * (len(sigmas) + 1)))
    lines.append(" " * 9 + "".join(f"{s:^{_COLUMN}.3g}" for s in (0.0, *sigmas)).rstrip())
    return lines


def _mean(values: Sequence[float | None], digits: int, times: float = 1) -> str:
    found = over_seeds(values)
    return "-" if found is None else f"{times * found[0]:.{digits}f}"


def _plain(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
