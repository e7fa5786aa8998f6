"""The multipliers of a rin.yaml: a bar for every layer, its error, the schedule and what no noise reaches.

Not here: how they are found (srdd.analysis.multipliers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from srdd.exporters.dose import dose_lines

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.analysis.series import Series
    from srdd.documents.rin import RinConfig

_BAR_WIDTH = 30
_CAVEAT = "No gain of guided over uniform noise is promised; compare them with several seeds."


def show(out: Console, config: RinConfig, series: Series) -> None:
    """Every layer with its error in `series`, what the strategy decided, and what the numbers cannot tell."""
    _layers(out, config, series)
    size = "times each weight's own rms, " if config.relative else ""
    out.print(
        f"{config.provenance.strategy}: {_course(config)}, {size}on {config.target} weights; the layer's factor "
        "multiplies it"
    )
    for line in dose_lines(config):
        out.print(f"  {line}")
    for note in config.provenance.notes:
        out.print(f"  {escape(note)}")
    if config.feeds is not None:
        attention, mlp, unfed = (", ".join(names) or "nothing" for names in vars(config.feeds).values())
        out.print(f"the attention norm feeds {attention}; the MLP norm {mlp}; no norm, and so no noise: {unfed}")
    out.print(f"[yellow]note:[/yellow] {_CAVEAT}")


def _layers(out: Console, config: RinConfig, series: Series) -> None:
    metric = series.metric
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


def _course(config: RinConfig) -> str:
    """ "sigma 0.05 to 0.0005 in 10 stages (the first silent)"."""
    schedule = config.schedule
    course = {
        "staged": f"sigma {schedule.sigma_start:g} to {schedule.sigma_end:g} in {schedule.num_stages} stages",
        "linear": f"sigma {schedule.sigma_start:g} to {schedule.sigma_end:g} in a straight line",
        "constant": f"sigma {schedule.sigma_start:g} throughout",
    }[schedule.kind]
    if schedule.warmup_share:
        return f"{course}, the first {schedule.warmup_share:.0%} silent"
    return f"{course} (the first silent)" if schedule.num_stages and schedule.warmup_share is None else course
