"""The costs of two reports side by side: layers, Linears and the whole model, paired by sequence.

Not here: tables of differences (changes.py), limits (gate.py) and the scan's own numbers (pairing.py).

Worked number: a KL of 0.1 and 0.3 on two sequences before, 0.2 and 0.4 after, rose by 0.1 ± 0, where two samples
apart would say ± 0.14.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from srdd.analysis.comparison.pairing import By, Pair, sequence_order, within_noise
from srdd.analysis.layer_costs import (
    Priced,
    cost_modes,
    cost_specs,
    has_costs,
    needs_costs,
    priced_layers,
    priced_linears,
)
from srdd.core.formats import parse
from srdd.core.metrics import COSTS, Metric
from srdd.core.modes import Mode, choose_mode, mode_title
from srdd.core.position import cost_scatter
from srdd.core.uncertainty import mean_and_error
from srdd.documents.comparison import WholeChange
from srdd.documents.costs import Cost
from srdd.documents.parts import same_sequences
from srdd.documents.report import Report
from srdd.errors import FormatError, ReportError, SettingError, setting


def by_cost(metric: Metric, *reports: Report) -> bool:
    """Whether the metric is a cost that a report keeps as such; older documents give it as if it were a metric."""
    return metric in COSTS and any(has_costs(report) for report in reports)


def cost_spec_of(report: Report, spec: str) -> str:
    """The format's full name as the costs have it. Raises SettingError."""
    needs_costs(report, COSTS[0])
    known = cost_specs(report)
    chosen = spec if spec in known else parse(spec).spec
    if chosen not in known:
        raise SettingError("spec", spec, f"the costs are of {', '.join(known)}")
    return chosen


def shared_mode(reports: Sequence[Report], specs: Sequence[str], wanted: str | None = None) -> Mode:
    """The mode to compare in: weights and inputs where all have it, else the last. Raises SettingError."""
    known = [cost_modes(r.costs, spec) if r.costs else [] for r, spec in zip(reports, specs, strict=True)]
    shared = [mode for mode in known[0] if all(mode in modes for modes in known)]
    if not shared:
        raise SettingError("metric", COSTS[0].name, f"the reports have no costs of {specs[0]} in the same mode")
    return choose_mode(wanted, shared, specs[0])


def comparable_costs(base: Report, new: Report, *, allow_other_text: bool) -> list[str]:
    """A note where costs were measured on other tokens, which is refused unless it is allowed. Raises ReportError."""
    a, b = (None if report.costs is None else report.costs.settings.calibration for report in (base, new))
    if a is None or b is None or same_sequences(a, b):
        return []
    if not allow_other_text:
        raise ReportError(
            f"the costs were measured on other tokens: {len(a.sequence_hashes)} sequences of {a.seq_len} tokens in the "
            f"base and {len(b.sequence_hashes)} of {b.seq_len} in the new report; scan both with the same "
            f"{setting('data')}, {setting('samples')}, {setting('seq_len')} and {setting('seed')}"
        )
    return ["the costs were measured on other tokens; their standard errors are not paired"]


def cost_pairs(
    base: Report, new: Report, spec: str, new_spec: str | None = None, mode: str | None = None, *, by: By = "layer"
) -> list[Pair]:
    """The costs of every layer, or by module of every Linear, that the base knows in one mode.

    What the new report lacks is nan there. The mode is as `shared_mode` chooses. Raises SettingError.
    """
    other = new_spec or spec
    chosen = shared_mode([base, new], [spec, other], mode)
    a, b = _priced(base, spec, chosen, by), _priced(new, other, chosen, by)
    order = _order(base, new)
    lacking = Priced({})
    scatter = _scatter((spec, other), chosen, whole=False)
    return [
        Pair("layer", spec, other, *key, row, b.get(key, lacking), order, chosen, scatter) for key, row in a.items()
    ]


