"""`srdd formats`: the formats, their values, rules and what they cost on Gaussian data."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def formats(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")] = False,
) -> None:
    """List every format: element values, block, scale rules and Gaussian baselines.

    Example: srdd formats
    """
    from srdd.cli import console
    from srdd.core.formats import ELEMENTS, FORMATS, SYNONYMS
    from srdd.core.gaussian import gaussian_metrics

    if as_json:
        rows = [
            {
                "name": row.name,
                "element": row.element.name,
                "element_max": row.element.max,
                "block": list(row.block),
                "scale": row.scale.value,
                "default_rule": row.rule.value,
                "rules": [rule.value for rule in row.rules],
                "bits_per_value": row.bits_per_value,
                "stochastic": row.stochastic,
                "gaussian": {rule.value: gaussian_metrics(f"{row.name}:{rule.value}") for rule in row.rules},
            }
            for row in FORMATS.values()
        ]
        console.machine(json.dumps({"formats": rows, "synonyms": SYNONYMS}, indent=1))
        return

    from rich.table import Table

    out = console.people()
    table = Table(title="Formats (write NAME or NAME:RULE, e.g. mxfp4:floor; the default rule stands first)")
    for column in (
        "format",
        "element",
        "block",
        "bits",
        "scale",
        "rule",
        "SQNR dB",
        "rel. error %",
        "zeroed %",
        "clipped %",
    ):
        numeric = column.endswith(("%", "dB")) or column == "bits"
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in FORMATS.values():
        rules = sorted(row.rules, key=lambda rule: rule is not row.rule)
        for index, rule in enumerate(rules):
            numbers = gaussian_metrics(f"{row.name}:{rule.value}") or {}
            facts = (
                row.name,
                row.element.name,
                f"{row.block[0]}x{row.block[1]}",
                f"{row.bits_per_value:g}",
                row.scale.value,
            )
            table.add_row(
                *(facts if index == 0 else ("",) * len(facts)),
                rule.value,
                f"{numbers.get('sqnr_db', float('nan')):.2f}",
                *(
                    f"{100 * numbers.get(m, float('nan')):.2f}"
                    for m in ("relative_error", "deadzone_ratio", "saturation_ratio")
                ),
                end_section=index == len(rules) - 1,
            )
    out.print(table)
    out.print("Baselines: standard normal data. `ocp` is a synonym of floor; mxfp8 of mxfp8_e4m3.\n")
    values = Table(title="Element values (magnitudes)")
    for column in ("element", "bits", "max", "values"):
        values.add_column(column)
    for element in ELEMENTS:
        grid = [f"{value:g}" for value in element.magnitudes]
        shown = " ".join(grid) if len(grid) <= 8 else f"{' '.join(grid[:6])} ... {' '.join(grid[-3:])}  ({len(grid)})"
        values.add_row(element.name, str(element.bits), f"{element.max:g}", shown)
    out.print(values)
