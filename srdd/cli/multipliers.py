"""`srdd multipliers`: relative noise per layer, as a document that trainers read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srdd.cli import options
from srdd.exporters.rin import rin_exporters

if TYPE_CHECKING:
    from srdd.documents.rin import RinConfig


def forms() -> list[str]:
    """What --format takes: the document's own forms, then those of trainers."""
    return ["yaml", "json", *rin_exporters()]


def _format_help() -> str:
    *others, last = forms()
    return f"{', '.join(others)} or {last} (default: by --out's suffix)."


def multipliers(
    report: Annotated[Path, typer.Argument(help="The report; - reads standard input.")] = Path("srdd-report.json"),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the document, e.g. rin.yaml.")] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            help="global, variable, inverse, equal-damage, ceiling, targeted, tiered, phased or lr "
            "(default: inverse by a cost, variable by an error).",
        ),
    ] = None,
    site: Annotated[str | None, typer.Option("--site", help=options.SITE)] = None,
    quant: Annotated[str | None, typer.Option("--quant", help="A format of the report (default: its first).")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help=options.METRIC)] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode", help="Of a cost and of --probe: both (w4a4), weight (w4a16), input ... (default: both)."
        ),
    ] = None,
    normalize: Annotated[
        str | None, typer.Option("--normalize", help="mean, max or rms of the multipliers is 1 (default mean).")
    ] = None,
    clamp: Annotated[
        str | None,
        typer.Option("--clamp", help="LO,HI after normalising, or none (variable, inverse: 0.5,2)."),
    ] = None,
    worst: Annotated[int | None, typer.Option("--worst", help="targeted: so many layers (default: a quarter).")] = None,
    above: Annotated[
        float | None, typer.Option("--above", help="targeted: layers with an error beyond this, e.g. 0.38.")
    ] = None,
    scheme: Annotated[
        str | None, typer.Option("--scheme", help="tiered, phased, lr: zones, as `srdd zones --scheme`.")
    ] = None,
    factor: Annotated[
        list[str] | None,
        typer.Option("--factor", help="tiered, phased, lr: ZONE=VALUE; ZONE is a name, edges, or high, medium, low."),
    ] = None,
    phase_at: Annotated[
        float | None, typer.Option("--phase-at", help="phased: share of the training (default 0.5).")
    ] = None,
    noise_kl: Annotated[
        float | None,
        typer.Option("--noise-kl", help="The first noise may cost so many nats a token (default 0.05, where known)."),
    ] = None,
    probe: Annotated[
        Path | None, typer.Option("--probe", help="srdd-probe.json: the first noise is a share of its break.")
    ] = None,
    safety: Annotated[float | None, typer.Option("--safety", help="That share (default 0.5).")] = None,
    sigma_start: Annotated[
        float | None, typer.Option("--sigma-start", help="First noise level (default: by --noise-kl, else 0.01).")
    ] = None,
    sigma_end: Annotated[
        float | None, typer.Option("--sigma-end", help="Last noise level (default: a hundredth; constant: the first).")
    ] = None,
    num_stages: Annotated[
        int | None, typer.Option("--num-stages", help="staged: stages, the first silent (default 10).")
    ] = None,
    schedule_kind: Annotated[
        str, typer.Option("--schedule", help="staged (QeRL's geometric decay), linear or constant.")
    ] = "staged",
    warmup: Annotated[
        float | None, typer.Option("--warmup", help="Silent share of the training (default: the first stage, or none).")
    ] = None,
    relative: Annotated[
        bool, typer.Option("--relative", help="sigma counts in units of each weight's own root mean square.")
    ] = False,
    target: Annotated[str, typer.Option("--target", help="What gets noise: rmsnorm, linear or both.")] = "rmsnorm",
    chosen: Annotated[str | None, typer.Option("--format", help=_format_help())] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace --out when it exists; take noise beyond half of the break.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The document for machines, on stdout.")] = False,
) -> None:
    """Turn a report into noise for trainers (RIN): how much, and how much of it in which layer.

    Example: srdd multipliers srdd-report.json --strategy equal-damage --out rin.yaml
    """
    from srdd.analysis.breaks import is_breaking, refuse_breaking
    from srdd.analysis.dose import Amount, Course
    from srdd.analysis.multipliers import find_multipliers
    from srdd.analysis.strategies import StrategyOptions
    from srdd.cli import console, outputs
    from srdd.documents.opening import open_document
    from srdd.documents.probe import Probe
    from srdd.documents.report import Report
    from srdd.errors import NoEffectError, setting
    from srdd.exporters.terminal.rin import show

    form = _form(chosen, out, as_json)
    if out is not None:
        outputs.check(out, force)
    strategy_options = StrategyOptions(normalize, _clamp(clamp), worst, above, scheme, _factors(factor), phase_at)
    course = Course(schedule_kind, sigma_start, sigma_end, num_stages, warmup)
    unused = [name for name, value in (("metric", metric), ("mode", mode)) if value is not None]
    if strategy == "global" and unused and probe is None:
        raise NoEffectError(unused, "on global, which gives every layer the same")
    opened = open_document(report, Report)
    document, sha256 = opened.document, opened.sha256
    probed = None if probe is None else open_document(probe, Probe).document
    config, series = find_multipliers(
        document,
        sha256,
        kind=site,
        spec=quant,
        metric=metric,
        mode=mode,
        strategy=strategy,
        options=strategy_options,
        course=course,
        amount=Amount(noise_kl, probed, safety=safety),
        target=target,  # type: ignore[arg-type]  # find_multipliers refuses any other
        relative=relative,
    )
    if not force:
        refuse_breaking(config)
    elif out is None and not is_breaking(config):
        raise NoEffectError("force", f"without {setting('out')}, on a sigma that breaks nothing")
    text = _render(config, form)
    if out is not None:
        outputs.write(out, text)
    if warning := getattr(rin_exporters().get(form), "WARNING", None):
        console.problem(f"warning: {warning}")
    if as_json or (out is None and chosen):
        console.machine(_render(config, "json") if as_json else text)
        return

    people = console.people()
    outputs.about(people, document, series)
    show(people, config, series)
    if out is not None:
        console.aside().print(f"{form}: {out}")


def _render(config: RinConfig, form: str) -> str:
    from srdd.documents import saving

    exporter = rin_exporters().get(form)
    return exporter.render(config) if exporter is not None else saving.render(config, form)


def _form(form: str | None, out: Path | None, as_json: bool) -> str:
    from srdd.documents.saving import form_of
    from srdd.errors import ConflictError, SettingError, setting

    if form is None:
        return form_of(out.suffix) if out else "yaml"
    if as_json and out is None:
        raise ConflictError("json", "form", f"both write to stdout; give one, or {setting('out')} for the file")
    if form not in forms():
        raise SettingError("form", form, f"expected one of {', '.join(forms())}")
    return form


def _clamp(text: str | None) -> tuple[float, float] | None:
    from srdd.analysis.strategies import NO_CLAMP
    from srdd.errors import SettingError

    if text is None:
        return None
    if text == "none":
        return NO_CLAMP
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise SettingError("clamp", repr(text), "expected two numbers LO,HI, e.g. 0.5,2") from None
    return low, high


def _factors(texts: list[str] | None) -> dict[str, float] | None:
    from srdd.errors import SettingError

    factors = {}
    for text in texts or ():
        name, equals, number = text.rpartition("=")
        try:
            factors[name.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise SettingError("factors", repr(text), "expected ZONE=NUMBER, e.g. high=1.5")
    return factors or None
