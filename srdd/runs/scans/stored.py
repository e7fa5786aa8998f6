"""The scan of a packed checkpoint against its 16-bit original: what its codes do to the weights, beside rounding anew.

Every packed weight has two formats or more: its own form as it is stored, `nvfp4:stored`, and the same quantized afresh
from the original by the format's default rule, `nvfp4:nvidia`; x is the original's value in both. What is plain in both
is compared for equality. Not here: which weights are whose (srdd.models.beside_reference), costs
(srdd.runs.impact.reference).

Each packed tensor is quantized afresh by itself, as it was packed: a fused weight of two tensors has two tensor scales.

Worked number: a checkpoint that its exporter made by round-to-nearest under the same rule has the same tally twice,
bit for bit.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from srdd import kernels
from srdd.core.blocks import SQNR_BINS
from srdd.core.formats import BlockFormat, parse_list, stored
from srdd.core.tally import FIELDS
from srdd.documents.parts import Note
from srdd.documents.report import Report
from srdd.documents.schema import Site as SiteRow
from srdd.documents.schema import Skipped
from srdd.kernels.backend import Backend
from srdd.kernels.pairs import measure_pairs
from srdd.models.beside_reference import Part, Twins, twins
from srdd.models.files.checkpoint import Checkpoint
from srdd.models.files.packed.as_formats import fresh_format, nearest_format
from srdd.models.plain_tensors import differing
from srdd.models.selection import Selection
from srdd.models.sites import Site, SiteMap
from srdd.runs.scans.checkpoint import open_files, sites_of
from srdd.runs.scans.rows import report_of, weight_row
from srdd.runs.scans.weights import finite_amax, measure_matrices, zero_columns, zero_rows
from srdd.runs.setup import Progress, silent

_COUNTS = [FIELDS.index(name) for name in ("n", "deadzone", "clipped", "at_max", "excluded", "zero_scale")]
_SCALES = slice(len(FIELDS) + SQNR_BINS, -2)


def scan_stored(
    packed: Checkpoint,
    reference: Checkpoint,
    formats: str | BlockFormat | Sequence[str | BlockFormat] = (),
    sites: str | Sequence[str] | Selection | SiteMap = "weight",
    *,
    backend: str = "auto",
    seed: int = 0,
    thresholds: dict[str, float] | None = None,
    progress: Progress = silent,
) -> Report:
    """Measure the stored codes of `packed` against `reference`; `formats` are measured afresh beside its own.

    Memory stays bounded: both are read in runs of rows. The report is of the packed checkpoint, its provenance names
    the reference. Raises SourceError when the two do not belong together or nothing is packed; SiteError,
    BackendError.
    """
    asked = parse_list([formats] if isinstance(formats, str | BlockFormat) else formats) if formats else ()
    chosen = sites_of(packed, sites)
    found = twins(packed, reference, chosen)
    own = [fmt for _, parts in found.packed if (fmt := fresh_format(parts[0].packed.form)) is not None]
    every = tuple({fmt.spec: fmt for fmt in (*own, *asked)}.values())
    run = open_files(packed, every, replace(chosen, sites=tuple(site for site, _ in found.packed)), backend)
    rows, done = [], 0
    total = sum(site.numel for site in run.sites.sites)
    for site, parts in found.packed:
        rows.append(_row(site, parts, asked, packed.config, seed=seed, backend=run.backend))
        done += site.numel
        progress("weights", done, total)
    unequal = differing(packed, reference, found.plain, others=chosen.selection is None)
    skipped = (*run.sites.skipped, *_skipped(found, unequal))
    run = replace(run, sites=replace(run.sites, skipped=skipped))
    specs = {spec: None for row in rows for spec in row.formats}
    report = report_of(
        run, rows, every, seed=seed, thresholds=thresholds, notes=_notes(packed, reference, found, unequal)
    )
    whose = reference.identity
    return report.model_copy(
        update={
            "settings": report.settings.model_copy(update={"formats": [*specs]}),
            "provenance": {
                **report.provenance,
                "seconds": round(time.monotonic() - run.started, 2),
                "reference": whose.id,
                "reference_revision": whose.revision,
                "reference_weights_hash": whose.weights_hash,
            },
        }
    )


def _row(
    site: Site,
    parts: Sequence[Part],
    asked: Sequence[BlockFormat],
    config: Mapping[str, Any],
    *,
    seed: int,
    backend: Backend,
) -> SiteRow:
    form = parts[0].packed.form
    own, counted = fresh_format(form), nearest_format(form)
    fresh = tuple({fmt.spec: fmt for fmt in (*([own] if own else []), *asked)}.values())
    originals = [part.original for part in parts]
    vectors, order = measure_matrices(originals, fresh, name=site.name, seed=seed, backend=backend)
    of_codes, differ = _of_codes(parts, counted, own, site.transposed, backend)
    if own is not None and differ == 0 and _alike(of_codes, vectors[0]):
        of_codes = vectors[0]  # the same values: their sums are the same but for the order of adding
    # Rows and columns are as they are multiplied: x of a transposed tensor was turned.
    lines = partial(zero_rows, originals), partial(zero_columns, originals)
    named = (stored(counted), *fresh)
    row = weight_row(site, torch.stack([of_codes, *vectors]), named, site.shape, lines, config, order)
    said = f"stored in {form}"
    if own is not None:
        said += f"; {_share(differ, site.numel)} what {own.spec} makes of the original"
    return row.model_copy(update={"notes": [*row.notes, Note(said)]})


def _of_codes(
    parts: Sequence[Part], counted: BlockFormat, own: BlockFormat | None, transposed: bool, backend: Backend
) -> tuple[Tensor, int]:
    """The tally of the stored codes, and how many of them stand for another value than rounding anew gives."""
    total: Tensor | None = None
    blocks, differ = 0, 0
    for part in parts:
        amax = finite_amax(part.original) if own is not None and own.has_tensor_scale else None
        for x, q, scale in part.pairs(transposed):
            vector = measure_pairs(x, q, scale, counted, part.packed.largest)
            vector[-1] += blocks
            blocks += len(x) * -(-x.shape[1] // counted.block[1])
            total = vector if total is None else kernels.merge(total, vector)
            if own is not None:
                anew = kernels.quant_dequant(x.float(), own.for_weights, global_amax=amax, backend=backend)
                differ += int(((anew != q) & ~(anew.isnan() & q.isnan())).sum())
    assert total is not None, "a packed weight has a part"
    return total, differ


def _alike(ours: Tensor, fresh: Tensor) -> bool:
    """Whether counts and scales agree too, which equal values alone do not make sure."""
    return torch.equal(ours[_COUNTS], fresh[_COUNTS]) and torch.equal(ours[_SCALES], fresh[_SCALES])


def _share(part: int, whole: int) -> str:
    return "every value is" if not part else f"{max(100 * part / whole, 0.01):.2f} % of its values are not"


def _skipped(found: Twins, unequal: Mapping[str, float]) -> list[Skipped]:
    plain = [
        Skipped(
            name=site.name,
            parameters=site.numel,
            reason=f"stored plain: {'differs from' if site.name in unequal else 'equal to'} the reference",
        )
        for site, _ in found.plain
    ]
    several = "its tensors are stored in several forms"
    return [*plain, *(Skipped(name=s.name, parameters=s.numel, reason=several) for s in found.mixed)]


def _notes(packed: Checkpoint, reference: Checkpoint, found: Twins, unequal: Mapping[str, float]) -> list[str]:
    forms = Counter(parts[0].packed.form for _, parts in found.packed)
    counts = ", ".join(f"{form} ({count} weights)" for form, count in forms.most_common())
    notes = [
        f"errors are those of the stored codes, {counts}, and of fresh quantization, both against "
        f"{reference.identity.id}",
        *(note for note in packed.notes if "already carry that error" not in note),
        *(f"{reference.identity.id}: {note}" for note in reference.notes),
    ]
    odd = [form for form in forms if fresh_format(form) is None]
    if odd:
        notes.append(f"no format here quantizes as {', '.join(odd)} does: of these weights only the codes are measured")
    if found.mixed:
        names = ", ".join(site.name for site in found.mixed[:3])
        notes.append(f"{len(found.mixed)} weight(s) are stored in several forms and not measured: {names} ...")
    if unequal:
        name, most = max(unequal.items(), key=lambda one: one[1])
        said = f"relative rms error is {100 * most:.3g} %" if math.isfinite(most) else "values or shape are all others"
        notes.append(f"{len(unequal)} plain tensor(s) differ from the reference, {name} most: its {said}")
    if found.left:
        notes.append(f"{len(found.left)} weight(s) of the reference are not here: {found.left[0]} ...")
    return notes
