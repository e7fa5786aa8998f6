"""`srdd schedule`: the noise of a rin.yaml over a training, step by step, before it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def schedule(
    document: Annotated[Path, typer.Argument(help="rin.yaml as `srdd multipliers --out` writes it.")],
    steps: Annotated[int, typer.Option("--steps", help="Optimizer steps of the whole training.")],
    layer: Annotated[int | None, typer.Option("--layer", help="Show the noise of this layer, phases included.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One sigma per step for machines, on stdout.")] = False,
) -> None:
    """Print and plot sigma over the steps of a training.

    Example: srdd schedule rin.yaml --steps 200
    """
    from srdd.cli import console
    from srdd.documents import schedule as course
    from srdd.documents.rin import load_rin
    from srdd.errors import SettingError
    from srdd.exporters.terminal.schedule import show

    config = load_rin(document)
    if steps < 1:
        raise SettingError("steps", steps, "expected 1 or more")
    if layer is not None and layer not in config.layer_multipliers:
        known = f"0 to {max(config.layer_multipliers)}"
        raise SettingError("layer", layer, f"{document} has layers {known}")
    factor = [1.0 if layer is None else course.multiplier(config, layer, None, step, steps) for step in range(steps)]
    values = [course.sigma(config.schedule, step, steps) * factor[step] for step in range(steps)]
    if as_json:
        console.document("schedule", {"total_steps": steps, "layer": layer, "sigma": values})
        return

    show(console.people(), config, values, layer)
