"""The first screen of a report: VERDICT, WHERE, WHAT TO DO, NEXT, TRUST, at most 28 lines of 80 columns.

Where the facts need more than that, fewer layers, alternatives and modes are shown; what is left out is in
`srdd show --stats`.

Not here: the facts (srdd.analysis.screen), reports without costs (exporters/screen/classic.py), packed checkpoints
beside their originals (exporters/screen/stored.py), tables (report.py).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from srdd.analysis.screen import Firmness, Screen, Where, screen
from srdd.analysis.sensitivities import has_sensitivities
from srdd.analysis.short_names import inside_name, name_of
from srdd.analysis.stored import stored_facts
from srdd.analysis.trust import SPEARMAN
from srdd.analysis.verdicts import IDENTITY, Verdict, Word
from srdd.core.metrics import significant
from srdd.core.modes import Mode, mode_title
from srdd.documents.costs import Cost, GroupCost
from srdd.exporters.screen.choices import add_choices
from srdd.exporters.screen.classic import render_classic
from srdd.exporters.screen.layout import LINES, WIDTH, Paper, encoding_of
from srdd.exporters.screen.stored import render_stored

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.documents.report import Report

DEFAULT = "srdd-report.json"  # what commands read where no file is named
_SAYS: dict[Word, tuple[str, str]] = {
    "free": ("is free", "are free"),
    "small": ("costs little", "cost little"),
    "noticeable": ("costs noticeably", "cost noticeably"),
    "too much": ("costs too much as it is", "cost too much as they are"),
}


@dataclass(frozen=True)
class _Room:
    """How much is shown of what there may be much of."""

    layers: int = 4
    choices: int = 5
    modes: bool = True  # every mode of every format; else the main one
    formats: int = 99
    blanks: bool = True


_ROOMS = (
    _Room(),
    _Room(choices=4),
    _Room(layers=3, choices=4),
    _Room(layers=3, choices=4, modes=False),
    _Room(layers=3, choices=4, modes=False, formats=6),
    _Room(layers=3, choices=4, modes=False, formats=3),
    _Room(layers=2, choices=4, modes=False, formats=3, blanks=False),
)


def show(out: Console, report: Report, file: str = DEFAULT) -> None:
    """The screen; `file` is where the report lies, for the commands that read it."""
    render(report, file, encoding_of(out)).print(out)


def render(report: Report, file: str = DEFAULT, encoding: str = "utf-8") -> Paper:
    """The lines of the screen, the fullest that fits."""
    of_codes = stored_facts(report)
    if of_codes is not None:
        paper = Paper(encoding)
        paper.add(" · ".join(header(report)))
        add_notes(paper, render_stored(paper, report, of_codes, _argument(file)), file)
        return paper
    facts = screen(report)
    if facts is None or (facts.where is None and not facts.verdicts):
        paper = Paper(encoding)
        paper.add(" · ".join(header(report)))
        add_notes(paper, render_classic(paper, report, _argument(file)).notes, file)
        return paper
    for room in _ROOMS:
        paper = _page(report, facts, file, encoding, room)
        if len(paper.lines) <= LINES:
            break
    add_notes(paper, facts.notes, file)
    return paper


def _argument(file: str) -> str:
    """What a command needs to find the report: nothing where it looks anyway."""
    return "" if file == DEFAULT else f" {shlex.quote(file)}"


def _page(report: Report, facts: Screen, file: str, encoding: str, room: _Room) -> Paper:
    paper = Paper(encoding)
    paper.add(" · ".join(header(report)))
    _verdict(paper, facts, room)
    if facts.where is not None:
        _where(paper, facts.where, room)
        if room.blanks:
            paper.add()
        spec, mode = facts.where.spec, facts.where.mode
        word = next((v.word for v in facts.verdicts if (v.row.format, v.row.mode) == (spec, mode)), None)
        add_choices(paper, spec, word, facts.choices, room.choices)
    if room.blanks:
        paper.add()
    paper.items("NEXT", _commands(report, facts, file), " · ")
    paper.section("TRUST", _trust(facts.firmness))
    return paper


def header(report: Report) -> list[str]:
    """Which model, how large, on how many tokens, where and how long."""
    model, costs, calibration = report.model, report.costs, report.settings.calibration
    size = f"{model.layer_count} layers" if model.layer_count else "layers unknown"
    linears = {row.module for row in costs.linears} if costs else set()
    count = len(linears) or sum(site.kind == "weight" and site.layer is not None for site in report.sites)
    parts = [model.id, f"{size}, {count} Linears" if count else size]
    tokens = f"{calibration.tokens:,} tokens" if calibration and report.sites else ""
    priced = f"cost on {costs.settings.calibration.tokens:,}{'' if tokens else ' tokens'}" if costs else ""
    parts += [", ".join(text for text in (tokens, priced) if text)] if tokens or priced else []
    seconds = report.provenance.get("seconds")
    parts.append(report.settings.device)
    return parts + ([f"{seconds:.0f} s"] if isinstance(seconds, int | float) else [])


def _verdict(paper: Paper, facts: Screen, room: _Room) -> None:
    rows = facts.verdicts
    if room.blanks:
        paper.add()
    if not rows:
        paper.section("VERDICT", "the whole model was not measured: no loss, no KL of it")
        return
    known = list(dict.fromkeys(v.row.format for v in rows))
    paper.section("VERDICT", _headline(rows, known, facts.where.mode if facts.where else rows[0].row.mode))
    cells = [["", "", "bits", "loss", "KL nats/token", "same token"]]
    shown = known[: room.formats]
    for spec in shown:
        mine = sorted((v for v in rows if v.row.format == spec), key=lambda v: _ORDER.index(v.row.mode))
        mine = mine if room.modes else mine[:1]
        for place, v in enumerate(mine):
            loss = f"{v.row.loss.value:.2f}"
            cells.append(
                [
                    spec if not place else "",
                    mode_title(v.row.mode, spec),
                    f"{v.bits:.2f}" if v.bits else "-",
                    loss if facts.clean is None else f"{facts.clean.value:.2f} -> {loss}",
                    "no effect" if v.row.no_effect else significant(v.row.kl.value, v.row.kl.error),
                    _percent(v.row.top1),
                ]
            )
    paper.columns(cells)
    if len(shown) < len(known):
        paper.add(f"  and {len(known) - len(shown)} more: srdd show --stats")


_ORDER: tuple[Mode, ...] = ("both", "weight", "input")


def _headline(rows: tuple[Verdict, ...], known: list[str], mode: Mode) -> str:
    """ "mxfp4 W4A4 costs too much as it is; mxfp8 is free": formats of one word together, the first one first."""
    by_word: dict[Word, list[str]] = {}
    for v in rows:
        if v.row.mode == mode and v.row.format != IDENTITY:
            by_word.setdefault(v.word, []).append(v.row.format)
    said: list[str] = []
    for word, specs in by_word.items():
        names = [name_of(spec, known) for spec in specs]
        if not said:
            names[0] += f" {mode_title(mode, specs[0])}"
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        said.append(f"{listed} {_SAYS[word][len(names) > 1]}")
    return "; ".join(said) or "the identity alone was measured: it changes nothing"


def _percent(cost: Cost) -> str:
    value, error = 100 * cost.value, None if cost.error is None else 100 * cost.error
    digits = 0 if error is None or error >= 0.5 else 1
    return f"{value:.{digits}f} %" if error is None else f"{value:.{digits}f} ± {error:.{digits}f} %"


def _where(paper: Paper, where: Where, room: _Room) -> None:
    if room.blanks:
        paper.add()
    what = f"{name_of(where.spec)} {mode_title(where.mode, where.spec)}"
    paper.section("WHERE", f"{what}: {where.by} if only this is quantized")
    rows = where.rows[: room.layers]
    left = where.layers - len(rows)
    rest = where.rest + sum(row.cost for row in where.rows[room.layers :])
    digits = max(len(str(row.layer)) for row in rows)
    names = [f"layer {row.layer:>{digits}}" for row in rows] + [f"{left} other{'s' if left > 1 else ''}"] * (left > 0)
    costs = [significant(row.cost) for row in rows] + [significant(rest)] * (left > 0)
    wide, number = max(map(len, names)), max(map(len, costs))
    groups = [_groups(row.groups, WIDTH - 18 - wide - number) for row in rows]
    column = max(map(len, groups), default=0)
    room_for_bar = paper.bar_room(2 + wide + 2 + number + 1 + 2 + column + 2 + 7)
    for row, name, cost, mine in zip(rows, names, costs, groups, strict=False):
        share = row.cost / rows[0].cost if rows[0].cost > 0 else 0.0
        bar = paper.bar(share, room_for_bar)
        paper.add(f"  {name:<{wide}}  {cost:>{number}} {bar:<{room_for_bar}}  {mine:<{column}}  {row.blame}".rstrip())
    carry = (
        f"{where.half} of {where.groups} groups carr{'y' if where.half != 1 else 'ies'} half" if where.groups else ""
    )
    if left:
        start = f"  {names[-1]:<{wide}}  {costs[-1]:>{number}} "
        paper.add(f"{start}{'':<{room_for_bar}}  {carry}".rstrip())
    elif carry:
        paper.add(f"  {carry}")


def _groups(groups: tuple[GroupCost, ...], room: int) -> str:
    """The dearest, as many as fit, the first at least."""
    names = [inside_name(group) for group in groups]
    while len(names) > 1 and len(", ".join(names)) > room:
        names.pop()
    return ", ".join(names)


def _commands(report: Report, facts: Screen, file: str) -> list[str]:
    """Commands that exist, to be pasted; NEW is the reader's next report."""
    where = _argument(file)
    return [
        *([f"srdd advise{where}"] if facts.choices else []),
        f"srdd show{where} --stats",
        *([f"srdd report{where}"] if report.sites else []),
        *([f"srdd multipliers{where}"] if has_sensitivities(report) else []),
        f"srdd check NEW --baseline {shlex.quote(file)}",
    ]


def _trust(firmness: Firmness | None) -> str:
    if firmness is None:
        return f"predicted against measured KL: Spearman {SPEARMAN}"
    if firmness.units < 2:
        said = f"order untested: {'one text' if firmness.units else 'no values by sequence'}"
    elif firmness.layers:
        said = f"order firm above {significant(firmness.above)} (2 errors, {firmness.units} texts)"
    else:
        said = f"first two layers within 2 errors ({firmness.units} texts)"
    known = SPEARMAN if firmness.measured is None else f"{firmness.measured:.2f} here"
    return f"{said}; Spearman {known}"


def add_notes(paper: Paper, notes: tuple[str, ...], file: str) -> None:
    """As many as fit, each whole; then how many there are besides."""
    for place, note in enumerate(notes):
        before = list(paper.lines)
        paper.section("", note)
        left = len(notes) - place - 1
        if len(paper.lines) + (left > 0) > LINES:
            paper.lines = before
            if len(before) < LINES:
                count = left + 1
                paper.section(
                    "", f"{count} note{'s' if count > 1 else ''}{' more' if place else ''}: srdd show --stats"
                )
            return
