"""`srdd check`: the CI gate. Exit 0 passed, 1 a regression, 2 not comparable or not readable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from srdd.analysis.comparison.policy import Policy
    from srdd.documents.check import CheckResult
    from srdd.documents.opening import Opened
    from srdd.documents.report import Report


def check(
    new: Annotated[Path, typer.Argument(help="The new report; - reads standard input.")],
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="The report to compare with, or a slim baseline.")
    ] = None,
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
        str | None,
        typer.Option("--by", help="layer or module; by default what is given holds layers, what is built in modules."),
    ] = None,
    undecided: Annotated[
        str | None, typer.Option("--undecided", help="What is beyond its bound, but perhaps by chance: pass or fail.")
    ] = None,
    allow_different_model: Annotated[
        bool, typer.Option("--allow-different-model", help="Another architecture, depth or size: for format studies.")
    ] = False,
    allow_other_text: Annotated[
        bool, typer.Option("--allow-other-text", help="Another calibration text of the same sequence length.")
    ] = False,
    write_baseline: Annotated[
        Path | None,
        typer.Option("--write-baseline", help="Write --baseline slim, at most 100 kB; without it the report itself."),
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML.")] = None,
    summary: Annotated[Path | None, typer.Option("--summary", help="Write Markdown.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Also a table of every limit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The verdict for machines, on stdout.")] = False,
) -> None:
    """Gate a new checkpoint in CI: exit 0 when it holds its limits, 1 and the layer when not, 2 when not comparable.

    Example: srdd check new.json --baseline base.json --limit sqnr_db=-0.5 --junit gate.xml
    """
    from dataclasses import replace

    from srdd.analysis.comparison.gate import check as hold
    from srdd.analysis.comparison.policy import check_by, check_undecided
    from srdd.cli import console
    from srdd.core.files import check_new
    from srdd.documents.baseline import open_baseline
    from srdd.documents.opening import open_document
    from srdd.documents.report import Report
    from srdd.errors import NoEffectError, ReportError, SettingError, WriteError, setting
    from srdd.exporters.check.text import headline
    from srdd.exporters.terminal.check import show, show_table

    if str(new) == "-" and str(baseline) == "-":
        raise ReportError("the new report and the baseline cannot both be standard input")
    if verbose and as_json:
        raise NoEffectError("verbose", f"with {setting('json')}, which holds all of it")
    files = {"junit": junit, "summary": summary, "write_baseline": write_baseline}
    if force and not any(files.values()):
        raise NoEffectError("force", f"without {setting('junit')}, {setting('summary')} or {setting('write_baseline')}")
    for path in files.values():
        if path is not None:
            check_new(path, force=force)
    _refuse_the_same(files)
    alone = write_baseline is not None and baseline is None and not (policy or limit or floor)
    if alone and write_baseline is not None:
        given: dict[str, object] = {"kind": site, "spec": quant, "layers": layers, "by": by, "undecided": undecided}
        given |= {**files, "json": as_json or None, "verbose": verbose or None}
        unused = [name for name, value in given.items() if value is not None and name != "write_baseline"]
        if unused:
            raise NoEffectError(unused, f"without {setting('baseline')} or {setting('floor')}, which check something")
        _write_slim(write_baseline, open_document(new, Report), machine=False)
        return
    rules = _policy(policy, limit or [], floor or [], (site, quant, layers), baseline is not None)
    rules = rules if by is None else replace(rules, by=check_by(by))
    if undecided is not None and not rules.limits and not rules.are_defaults:
        raise NoEffectError("undecided", f"on floors alone, without {setting('limit')}")
    rules = rules if undecided is None else replace(rules, undecided=check_undecided(undecided))
    base = None if baseline is None else open_baseline(baseline)
    if write_baseline is not None and base is not None and not isinstance(base.document, Report):
        raise SettingError("write_baseline", write_baseline, f"{baseline} is a slim baseline already; copy it")
    made_slim = open_document(new, Report) if write_baseline is not None and base is None else base
    verdict = hold(
        Report.load(new) if made_slim is base or made_slim is None else made_slim.document,
        None if base is None else base.document,
        rules,
        allow_different_model=allow_different_model,
        allow_other_text=allow_other_text,
    )
    with console.deciding(headline(verdict)):
        if as_json:
            console.machine(verdict.model_dump_json(indent=1))
        else:
            people = console.people()
            show(people, verdict)
            if verbose:
                show_table(people, verdict)
    _write(verdict, junit, summary)
    if write_baseline is not None and made_slim is not None:
        try:
            _write_slim(write_baseline, made_slim, machine=True)
        except WriteError as error:
            console.problem(f"error: {error}")
    if not verdict.passed:
        raise typer.Exit(1)


def _refuse_the_same(files: dict[str, Path | None]) -> None:
    """Two files under one name. Raises SettingError."""
    from srdd.errors import SettingError, setting

    known: dict[Path, str] = {}
    for name, path in files.items():
        if path is not None and (first := known.setdefault(path.resolve(), name)) != name:
            raise SettingError(first, path, f"this and {setting(name)} are the same file; give two")


def _write_slim(path: Path, opened: Opened[Report], *, machine: bool) -> None:
    """The slim baseline of a report, and in a line what it is: on stdout, or beside what machines read there."""
    from rich.markup import escape

    from srdd.analysis.comparison.slim import slim
    from srdd.cli import console
    from srdd.core.files import write_text
    from srdd.documents.baseline import dumps
    from srdd.exporters.check.text import slim_text

    made = slim(opened.document, report_sha256=opened.sha256)
    text = dumps(made)
    write_text(path, text)
    out = console.aside() if machine else console.people()
    out.print(escape(f"{path}: {slim_text(made, len(text.encode()))}"))


def _write(verdict: CheckResult, junit: Path | None, summary: Path | None) -> None:
    """The verdict in the files that were asked for, and at the end of GitHub's page of the job where there is one.

    A place that cannot be written is found before the work; a disk that fills meanwhile does not change a verdict.
    """
    import os

    from srdd.cli import console
    from srdd.core.files import write_text
    from srdd.errors import WriteError
    from srdd.exporters.check import junit as junit_xml
    from srdd.exporters.check import markdown

    for path, render in ((junit, junit_xml.render), (summary, markdown.render)):
        if path is not None:
            try:
                write_text(path, render(verdict))
            except WriteError as error:
                console.problem(f"error: {error}")
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if not page:
        return
    try:
        with Path(page).open("a", encoding="utf-8") as file:
            file.write(markdown.render(verdict))
    except OSError as error:  # what the page lacks is no verdict on the checkpoint
        console.problem(f"GITHUB_STEP_SUMMARY not written: {error}")


def _policy(
    path: Path | None,
    limits: list[str],
    floors: list[str],
    scope: tuple[str | None, str | None, str | None],
    based: bool,
) -> Policy:
    """The policy file with the options added; the built-in limits when neither is given."""
    from srdd.analysis.comparison.policy import Policy, load_policy, parse_floor, parse_limit, scope_of
    from srdd.errors import NoEffectError, SettingError, setting

    limit, floor = setting("limit"), setting("floor")
    narrowing = [name for name, value in zip(("kind", "spec", "layers"), scope, strict=True) if value]
    if narrowing and path is not None and not limits and not floors:
        raise NoEffectError(narrowing, f"on a policy's own limits, without {limit} or {floor}")
    where = scope_of(*scope)
    written = Policy() if path is None else load_policy(path)
    policy = Policy(
        limits=(*written.limits, *(parse_limit(text, where) for text in limits)),
        floors=(*written.floors, *(parse_floor(text, where) for text in floors)),
        implausible_gain=written.implausible_gain,
        by=written.by,
        undecided=written.undecided,
    )
    if policy.limits or policy.floors:
        if based and not policy.limits:
            raise NoEffectError("baseline", f"on floors alone, without {limit}")
        return policy
    if not based:
        raise SettingError("baseline", None, f"nothing to check; give it, with or without {limit}, or give {floor}")
    return Policy(are_defaults=True, scope=where)
