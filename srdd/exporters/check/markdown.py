"""A verdict as Markdown, for a pull request or a job's summary page: regressions first, then every case."""

from __future__ import annotations

from srdd.documents.check import CheckResult
from srdd.exporters.check.text import closest_text, failures, implausible_text, limit_text, undecided_text


def render(verdict: CheckResult) -> str:
    """Heading, failures, then a table of every case."""
    word = "passed" if verdict.passed else "FAILED"
    against = f" against {_cell(verdict.baseline)}" if verdict.baseline else ""
    lines = [f"## srdd check {word}: {_cell(verdict.new)}{against}", ""]
    lines += [f"- **{_cell(problem)}**" for problem in verdict.problems]
    lines += [f"- {_cell(line)}" for line in failures(verdict.cases, 10)]
    lines += [f"- {_cell(implausible_text(case, f))}" for case in verdict.cases for f in case.implausible[:3]]
    lines += [f"- {_cell(undecided_text(case, f))}" for case in verdict.cases for f in case.undecided[:3]]
    lines += ["", "| | sites | format | limit | checked | failed | closest |"]
    lines += ["| --- | --- | --- | --- | ---: | ---: | --- |"]
    for case in verdict.cases:
        mark = "ok" if case.passed else "**failed**"
        counts = (str(case.checked), str(len(case.failures)))
        cells = (mark, case.kind, case.shown_format, limit_text(case), *counts, closest_text(case))
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    lines += ["", *(f"- note: {_cell(note)}" for note in verdict.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str | None) -> str:
    """Names come from strangers' checkpoints: nothing in them may end a cell or open a tag."""
    escaped = (text or "").replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(escaped.split())
