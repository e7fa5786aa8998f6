"""Tables of an experiment for people: arms, comparisons, one plain sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from srdd.experiment_document import ArmResult, Comparison, Experiment


def show(out: Console, document: Experiment) -> None:
    """Arms with mean ± std over seeds, comparisons with corrected p-values, and the verdict."""
    for warning in document.warnings:
        out.print(f"[yellow]warning:[/yellow] {escape(warning)}")
    settings = document.settings
    what = "loss under noise" if settings.kind == "inference" else "loss on held-out text after fine-tuning, no noise"
    table = Table(
        title=f"{escape(document.model.id)}, {settings.format} {settings.mode}, {settings.kind}: {what}, "
        f"{len(settings.seeds)} seeds",
        title_justify="left",
    )
    for heading in ("arm", "loss, mean ± std", "noise rms", "layers with noise"):
        table.add_column(heading, justify="right" if "±" in heading or "rms" in heading else "left")
    for arm in document.arms:
        table.add_row(arm.name, _loss(arm), f"{arm.noise_rms[0]:.3g}" if any(arm.noise_rms) else "-", _layers(arm))
    out.print(table)
    rows = Table(title="Differences, paired by seed; below 0: the first has the lower loss", title_justify="left")
    for heading in ("comparison", "difference", "95 %", "effect size", "p", "p (Holm)", "verdict"):
        rows.add_column(heading, justify="left" if heading in ("comparison", "verdict") else "right")
    for row in document.comparisons:
        rows.add_row(f"{row.a} - {row.b}", *_numbers(row), row.verdict)
    out.print(rows)
    if settings.train is not None:
        train = settings.train
        out.print(
            f"training: {train.steps} steps of {train.batch_size} sequences, {train.optimizer}, learning rate "
            f"{train.learning_rate:g}, sigma {settings.sigma_start:g} to {settings.sigma_end:g} ({train.schedule})"
        )
    if settings.fault is not None:
        fault = settings.fault
        out.print(f"planted fault: deadzone {fault['deadzone']:g} at the output of layer {fault['layer']:g}")
    out.print(f"[bold]{document.verdict}[/bold] (layers ranked by {escape(settings.ranked_by)})")


def _loss(arm: ArmResult) -> str:
    if arm.collapses:
        return f"collapsed in {arm.collapses} of {len(arm.losses)}"
    return f"{arm.mean:.4f} ± {arm.std:.4f}"


def _layers(arm: ArmResult) -> str:
    distinct = {tuple(layers) for layers in arm.layers}
    if len(distinct) > 1:
        return f"{len(arm.layers[0])}, drawn for each seed"
    (layers,) = distinct
    if not layers:
        return "none" if arm.name != "dither" else "the hidden state before the fault"
    return "all, and outside them" if arm.name == "global" else ", ".join(map(str, layers))


def _numbers(row: Comparison) -> list[str]:
    if row.difference is None:
        return ["-"] * 5
    cells = [f"{row.difference:+.4f}"]
    cells.append("-" if row.interval is None else f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}")
    values = ((row.effect_size, "+.2f"), (row.p, ".2g"), (row.p_holm, ".2g"))
    return [*cells, *("-" if value is None else format(value, spec) for value, spec in values)]
