"""`srdd check`: the CI gate. Exit 0 passed, 1 a regression, 2 not comparable or not readable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srdd.exporters.terminal.check import show

if TYPE_CHECKING:
    from srdd.analysis.comparison.policy import Policy


def check(
    new: Annotated[Path, typer.Argument(help="The new report; - reads standard input.")],
    baseline: Annotated[Path | None, typer.Option("--baseline", help="The report to compare with.")] = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="Limits and floors from TOML.")] = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", help="How much worse, e.g. sqnr_db=-0.5, relative_error=+5%.")
    ] = None,
    floor: Annotated[
        list[str] | None, typer.Option("--floor", help="An absolute bound, no baseline needed, e.g. sqnr_db=15.")
    ] = None,
    site: Annotated[str | None, typer.Option("--site", help="--limit and --floor only for these sites.")] = None,
    quant: Annotated[str | None, typer.Option("--quant", help="--limit and --floor only for this format.")] = None,
    layers: Annotated[str | None, typer.Option("--layers", help="--limit and --floor only here, e.g. 0-3,29.")] = None,
    by: Annotated[
        str | None, typer.Option("--by", help="Check each layer (default) or each module, which may hide in its layer.")
    ] = None,
    allow_different_model: Annotated[
        bool, typer.Option("--allow-different-model", help="Another architecture, depth or size: for format studies.")
    ] = False,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML.")] = None,
    summary: Annotated[Path | None, typer.Option("--summary", help="Write Markdown.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --junit and --summary when they exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The verdict for machines, on stdout.")] = False,
) -> None:
    """Gate a new checkpoint in CI: exit 0 when it holds its limits, 1 and the layer when not, 2 when not comparable.

    Example: srdd check new.json --baseline base.json --limit sqnr_db=-0.5 --junit gate.xml
    """
    import os
    from dataclasses import replace

    from srdd.analysis.comparison.gate import check as hold
    from srdd.analysis.comparison.policy import check_by
    from srdd.cli import console
    from srdd.core.files import check_new, write_text
    from srdd.documents.report import Report
    from srdd.errors import OptionError

    if str(new) == "-" and str(baseline) == "-":
        raise OptionError("the new report and the baseline cannot both be standard input")
    if force and junit is None and summary is None:
        raise OptionError("--force has no effect without --junit or --summary")
    if junit is not None and summary is not None and junit.resolve() == summary.resolve():
        raise OptionError(f"--junit and --summary are the same file, {junit}; give two")
    rules = _policy(policy, limit or [], floor or [], (site, quant, layers), baseline is not None)
    rules = rules if by is None else replace(rules, by=check_by(by, "--by"))
    for path in (junit, summary):
        if path is not None:
            check_new(path, force=force)
    base = None if baseline is None else Report.load(baseline)
    verdict = hold(Report.load(new), base, rules, allow_different_model=allow_different_model)
    if junit is not None:
        from srdd.exporters.check import junit as junit_xml

        write_text(junit, junit_xml.render(verdict))
    if summary is not None:
        from srdd.exporters.check import markdown as gate_markdown

        write_text(summary, gate_markdown.render(verdict))
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if page:
        from srdd.exporters.check import markdown as gate_markdown

        try:
            with Path(page).open("a", encoding="utf-8") as file:
                file.write(gate_markdown.render(verdict))
        except OSError as error:  # a traceback would exit 1 and look like a regression
            console.problem(f"GITHUB_STEP_SUMMARY not written: {error}")
    if as_json:
        console.machine(verdict.model_dump_json(indent=1))
    else:
        show(console.people(), verdict)
    if not verdict.passed:
        raise typer.Exit(1)


def _policy(
    path: Path | None,
    limits: list[str],
    floors: list[str],
    scope: tuple[str | None, str | None, str | None],
    based: bool,
) -> Policy:
    """The policy file with the options added; the built-in limits when neither is given."""
    from srdd.analysis.comparison.policy import DEFAULTS, Policy, load, parse_floor, parse_limit, scope_of
    from srdd.errors import OptionError

    if any(scope) and not limits and not floors:
        raise OptionError("--site, --quant and --layers narrow --limit and --floor; give one of those")
    where = scope_of(*scope)
    written = Policy() if path is None else load(path)
    policy = Policy(
        limits=(*written.limits, *(parse_limit(text, where) for text in limits)),
        floors=(*written.floors, *(parse_floor(text, where) for text in floors)),
        implausible_gain=written.implausible_gain,
        by=written.by,
    )
    if policy.limits or policy.floors:
        if based and not policy.limits:
            raise OptionError("--baseline has no effect on floors; give --limit too, or leave it out")
        return policy
    if not based:
        raise OptionError("nothing to check: give --baseline, with or without --limit, or --floor")
    return Policy(limits=DEFAULTS, are_defaults=True)
