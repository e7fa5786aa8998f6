"""`srdd formats`: the formats, their values, rules and what they cost on Gaussian data."""

from __future__ import annotations

from typing import Annotated

import typer


def formats(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")] = False,
) -> None:
    """List every format: element values, block, scale rules and Gaussian baselines.

    Example: srdd formats
    """
    from srdd.cli import console
    from srdd.core.formats import ALL, FORMATS, SYNONYMS, Tile
    from srdd.core.gaussian import gaussian_metrics

    def sides(tile: Tile) -> list[float | None]:
        """Rows and columns under one scale; null: all there are."""
        return [None if side == ALL else side for side in tile]

    if as_json:
        rows = [
            {
                "name": row.name,
                "element": row.element.name,
                "element_max": row.element.max,
                "block": sides(row.tile),
                "weight_block": sides(row.weight_tile),
                "scale": row.scale.value,
                "default_rule": row.rule.value,
                "rules": [rule.value for rule in row.rules],
                "bits_per_value": row.bits_per_value,
                "stochastic": row.stochastic,
                "gaussian": {rule.value: gaussian_metrics(f"{row.name}:{rule.value}") for rule in row.rules},
            }
            for row in FORMATS.values()
        ]
        console.document("formats", {"formats": rows, "synonyms": SYNONYMS})
        return

    from srdd.exporters.terminal.formats import show

    show(console.people(), FORMATS.values())
