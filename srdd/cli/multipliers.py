"""`srdd multipliers`: relative noise per layer, as a document that trainers read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.rin import RinConfig, Schedule
    from srdd.series import Series

FORMS = ("yaml", "json", "hydra", "verl-fork")
_BAR_WIDTH = 30
_CAVEAT = (
    "Multipliers tell where, not how much: a sigma that a model with 16-bit activations bears can break one with 4-bit "
    "activations. No gain of guided over uniform noise is promised; compare them with several seeds."
)


def multipliers(
    report: Annotated[Path, typer.Argument(help="The report; - reads standard input.")] = Path("srdd-report.json"),
    out: Annotated[Path | None, typer.Option("--out", help="Write the document, e.g. rin.yaml.")] = None,
    strategy: Annotated[
        str,
        typer.Option("--strategy", help="global, variable, inverse, ceiling, targeted, tiered, phased or lr."),
    ] = "variable",
    site: Annotated[str | None, typer.Option("--site", help="weight, input or output (default: output).")] = None,
    quant: Annotated[str | None, typer.Option("--quant", help="A format of the report (default: its first).")] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="The metric that guides. [default: relative_error]")
    ] = None,
    normalize: Annotated[
        str | None, typer.Option("--normalize", help="mean, max or rms of the multipliers is 1 (default mean).")
    ] = None,
    clamp: Annotated[str | None, typer.Option("--clamp", help="LO,HI: limits after normalising.")] = None,
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
    sigma_start: Annotated[float, typer.Option("--sigma-start", help="First noise level.")] = 0.05,
    sigma_end: Annotated[
        float | None, typer.Option("--sigma-end", help="Last noise level (default 0.0005; constant: sigma-start).")
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
    chosen: Annotated[
        str | None, typer.Option("--format", help="yaml, json, hydra or verl-fork (default: by --out's suffix).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --out when it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The document for machines, on stdout.")] = False,
) -> None:
    """Turn a report into relative noise per layer (RIN) for trainers.

    Example: srdd multipliers srdd-report.json --strategy variable --clamp 0.5,2 --out rin.yaml
    """
    from importlib.metadata import version

    from srdd.cli import console, outputs
    from srdd.errors import OptionError
    from srdd.guidance import guide
    from srdd.multipliers import Choices
    from srdd.report import read

    form = _form(chosen, out, as_json)
    outputs.check(out, force)
    choices = Choices(normalize, _clamp(clamp), worst, above, scheme, _factors(factor), phase_at)
    schedule = _schedule(schedule_kind, sigma_start, sigma_end, num_stages, warmup)
    if strategy == "global" and metric is not None:
        raise OptionError(f"--metric {metric} has no effect on global, which gives every layer the same; leave it out")
    document, sha256 = read(report)
    metric = "relative_error" if metric is None else metric
    config, series = guide(
        document,
        sha256,
        version("srdd"),
        site=site,
        quant=quant,
        metric=metric,
        strategy=strategy,
        choices=choices,
        schedule=schedule,
        target=target,  # type: ignore[arg-type]  # guide refuses what is none
        relative=relative,
    )
    text = _render(config, form)
    if out is not None:
        outputs.write(out, text)
    if form == "hydra":
        from srdd.exporters.hydra import WARNING

        console.problem(f"warning: {WARNING}")
    if as_json or (out is None and chosen):
        console.machine(_render(config, "json") if as_json else text)
        return
    people = console.people()
    outputs.about(people, document, series)
    show(people, series, config)
    if out is not None:
        people.print(f"{form}: {out}")


def show(out: Console, series: Series, config: RinConfig) -> None:
    """A bar per layer, what the strategy decided, which modules no noise reaches, and what the numbers cannot tell."""
    from rich.markup import escape

    metric, schedule = series.metric, config.schedule
    values = zip(series.layers, series.values, series.standard_errors, strict=True)
    errors = {layer: f"{metric.text(v)} ± {metric.text(e)}" if e == e else metric.text(v) for layer, v, e in values}
    largest = max(config.layer_multipliers.values())
    unit = f" {metric.unit}" if metric.unit else ""
    columns: list[str] = [*(config.norm_multipliers or {})]
    columns += ["learning rate"] * (config.lr_multipliers is not None)
    columns += [f"from {phase.from_share:.0%}" for phase in config.phases]
    heading = "".join(f"{name:>14}" for name in columns)
    out.print(f"[bold]layer  {metric.name + unit:>18}  multiplier{'':<{_BAR_WIDTH - 2}}{heading}[/bold]")
    for layer, multiplier in config.layer_multipliers.items():
        bar = "█" * round(_BAR_WIDTH * multiplier / largest)
        extra = [values.get(layer) for values in (config.norm_multipliers or {}).values()]
        extra += [config.lr_multipliers[layer]] if config.lr_multipliers else []
        extra += [phase.layer_factors[layer] for phase in config.phases]
        cells = "".join(f"{'-' if value is None else f'{value:.3f}':>14}" for value in extra)
        out.print(f"{layer:5d}  {errors[layer]:>18}  [cyan]{bar:<{_BAR_WIDTH}}[/cyan] {multiplier:.3f}{cells}")
    course = {
        "staged": f"sigma {schedule.sigma_start:g} to {schedule.sigma_end:g} in {schedule.num_stages} stages",
        "linear": f"sigma {schedule.sigma_start:g} to {schedule.sigma_end:g} in a straight line",
        "constant": f"sigma {schedule.sigma_start:g} throughout",
    }[schedule.kind]
    silent = f", the first {schedule.warmup_share:.0%} silent" if schedule.warmup_share else ""
    silent = " (the first silent)" if schedule.num_stages and schedule.warmup_share is None else silent
    size = "times each weight's own rms, " if config.relative else ""
    out.print(
        f"{config.provenance.strategy}: {course}{silent}, {size}on {config.target} weights; the layer's factor "
        "multiplies it"
    )
    for note in config.provenance.notes:
        out.print(f"  {escape(note)}")
    if config.feeds is not None:
        attention, mlp, unfed = (", ".join(names) or "nothing" for names in vars(config.feeds).values())
        out.print(f"the attention norm feeds {attention}; the MLP norm {mlp}; no norm, and so no noise: {unfed}")
    out.print(f"[yellow]note:[/yellow] {_CAVEAT}")


def _render(config: RinConfig, form: str) -> str:
    from srdd.exporters import hydra, structured, verl_fork

    if form == "hydra":
        return hydra.render(config)
    return verl_fork.render(config) if form == "verl-fork" else structured.render(config, form)


def _form(form: str | None, out: Path | None, as_json: bool) -> str:
    from srdd.errors import OptionError
    from srdd.exporters.structured import form_of

    if form is None:
        return form_of(out.suffix) if out else "yaml"
    if as_json and out is None:
        raise OptionError("--json and --format both write to stdout; give one, or --out for the file")
    if form not in FORMS:
        raise OptionError(f"--format {form}: expected one of {', '.join(FORMS)}")
    return form


def _schedule(
    kind: str, sigma_start: float, sigma_end: float | None, num_stages: int | None, warmup: float | None
) -> Schedule:
    from pydantic import ValidationError

    from srdd.errors import OptionError
    from srdd.rin import Schedule

    if sigma_end is None:
        sigma_end = sigma_start if kind == "constant" else 0.0005
    if num_stages is None and kind == "staged":
        num_stages = 10
    try:
        return Schedule(
            kind=kind,  # type: ignore[arg-type]  # pydantic refuses what is none
            sigma_start=sigma_start,
            sigma_end=sigma_end,
            num_stages=num_stages,
            warmup_share=warmup,
        )
    except ValidationError as problem:
        first = problem.errors()[0]
        place = {"warmup_share": "--warmup", "kind": f"--schedule {kind}"}.get(str(first["loc"][0]), first["loc"][0])
        raise OptionError(f"{place}: {first['msg']}") from problem


def _clamp(text: str | None) -> tuple[float, float] | None:
    from srdd.errors import OptionError

    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise OptionError(f"--clamp {text!r}: expected two numbers LO,HI, e.g. 0.5,2") from None
    return low, high


def _factors(texts: list[str] | None) -> dict[str, float] | None:
    from srdd.errors import OptionError

    factors = {}
    for text in texts or ():
        name, equals, number = text.rpartition("=")
        try:
            factors[name.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise OptionError(f"--factor {text!r}: expected ZONE=NUMBER, e.g. high=1.5")
    return factors or None
