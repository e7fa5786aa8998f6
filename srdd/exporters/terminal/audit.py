"""An audit: the verdict in a line, errors, warnings, and a table of formats by role. Nothing is cut at 80 columns.

Not here: the rules (srdd.analysis.audit).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from srdd.documents.audit import Audit, Finding

_SHOWN = 5  # of a kind; all of them are in --json


def headline(document: Audit) -> str:
    """The verdict: "FOUND 3 problems in 211 modules: fusion 2, scales 1", or "CLEAN 211 modules"."""
    modules = _many(len(document.modules), "module")
    warned = _many(len(document.warnings), "warning")
    if document.errors:
        kinds = Counter(finding.kind for finding in document.errors)
        told = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
        rest = f"; {warned}" if document.warnings else ""
        return f"FOUND {_many(len(document.errors), 'problem')} in {modules}: {told}{rest}"
    packed = sum(module.packed for module in document.modules)
    forms = sorted({module.form for module in document.modules if module.packed})
    held = f"{packed} of {modules} packed ({', '.join(forms)})" if packed else f"{modules}, nothing is packed"
    return f"CLEAN {held}" + (f"; {warned}" if document.warnings else "")


def show(out: Console, document: Audit) -> None:
    """The verdict, what is wrong by kind, and what is stored how."""
    first, _, rest = headline(document).partition(" ")
    colour = "green" if document.passed else "red"
    out.print(f"[bold {colour}]{first}[/bold {colour}] {escape(rest)}", soft_wrap=True)
    for findings, called, tint in ((document.errors, "ERROR", "red"), (document.warnings, "warning", "yellow")):
        by_kind: dict[str, list[Finding]] = defaultdict(list)
        for finding in findings:
            by_kind[finding.kind].append(finding)
        for kind, of_kind in by_kind.items():
            _show_kind(out, f"[{tint}]{called}[/{tint}] {kind}", of_kind)
    out.print(_formats(document))
    provenance = document.provenance
    if provenance.config is not None:
        out.print(f"config: {provenance.config} ({escape(provenance.method or 'unnamed')})", soft_wrap=True)
    if provenance.reference is not None:
        out.print(f"reference: {escape(provenance.reference.id)}", soft_wrap=True)
    for note in document.notes:
        out.print(f"note: {escape(note)}", soft_wrap=True)


def _show_kind(out: Console, title: str, findings: Sequence[Finding]) -> None:
    for finding in findings[:_SHOWN]:
        out.print(f"{title}: {escape(finding.module)}", soft_wrap=True)
        out.print(f"  found     {escape(finding.found)}", soft_wrap=True)
        out.print(f"  expected  {escape(finding.expected)}", soft_wrap=True)
        out.print(f"  do        {escape(finding.advice)}", soft_wrap=True)
    if len(findings) > _SHOWN:
        out.print(f"{title}: and {len(findings) - _SHOWN} more (--json has all)", soft_wrap=True)


def _formats(document: Audit) -> Table:
    """How many modules of each role are in each format, in the order of the file."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for module in document.modules:
        counts[module.role][module.form] += 1
    worst: dict[tuple[str, str], float] = {}
    for module in document.modules:
        if module.relative_rms is not None:
            key = (module.role, module.form)
            worst[key] = max(worst.get(key, 0.0), module.relative_rms)
    table = Table(title="Formats by role", title_justify="left")
    table.add_column("role", overflow="fold")
    table.add_column("format", overflow="fold")
    table.add_column("modules", justify="right")
    if worst:
        table.add_column("worst error\nto reference", justify="right")
    for role, forms in counts.items():
        for at, (form, count) in enumerate(forms.most_common()):
            error = worst.get((role, form))
            cells = [escape(role) if at == 0 else "", escape(form), str(count)]
            table.add_row(*cells, *(["-" if error is None else f"{100 * error:.3g} %"] if worst else []))
    return table


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
