"""The formats: what each is made of, what every scale rule costs on Gaussian data, and the values of its elements.

Not here: the formats themselves (srdd.core.formats).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

from rich.table import Table

from srdd.core.formats import ALL, ELEMENTS, BlockFormat, Tile
from srdd.core.gaussian import gaussian_metrics

if TYPE_CHECKING:
    from rich.console import Console


def show(out: Console, formats: Collection[BlockFormat]) -> None:
    """A row for every format and rule, the default rule first; then the elements."""
    table = Table(title="Formats (write NAME or NAME:RULE, e.g. mxfp4:floor; the default rule stands first)")
    for heading in ("format", "element", "block"):
        table.add_column(heading, no_wrap=True)
    table.add_column("bits", justify="right", no_wrap=True)
    for heading in ("scale", "rule"):
        table.add_column(heading, no_wrap=True)
    for heading in ("SQNR dB", "rel. error %", "zeroed %", "clipped %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for fmt in formats:
        _add(table, fmt)
    out.print(table)
    out.print("Baselines: standard normal data. `ocp` is a synonym of floor; mxfp8 of mxfp8_e4m3.")
    others = [f"{_shape(fmt.tile)} in {fmt.name}" for fmt in formats if fmt.tile != fmt.weight_tile]
    out.print(f"Blocks and bits are a weight's; an input's block is {', '.join(others)}.\n" if others else "")
    _elements(out)


def _add(table: Table, fmt: BlockFormat) -> None:
    facts = (
        fmt.name,
        fmt.element.name,
        _shape(fmt.weight_tile),
        f"{fmt.bits_per_value:g}",
        fmt.scale.value,
    )
    rules = sorted(fmt.rules, key=lambda rule: rule is not fmt.rule)
    for index, rule in enumerate(rules):
        numbers = gaussian_metrics(f"{fmt.name}:{rule.value}") or {}
        shares = (numbers.get(name, math.nan) for name in ("relative_error", "deadzone_ratio", "saturation_ratio"))
        table.add_row(
            *(facts if index == 0 else ("",) * len(facts)),
            rule.value,
            f"{numbers.get('sqnr_db', math.nan):.2f}",
            *(f"{100 * share:.2f}" for share in shares),
            end_section=index == len(rules) - 1,
        )


def _shape(tile: Tile) -> str:
    """1x32, or in words: a row is an output channel of a weight, a token of an input."""
    return {(1, ALL): "a row", (ALL, ALL): "a tensor"}.get(tile) or f"{tile[0]}x{tile[1]}"


def _elements(out: Console) -> None:
    table = Table(title="Element values (magnitudes)")
    for heading in ("element", "bits", "max", "values"):
        table.add_column(heading)
    for element in ELEMENTS:
        grid = [f"{value:g}" for value in element.magnitudes]
        shown = " ".join(grid) if len(grid) <= 8 else f"{' '.join(grid[:6])} ... {' '.join(grid[-3:])}  ({len(grid)})"
        table.add_row(element.name, str(element.bits), f"{element.max:g}", shown)
    out.print(table)
