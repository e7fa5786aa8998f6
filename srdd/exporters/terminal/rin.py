"""The multipliers of a rin.yaml: a bar for every layer, its error, the schedule and what no noise reaches.

Not here: how they are found (srdd.analysis.multipliers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from srdd.analysis.breaks import source_in_words
from srdd.core.metrics import significant

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.analysis.series import Series
    from srdd.documents.rin import RinConfig

_BAR_WIDTH = 30
_CAVEAT = "No gain of guided over uniform noise is promised; compare them with several seeds."
_UNKNOWN = (
    "how much noise the model bears is not known here: scan it with costs, or `srdd probe` it. What a model with "
    "16-bit activations bears can break one with 4-bit activations."
)


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


def dose_lines(config: RinConfig) -> list[str]:
    """What the first noise costs, how loud it is, and how far from the break."""
    dose, start = config.dose, config.schedule.sigma_start
    if dose is None:
        return [_UNKNOWN]
    lines = []
    if dose.predicted_kl is not None:
        cost = significant(dose.predicted_kl.value, dose.predicted_kl.error)
        lines.append(f"at sigma {start:g} it costs {cost} nats a token, predicted to second order")
    if dose.rms_share is not None:
        lines.append(f"its rms is {100 * dose.rms_share:.2g} % of that of the weights")
    if dose.break_sigma is None:
        return [*lines, _UNKNOWN]
    between = f" ({dose.break_interval[0]:.3g} to {dose.break_interval[1]:.3g})" if dose.break_interval else ""
    breaking = f"{dose.break_sigma:.3g}{between}"
    return [
        *lines,
        f"the model breaks at sigma {breaking}, {source_in_words(dose)}: {start / dose.break_sigma:.2g} of it",
    ]


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
