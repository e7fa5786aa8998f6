"""Refuses a report whose numbers contradict each other: whoever made them, nothing that follows from them is true.

Every tally is held, of each sequence or of a weight, and every cost. It is done where a file is opened.

Not here: what the sums of a tally must satisfy (srdd.core.contradictions) and numbers that are no numbers, which the
report's parts refuse.

Worked number: sum_e2 -1 would be shown as an exact copy; here it is refused as a negative sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from srdd.core.blocks import SCALE_BINS, SQNR_BINS
from srdd.core.contradictions import contradiction
from srdd.core.formats import parse
from srdd.core.metrics import BY_NAME, significant
from srdd.core.tally import FIELDS
from srdd.documents.costs import Cost, Costs, Ratio
from srdd.documents.schema import Measurement, Site
from srdd.errors import FormatError, ReportError

_REMEDY = "these numbers were never measured; write the report anew"
# A KL is a difference of sums over a vocabulary in float32. Relative to the size of losses, which the logits decide.
_ROUNDING = 1e-4
_EXACT_COUNT = 2.0**53


def refuse(sites: Sequence[Site], costs: Costs | None, name: str) -> None:
    """Raise ReportError in one line that names the site, the format and the sums; `name` is the file's."""
    stochastic = {spec: _may_be_stochastic(spec) for spec in {spec for site in sites for spec in site.formats}}
    for site in sites:
        for spec, measured in site.formats.items():
            for sums in measured.sequences or (measured.whole,):
                if sums is not None and contradiction(sums, stochastic=stochastic[spec]) is not None:
                    raise ReportError(_said(name, site, spec, measured, stochastic[spec]))
            for counts in measured.sequence_blocks or (measured.whole_blocks,):
                if counts is not None and (wrong := _of_blocks(counts)):
                    raise ReportError(f"{name}: {_place(site, spec)}: counts of blocks {wrong}; {_REMEDY}")
            for metric, given in measured.given.items():
                wrong = _of_given(metric, given.value)
                if wrong:
                    raise ReportError(f"{name}: {_place(site, spec)}: {metric} is {given.value:g}, {wrong}; {_REMEDY}")
    if costs is not None:
        for place, found, wrong in _of_costs(costs):
            raise ReportError(f"{name}: {place} is {significant(found)}, {wrong}; {_REMEDY}")


def _may_be_stochastic(spec: str) -> bool:
    try:
        return parse(spec).stochastic
    except FormatError:  # of another version
        return True


def _place(site: Site, spec: str) -> str:
    return f"{site.kind} {site.name} under {spec}"


def _said(name: str, site: Site, spec: str, measured: Measurement, stochastic: bool) -> str:
    """The first tally that is wrong, and which of its sums."""
    for at, sums in enumerate(measured.sequences or [measured.whole or []]):
        broken = contradiction(sums, stochastic=stochastic)
        if broken is not None:
            values = dict(zip(FIELDS, sums, strict=True))
            found = ", ".join(f"{field} {values[field]:.9g}" for field in broken.fields)
            where = f", sequence {at}" if measured.sequences else ""
            return (
                f"{name}: {_place(site, spec)}{where}: sums contradict each other: {broken.said} ({found}); {_REMEDY}"
            )
    raise AssertionError("no tally is wrong")


def _of_blocks(counts: Sequence[Sequence[float]]) -> str:
    """What is wrong with counts of blocks: every block has one SQNR and one scale, and they are whole numbers."""
    sqnr, scales, worst = counts
    for row, bins in ((sqnr, SQNR_BINS), (scales, SCALE_BINS)):
        if not row:
            continue
        if not 0 <= min(row) <= max(row) < _EXACT_COUNT or not all(map(float.is_integer, row)):
            return "are negative, or no whole numbers"
        if row[0] > bins - (len(row) - 1):
            return "are in bins that do not exist"
    if sum(sqnr[1:]) != sum(scales[1:]):
        return f"are {sum(sqnr[1:]):g} by SQNR and {sum(scales[1:]):g} by scale"
    return "have a worst block that is none" if worst and (len(worst) != 2 or min(worst) < 0) else ""


def _of_given(metric: str, value: float) -> str:
    """What is wrong with a metric that came without sums."""
    known = BY_NAME.get(metric)
    if known is None or metric == "gain":
        return ""
    if metric.endswith("_ratio") and not 0 <= value <= 1:
        return "expected a share from 0 to 1"
    return "expected 0 or more" if known.unit == "%" and value < 0 else ""


def _of_costs(costs: Costs) -> Iterator[tuple[str, float, str]]:
    """Where, what was found, and what is wrong with it."""
    size = 1.0 if costs.clean is None else 1 + abs(costs.clean.loss.value)
    least = -_ROUNDING * size
    clean = [("loss", costs.clean.loss), ("entropy", costs.clean.entropy)] if costs.clean is not None else []
    for field, cost in clean:
        yield from _low(f"{field} of the model as it is", cost, least)
    for whole in costs.whole:
        place = f"of the whole model under {whole.format} ({whole.mode})"
        yield from _low(f"loss {place}", whole.loss, least)
        yield from _low(f"kl {place}", whole.kl, least)
        yield from _low(f"top1 {place}", whole.top1, 0.0)
        most = max(_numbers(whole.top1))
        if most > 1:
            yield f"top1 {place}", most, "a share beyond 1"
        quantiles = [whole.kl_quantiles[share] for share in ("0.5", "0.9", "0.99", "1") if share in whole.kl_quantiles]
        if quantiles != sorted(quantiles):
            yield f"the median of kl {place}", quantiles[0], "and its quantiles do not rise"
        if whole.no_effect and max(_numbers(whole.kl)) > -least:
            yield f"kl {place}", whole.kl.value, "and no_effect says that nothing changed"
    for row in (*costs.layers, *costs.groups, *costs.linears, *costs.experts, *costs.sensitivities):
        for field, value in vars(row).items():
            for part in value.values() if isinstance(value, dict) else (value,):
                if isinstance(part, Cost | Ratio):
                    limit = least if isinstance(part, Cost) else 0.0
                    if min(_numbers(part)) < limit or (part.error or 0) < 0:  # names take longer than numbers
                        yield from _low(f"{field} of {_name(row)}", part, limit)


def _low(place: str, found: Cost | Ratio, least: float) -> Iterator[tuple[str, float, str]]:
    lowest = min(_numbers(found))
    if lowest < least:
        yield place, lowest, "below 0, which it cannot be"
    if found.error is not None and found.error < 0:
        yield f"the standard error of {place}", found.error, "below 0, which it cannot be"


def _numbers(found: Cost | Ratio) -> Sequence[float]:
    """Those that the others follow from; squared norms were held when they were read."""
    return (isinstance(found, Cost) and found.sequences) or (found.value,)


def _name(row: Any) -> str:
    name = getattr(row, "name", None) or getattr(row, "module", None) or f"layer {row.layer}"
    return f"{name} under {row.format}" if hasattr(row, "format") else name
