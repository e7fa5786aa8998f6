"""The report from what was measured: rows with the notes a reader needs beside the numbers, settings, coverage.

Not here: measuring. This is where vectors leave the device: one transfer a site, after the scan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from srdd.core.dead import dead_text
from srdd.core.formats import BlockFormat
from srdd.core.layers import span
from srdd.core.tally import Tally
from srdd.core.uncertainty import total
from srdd.core.verdicts import CLASSIC
from srdd.documents.parts import Note
from srdd.documents.report import Report, in_order
from srdd.documents.schema import Coverage, Measurement, Settings, measurement
from srdd.documents.schema import Site as SiteRow
from srdd.models.heads import column_heads, dead_heads, row_heads
from srdd.models.sites import Site
from srdd.runs.scans.tap import Result
from srdd.runs.setup import Run, backend_used


def report_of(
    run: Run,
    rows: list[SiteRow],
    formats: Sequence[BlockFormat],
    *,
    seed: int,
    thresholds: dict[str, float] | None,
    uncovered: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Report:
    """The whole document; `uncovered` are experts that got no tokens."""
    common = {**run.settings(), "device": _device_name(run.device), "backend_reason": backend_used(run.backend)[1]}
    sites = run.sites
    return in_order(
        Report(
            model=run.identity,
            settings=Settings(
                formats=[fmt.spec for fmt in formats],
                kinds=list(sites.kinds),
                selection=sites.selection,
                seed=seed,
                thresholds=thresholds or dict(CLASSIC),
                **common,
            ),
            coverage=Coverage(
                parameters=sites.parameters,
                measured=sites.parameters - sum(skipped.parameters for skipped in sites.skipped),
                skipped=list(sites.skipped),
                uncovered=list(uncovered),
            ),
            sites=rows,
            warnings=[*map(Note, notes), *warnings_for(rows, uncovered)],
            provenance=run.provenance(),
        )
    )


def _device_name(device: torch.device) -> str:
    """The kind of device, "cpu", or which GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def weight_row(
    site: Site,
    vectors: Tensor,
    formats: Sequence[BlockFormat],
    shape: Sequence[int],
    lines_of_zeros: tuple[Callable[[], list[int]], Callable[[], list[int]]],
    config: Mapping[str, Any],
    order_sum: float,
) -> SiteRow:
    """The row of a weight from its vectors [formats, fields]; `shape` as stored, `config` the model's.

    Rows and columns of zeros read the weight again; they are asked for where so many values are zero that there may
    be one.
    """
    tallies = [Tally.from_vector(row) for row in vectors.cpu().tolist()]
    columns = shape[-2] if site.transposed else shape[-1]
    zeros = tallies[0].n - tallies[0].nonzero
    rows = shape[-1] if site.transposed else shape[-2]
    dead = dead_text(tallies[0])
    if not dead:
        outs = int(tallies[0].n + tallies[0].excluded) // max(columns, 1)  # of all experts
        heads = row_heads(site.role, site.name, config), column_heads(site.role, site.name, config)
        of_rows = _dead("output", lines_of_zeros[0](), outs, heads[0]) if zeros >= columns > 0 else ""
        of_columns = _dead("input", lines_of_zeros[1](), columns, heads[1]) if zeros >= rows > 0 else ""
        dead = "; ".join(filter(None, (of_rows, of_columns)))
    measured = {f.spec: measurement(t) for f, t in zip(formats, tallies, strict=True)}
    return SiteRow(
        kind="weight",
        name=site.name,
        role=site.role,
        index=site.index,
        layer=site.layer,
        group=site.group,
        shape=list(shape),
        beside_text=site.beside_text,
        transposed=site.transposed,
        order_sum=order_sum if math.isfinite(order_sum) else None,
        notes=[*([Note.of("dead", dead)] if dead else []), *_notes(tallies[0], formats, columns, rows)],
        formats=measured,
    )


def _dead(side: Literal["output", "input"], found: Sequence[int], size: int, heads: int | None) -> str:
    if not found:
        return ""
    lines = "rows" if side == "output" else "columns"
    of_heads = dead_heads(found, size, heads)
    whole = f" ({of_heads})" if of_heads else ""
    return f"{len(found)} of {size} {side} channels are all zero: {lines} {span(found)}{whole}"


def activation_row(result: Result, formats: Sequence[BlockFormat]) -> SiteRow:
    """The row of an activation, with its tallies per sequence."""
    stacked = torch.stack(list(result.sequences.values())).cpu().tolist()  # [sequences, formats, fields]
    measured: dict[str, Measurement] = {}
    for index, fmt in enumerate(formats):
        tallies = [Tally.from_vector(sequence[index]) for sequence in stacked]
        measured[fmt.spec] = measurement(total(tallies), tallies)
    whole = Tally.from_vector(measured[formats[0].spec].tally or [])
    notes = _notes(whole, formats, result.features, None)
    if result.site.role == "experts":
        text = "each token once; the input of the experts' second product is inside the fused call, unseen"
        notes.append(Note(text))
    return SiteRow(
        kind=result.site.kind,
        name=result.site.name,
        role=result.site.role,
        index=result.site.index,
        layer=result.site.layer,
        group=result.site.group,
        members=list(result.members) if len(result.members) > 1 else [],
        shape=[result.features],
        beside_text=result.site.beside_text,
        notes=notes,
        formats=measured,
    )


def _notes(tally: Tally, formats: Sequence[BlockFormat], columns: int, rows: int | None) -> list[Note]:
    notes = []
    if tally.nonfinite:
        left_out = f"{int(tally.excluded)} in their blocks are left out"
        notes.append(Note.of("error", f"{int(tally.nonfinite)} NaN or infinite values; {left_out}"))
    ragged = [f.name for f in formats if columns % f.multiple[1] or (rows is not None and rows % f.multiple[0])]
    if ragged:
        text = f"in {', '.join(dict.fromkeys(ragged))}: {columns} columns are no multiple of the block"
        notes.append(Note.of("not deployable", text))
    return notes


def warnings_for(rows: Sequence[SiteRow], uncovered: Sequence[str]) -> list[Note]:
    """What a reader must know before trusting the numbers; errors first and marked as such."""
    bad = [row for row in rows if any(note.level == "error" for note in row.notes)]
    ragged = [row for row in rows if any(note.level == "not deployable" for note in row.notes)]
    dead = [(row, note) for row in rows for note in row.notes if note.level == "dead"]
    notes = []
    if dead:
        names = "; ".join(f"{row.name}, {note.removeprefix(Note.of('dead', ''))}" for row, note in dead[:3])
        more = " ..." if len(dead) > 3 else ""
        notes.append(Note.of("dead", f"{len(dead)} weight(s): {names}{more}"))
    if bad:
        names = ", ".join(f"{row.kind} {row.name}" for row in bad[:3])
        more = " ..." if len(bad) > 3 else ""
        notes.append(Note.of("error", f"NaN or infinite values at {len(bad)} site(s): {names}{more}"))
    if uncovered:
        names = ", ".join(uncovered[:3])
        notes.append(Note(f"{len(uncovered)} expert(s) got no tokens and are not measured: {names} ..."))
    if ragged:
        first = ragged[0].name
        notes.append(
            Note(f"{len(ragged)} site(s) are no multiple of the block wide; most stacks refuse them: {first} ...")
        )
    return notes