def model_specs(report: Report) -> list[str]:
    """The formats under which the whole model was measured, without those that change nothing."""
    rows = report.costs.whole if report.costs is not None else []
    return list(dict.fromkeys(row.format for row in rows if not row.no_effect))


def model_pairs(base: Report, new: Report, spec: str) -> list[Pair]:
    """KL, loss and agreement of the whole model under a format, one pair a mode that the base knows.

    What the new report lacks is nan there.
    """
    a, b = _whole(base, spec), _whole(new, spec)
    order, lacking = _order(base, new), Priced({})
    return [
        Pair(
            "model",
            spec,
            spec,
            None,
            mode_title(mode, spec),
            row,
            b.get(mode, lacking),
            order,
            scatter=_scatter((spec,), mode, whole=True),
        )
        for mode, row in a.items()
    ]


def _scatter(specs: Sequence[str], mode: Mode, *, whole: bool) -> float:
    try:
        return max(cost_scatter(parse(spec), mode, whole=whole) for spec in specs)
    except FormatError:  # of a newer srdd
        return 0.0


def _whole(report: Report, spec: str) -> dict[Mode, Priced]:
    rows = report.costs.whole if report.costs is not None else []
    return {row.mode: Priced({"kl": row.kl, "loss": row.loss, "top1": row.top1}) for row in rows if row.format == spec}


def whole_changes(base: Report, new: Report, formats: Sequence[tuple[str, str]]) -> list[WholeChange]:
    """KL and loss of the whole model in every mode that both know, and the clean loss, paired by sequence."""
    a, b = base.costs, new.costs
    if a is None or b is None:
        return []
    order = _order(base, new)
    rows = []
    if a.clean is not None and b.clean is not None:
        rows.append(_change("loss, not quantized", "loss", a.clean.loss, b.clean.loss, order))
    for spec, other in formats:
        for before in (row for row in a.whole if row.format == spec):
            after = next((row for row in b.whole if (row.format, row.mode) == (other, before.mode)), None)
            if after is None:
                continue
            title = f"{spec} {mode_title(before.mode, spec)}" + (f" to {other}" if other != spec else "")
            rows.append(_change(f"KL, {title}", "kl", before.kl, after.kl, order, spec, other, before.mode))
            rows.append(_change(f"loss, {title}", "loss", before.loss, after.loss, order, spec, other, before.mode))
    return rows


def _change(
    name: str,
    quantity: Literal["loss", "kl"],
    base: Cost,
    new: Cost,
    order: Sequence[int] | None,
    base_format: str | None = None,
    new_format: str | None = None,
    mode: Mode | None = None,
) -> WholeChange:
    before, after = base.by_unit, new.by_unit
    change = 0.0 if base.value == new.value else new.value - base.value
    if order is not None and len(before) == len(after) == len(order) > 1:
        error = mean_and_error([after[place] - before[i] for i, place in enumerate(order)])[1]
        degrees = len(order) - 1
    else:
        degrees = max(min(len(before or ()), len(after or ())) - 1, 1)
        error = math.nan if base.error is None or new.error is None else math.hypot(base.error, new.error)
    return WholeChange(
        name=name,
        layers=[],
        base=base.value,
        new=new.value,
        change=change,
        standard_error=error,
        within_noise=within_noise(change, error, degrees),
        worse=change > 0 if change else None,
        quantity=quantity,
        base_format=base_format,
        new_format=new_format,
        mode=mode,
    )


def _order(base: Report, new: Report) -> tuple[int, ...] | None:
    calibrations = (None if report.costs is None else report.costs.settings.calibration for report in (base, new))
    return sequence_order(*calibrations)


def _priced(report: Report, spec: str, mode: Mode, by: By) -> dict[tuple[int | None, str], Priced]:
    if by == "module":
        return priced_linears(report, spec, mode)
    rows, _ = priced_layers(report, spec, mode)
    return {(layer, f"layer {layer}"): row for layer, row in rows.items()}
